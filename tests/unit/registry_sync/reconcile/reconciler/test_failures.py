"""The spine when something around it fails: ledger, registry, a wish that moves meanwhile."""

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.contract.catalogue import Catalogue, ModelChange, UnchangedCatalogue
from gateway.contract.changes import (
    Ack,
    ActivateRequest,
    RetireRequest,
    StageRequest,
)
from gateway.contract.node_state import ActiveAlias, AwaitedVersion, NodeState
from gateway.system.files.damaged_files import DamagedFiles
from registry_sync.artifacts.store import Acceptance, ArtifactStore, StoredArtifact
from registry_sync.domain import (
    AcceptedDigest,
    Attempt,
    Hold,
    HoldChange,
    LedgerView,
    Quarantine,
)
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.errors import LedgerError
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.journal import Journal
from registry_sync.ledger.ledger import Ledger
from registry_sync.planning.actions import Activate, RetireAlias, Urgency
from registry_sync.planning.plan import plan
from registry_sync.planning.snapshot import Snapshot
from registry_sync.reconcile.build import build
from registry_sync.reconcile.context import Limits, Policy
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.registry.registry_view import _Target
from registry_sync.reconcile.steps.ingestion import Ingestion
from registry_sync.system.threads import Threads
from tests.fakes.artifacts import fetched
from tests.fakes.environments import FakeEnvironments

DIGESTS = {number: f"sha256:{number:064x}" for number in (1, 2, 3)}


def listing(
    champion: int | None, *, listed_at: float = 0.0, unfollowed: frozenset[str] = frozenset()
):
    versions = {n: AspiredVersion(model="m", version=n, location="there") for n in DIGESTS}
    aliases = {} if champion is None else {"champion": champion}
    model = AspiredModel(name="m", versions=versions, aliases=aliases, unfollowed=unfollowed)
    return Aspired(models={"m": model}, listed_at=listed_at)


def active(version: int) -> ActiveAlias:
    return ActiveAlias(
        model="m", alias="champion", version=version, digest=DIGESTS[version], since=0.0
    )


def node(*, version: int | None = 1, **fields) -> NodeState:
    return NodeState(
        node_id="n",
        boot_id="b",
        seq=1,
        generation=1,
        active=[] if version is None else [active(version)],
        **fields,
    )


@dataclass
class Registry:
    """A source and a fetcher whose answers the test sets."""

    says: Aspired
    locates: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def aspired(self, before: Aspired | None = None) -> Aspired:
        return self.says

    def model(self, name: str) -> AspiredModel | None:
        return self.says.models.get(name)

    def version(self, model: str, version: int) -> AspiredVersion:
        return self.says.models[model].versions[version]

    def locate(self, model: str, version: int) -> str:
        self.locates += 1
        return f"{model}/{version}"

    def is_whole(self, version: AspiredVersion) -> bool:
        return True

    def stamp(self, model: str, version: int, digest: str) -> None:
        raise NotImplementedError

    def remote_listing(self, uri: str, *, on_progress=None) -> str | None:
        assert self.gate.wait(5)
        return uri

    def fetch(self, uri: str, into: Path, *, judged=False, on_progress=None, reserve=None):
        return fetched(into)


@dataclass
class Target:
    """A gateway that takes everything and remembers what it was asked to activate."""

    activated: list[ActivateRequest] = field(default_factory=list)

    async def publish(self, catalogue: Catalogue) -> Ack:
        return Ack(generation=1)

    async def keep(self, unchanged: UnchangedCatalogue) -> Ack:
        return Ack(generation=1)

    async def stage(self, request: StageRequest) -> Ack:
        raise NotImplementedError

    async def activate(self, request: ActivateRequest) -> Ack:
        self.activated.append(request)
        return Ack(generation=2)

    async def retire(self, request: RetireRequest) -> Ack:
        raise NotImplementedError

    async def change(self, change: ModelChange) -> Ack:
        return Ack(generation=1)

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        await asyncio.sleep(3600)
        raise AssertionError


async def test_what_is_written_while_the_ledger_is_read_is_seen_by_the_next_pass(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=time.time)
    threads = Threads()
    journal = Journal(ledger, threads)
    await journal.refresh((), None)
    hold = Hold("m", "champion", 2, 1, DIGESTS[1], "operator", 0.0)
    journal._stale = True
    await asyncio.gather(journal.refresh((), None), journal.write(None, ledger.hold, hold))
    await journal.refresh((), None)
    assert journal.view.holds == {("m", "champion"): hold}
    ledger.close()
    assert threads.close(timeout_s=5)


ATTEMPT = Attempt("m", None, 1, "fetch", "poll", 0.0, {}, "complete")


def stored(version: int, folder: Path) -> StoredArtifact:
    pin = Acceptance("m", version, None, None, stamped=False)
    return StoredArtifact(DIGESTS[version], folder, 1, {}, (pin,), 1.0)


@contextlib.asynccontextmanager
async def journal_at(folder: Path, ledger_class=Ledger):
    """A journal whose ledger has been filled with the pin of version 1."""
    ledger = ledger_class(f"sqlite:///{folder}/ledger.db", node_id="n", clock=time.time)
    threads = Threads()
    journal = Journal(ledger, threads)
    await journal.refresh([stored(1, folder)], None)
    assert list(journal.view.accepted) == [("m", 1)]
    try:
        yield journal, ledger
    finally:
        ledger.close()
        assert threads.close(timeout_s=5)


@pytest.mark.parametrize("beside", ["write", "refresh"])
async def test_a_ledger_lost_under_two_calls_at_once_is_filled_again(tmp_path, beside):
    async with journal_at(tmp_path) as (journal, ledger):
        (tmp_path / "ledger.db").unlink()
        others = {
            "write": lambda: journal.note(ledger.attempted, ATTEMPT),
            "refresh": lambda: journal.refresh([stored(1, tmp_path)], None),
        }
        await asyncio.gather(journal.note(ledger.attempted, ATTEMPT), others[beside]())
        await journal.refresh([stored(1, tmp_path)], None)
        assert list(journal.view.accepted) == [("m", 1)]


class SlowToOpen(Ledger):
    """A ledger that waits to be made until ``gate`` is set; ``asked`` says that somebody waits."""

    gate = threading.Event()
    asked = threading.Event()

    def ensure(self) -> bool:
        self.asked.set()
        assert self.gate.wait(5)
        return super().ensure()


async def test_a_ledger_made_anew_for_a_write_that_is_cancelled_is_filled_again(tmp_path):
    SlowToOpen.gate.set()
    async with journal_at(tmp_path, SlowToOpen) as (journal, ledger):
        (tmp_path / "ledger.db").unlink()
        SlowToOpen.gate.clear()
        SlowToOpen.asked.clear()
        writing = asyncio.create_task(journal.note(ledger.attempted, ATTEMPT))
        await until(SlowToOpen.asked.is_set)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        SlowToOpen.gate.set()
        await journal.refresh([stored(1, tmp_path)], None)
        assert list(ledger.view().accepted) == [("m", 1)]


async def test_a_ledger_that_was_not_filled_to_the_end_is_filled_by_the_next_pass(tmp_path):
    async with journal_at(tmp_path) as (journal, ledger):
        (tmp_path / "ledger.db").unlink()
        accept, ledger.accept = ledger.accept, refuse
        await journal.refresh([stored(1, tmp_path)], None)
        assert journal.trouble == "the ledger is read-only"
        ledger.accept = accept
        await journal.refresh([stored(1, tmp_path)], None)
        assert list(journal.view.accepted) == [("m", 1)]


def refuse(*_: object) -> None:
    raise LedgerError("the ledger is read-only")


class ReadOnlyLedger(Ledger):
    """A ledger that is read, and takes nothing."""

    def accept(self, accepted: AcceptedDigest) -> None:
        raise LedgerError("the ledger is read-only")

    def record(self, change: HoldChange, *, late: bool) -> None:
        raise LedgerError("the ledger is read-only")


@contextlib.asynccontextmanager
async def spine_on(tmp_path, registry, target, ledger_class=Ledger, clock=time.time):
    threads = Threads()
    store = ArtifactStore(tmp_path)
    store.open()
    ledger = ledger_class(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=clock)
    spine = build(
        source=registry,
        intake=Ingestion(source=registry, fetcher=registry, store=store, require_digest=False),
        store=store,
        ledger=ledger,
        target=target,
        environments=FakeEnvironments(),
        threads=threads,
        boot_id="c",
        jitter=lambda: 1.0,
        limits=Limits(),
        policy=Policy(),
        holds_file=HoldsFile(tmp_path / "holds.json"),
        damaged_files=DamagedFiles(),
        clock=clock,
    ).reconciler
    following = asyncio.create_task(spine.run())
    try:
        yield spine
    finally:
        registry.gate.set()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        ledger.close()
        assert threads.close(timeout_s=5)


def tell(spine: Reconciler, state: NodeState) -> None:
    spine.observation._take(state)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a condition of somebody else's state
            await asyncio.sleep(0.01)


async def test_bytes_whose_pin_the_ledger_does_not_take_are_not_fetched_in_a_loop(tmp_path):
    registry = Registry(listing(None))
    async with spine_on(tmp_path, registry, Target(), ReadOnlyLedger) as spine:
        await spine.poll()
        tell(spine, node(version=None, wanted=[AwaitedVersion(model="m", version=1, since=0.0)]))
        await until(lambda: ("fetch", "m", 1) in spine.steps.backoff.failures())
        await asyncio.sleep(0.3)
        assert registry.locates == 1
        assert "read-only" in spine.steps.backoff.failures()["fetch", "m", 1].reason


async def test_an_alias_that_moves_on_during_the_comparison_is_not_activated(tmp_path):
    registry, target = Registry(listing(2)), Target()
    async with spine_on(tmp_path, registry, target) as spine:
        await spine.poll()
        staged = StageRequest(
            stage_id="s", model="m", version=2, digest=DIGESTS[2], replaces=1, keep=True
        )
        spine.artifacts.update(dict.fromkeys(DIGESTS.values()))
        spine.observation._take(node(standbys=[staged]))
        pins = {
            ("m", n): AcceptedDigest("m", n, digest, None, False, f"m/{n}")
            for n, digest in DIGESTS.items()
        }
        spine.journal._views.take(LedgerView(accepted=pins))
        (action,) = plan(spine.look("m"))
        assert isinstance(action, Activate)
        step = asyncio.create_task(spine.steps._step(("activate", "m", "champion"), action))
        await asyncio.sleep(0.05)
        spine.listings.take(listing(1), "poll")
        registry.gate.set()
        await step
        assert target.activated == []


async def test_one_listing_at_a_time(tmp_path):
    order = []

    class Slow(Registry):
        def aspired(self, before=None):
            order.append("begins")
            time.sleep(0.1)
            order.append("ends")
            return self.says

    async with spine_on(tmp_path, Slow(listing(1)), Target()) as spine:
        await asyncio.gather(spine.poll(), spine.poll())
    assert order == ["begins", "ends"] * 2


async def test_a_quarantine_whose_storage_tells_nothing_is_fetched_again_later(tmp_path):
    now = 1000.0
    registry = Registry(listing(None))
    async with spine_on(tmp_path, registry, Target(), clock=lambda: now) as spine:
        await spine.poll()
        wrong = Quarantine("m", 3, None, None, None, "they are wrong", now)
        assert await spine.journal.write("m", spine.ledger.quarantine, wrong)
        spine.wake()
        await until(lambda: spine.journal.view.quarantines)
        await spine.poll()
        assert registry.locates == 0
        now += 1000.0
        await spine.poll()
        await until(lambda: not spine.journal.view.quarantines)
        assert registry.locates == 1


async def test_a_decision_that_is_waited_for_begins_after_the_question(tmp_path):
    async with spine_on(tmp_path, Registry(listing(1)), Target()) as spine:
        passes, going = [], asyncio.Event()

        async def reconcile():
            passes.append("begins")
            await going.wait()

        await spine.next_decision()
        spine.reconcile = reconcile
        spine.wake()
        await until(lambda: passes)
        asked = asyncio.create_task(spine.next_decision())
        await asyncio.sleep(0)
        going.set()
        await asked
        assert len(passes) >= 2


@pytest.mark.parametrize("took_s", [1.0, 400.0])
async def test_a_long_comparison_counts_for_as_long_as_it_takes_to_use_it(tmp_path, took_s):
    now = 0.0
    async with spine_on(tmp_path, Registry(listing(2)), Target(), clock=lambda: now) as spine:
        await spine.poll()
        await spine.fetch_step._accept(("m", 2), _Brought(DIGESTS[2]), now - took_s, "poll")
        spine.listings._targets = {("m", "champion"): _Target(2, None, -took_s, "poll")}
        action = Activate("m", "champion", 2, DIGESTS[2], "s", Urgency.ACTIVATE, "poll")
        now = 110.0
        assert spine.fetch_step._is_confirmed(action)
        now = 600.0
        assert spine.fetch_step._is_confirmed(action) is (took_s > 300)
        now = 900.0
        assert not spine.fetch_step._is_confirmed(action)


@dataclass
class _Brought:
    digest: str
    accepted: tuple[object, ...] = ()

    @property
    def artifact(self):
        return self

    @property
    def pin(self):
        return AcceptedDigest("m", 2, self.digest, None, False, None)


def test_an_alias_at_a_version_that_cannot_be_followed_goes_on_serving():
    for listed in (listing(None), listing(None, unfollowed=frozenset({"champion"}))):
        actions = plan(
            Snapshot(aspired=listed, listings=9, node=node(), ledger=LedgerView(), stored=set())
        )
        gone = not listed.models["m"].unfollowed
        assert actions == ((RetireAlias("m", "champion"),) if gone else ())


def test_a_listing_is_remembered_with_the_aliases_that_cannot_be_followed(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=time.time)
    ledger.ensure()
    said = listing(1, listed_at=5.0, unfollowed=frozenset({"next"}))
    ledger.remember_listing(said)
    assert ledger.last_listing() == said
    ledger.close()


def test_a_database_that_accepts_and_says_nothing_is_given_up_on():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql+psycopg://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        ledger = Ledger(url, node_id="n", clock=time.time)
        started = time.monotonic()
        with pytest.raises(LedgerError, match="cannot be opened"):
            ledger.ensure()
        assert time.monotonic() - started < 20
        ledger.close()
