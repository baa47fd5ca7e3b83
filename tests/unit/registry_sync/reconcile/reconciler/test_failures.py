"""The spine when something around it fails: ledger, registry, an aspired version that moves."""

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from gateway.contract import AliasRef
from registry_sync.artifacts.store import Acceptance, StoredArtifact
from registry_sync.domain import Attempt, Hold
from registry_sync.domain.aspired import Aspired
from registry_sync.errors import LedgerError
from registry_sync.ledger.journal import Journal
from registry_sync.ledger.ledger import Ledger
from registry_sync.planning.actions import Activate, Urgency
from registry_sync.reconcile.gateway.target import TargetUnreachableError
from registry_sync.reconcile.registry.registry_view import _Target
from registry_sync.reconcile.steps.fetch import _Confirmed
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch
from registry_sync.system.threads import Threads
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled
from tests.fakes.waiting import becomes

DIGESTS = {number: f"sha256:{number:064x}" for number in (1, 2, 3)}


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
    acceptance = Acceptance("m", version, None, None, stamped=False)
    return StoredArtifact(DIGESTS[version], folder, 1, {}, (acceptance,), 1.0)


@contextlib.asynccontextmanager
async def journal_at(folder: Path, ledger_class=Ledger):
    """A journal whose ledger has been filled with the accepted digest of version 1."""
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
        await becomes(SlowToOpen.asked.is_set, "somebody waits")
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


async def test_bytes_whose_digest_the_ledger_does_not_take_are_not_fetched_in_a_loop(
    node: NodeInMemory,
) -> None:
    now = time.time()
    node.clock = lambda: now  # it stands still, so that no pause ends
    async with node.at_rest(1) as spine:
        with node.refusing_ledger():
            node.gateway.want(M, 2)
            await becomes(lambda: spine.steps.backoff.get(("fetch", M, 2)), "it has failed")
            for _ in range(3):
                await spine.next_decision()
            assert node.registry.fetched.count(f"fake:/{M}/2") == 1


async def test_a_model_that_the_ledger_refuses_is_recorded_later_behind_the_others(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.control_plane() as spine:
        pass  # no pass of its own may come between
    asked, refused = list[str](), {"a"}

    async def record(model: str) -> bool:
        asked.append(model)
        return model not in refused

    monkeypatch.setattr(spine, "_record_model", record)
    spine._unrecorded.clear()
    await spine._record({"a", "b"}, recording=True)
    assert asked == ["a"]
    refused.clear()
    await spine._record(set(), recording=True)
    assert asked == ["a", "b", "a"]


async def test_a_gateway_that_a_pass_finds_gone_is_suspected(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.at_rest() as spine:
        suspected = list[str]()

        async def reconcile() -> None:
            raise TargetUnreachableError("no connection")

        monkeypatch.setattr(spine.observation, "suspect", suspected.append)
        monkeypatch.setattr(spine, "reconcile", reconcile)
        await spine.next_decision()
        assert set(suspected) == {"no connection"}


async def test_an_alias_that_moves_on_during_the_comparison_is_not_activated(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1) as spine:
        compared, go = asyncio.Event(), asyncio.Event()

        async def confirm(_action: Activate, _watch: Stopwatch) -> StepFailure | None:
            compared.set()
            await go.wait()
            return None

        monkeypatch.setattr(spine.fetch_step, "confirm", confirm)
        await node.promotes(2)
        await compared.wait()
        await node.promotes(1)
        go.set()
        await idle(spine)
        assert [one.version for one in node.gateway.activations] == [1]


async def test_one_listing_at_a_time(node: NodeInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    order, listed = [], node.registry.aspired

    def slow(before: Aspired | None = None) -> Aspired:
        order.append("begins")
        time.sleep(0.05)
        order.append("ends")
        return listed(before)

    monkeypatch.setattr(node.registry, "aspired", slow)
    async with node.control_plane(poll=False) as spine:
        await asyncio.gather(spine.poll(), spine.poll())
    assert order == ["begins", "ends"] * 2


async def test_a_quarantine_whose_storage_tells_nothing_is_fetched_again_later(
    node: NodeInMemory,
) -> None:
    now = 1000.0
    node.clock = lambda: now
    node.registry.tells_listings = False
    async with node.following(1) as spine:
        before = dict(node.registry.files[f"fake:/{M}/2"])
        node.registry.spoil(M, 2)
        node.gateway.want(M, 2)
        await becomes(lambda: spine.journal.view.quarantines, "it is quarantined")
        node.registry.files[f"fake:/{M}/2"] = before
        await polled(spine)
        assert spine.journal.view.quarantines
        now += 1000.0
        await spine.poll()
        await becomes(lambda: not spine.journal.view.quarantines, "it is looked at once more")
        assert node.registry.fetched.count(f"fake:/{M}/2") == 2


async def test_a_decision_that_is_waited_for_begins_after_the_question(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.control_plane() as spine:
        passes, going = list[str](), asyncio.Event()

        async def reconcile() -> None:
            passes.append("begins")
            await going.wait()

        await spine.next_decision()
        monkeypatch.setattr(spine, "reconcile", reconcile)
        spine.wake()
        await becomes(lambda: passes, "a pass has begun")
        asked = asyncio.create_task(spine.next_decision())
        await asyncio.sleep(0)
        going.set()
        await asked
        assert len(passes) >= 2


@pytest.mark.parametrize("took_s", [1.0, 400.0])
async def test_a_long_comparison_counts_for_as_long_as_it_takes_to_use_it(
    node: NodeInMemory, took_s: float
) -> None:
    now = 0.0
    node.clock = lambda: now
    async with node.control_plane() as spine:
        spine.fetch_step._confirmed[M, 2] = _Confirmed(DIGESTS[2], -took_s, 0.0)
        spine.listings._targets = {AliasRef(M, A): _Target(2, None, -took_s, "poll")}
        action = Activate(M, A, 2, DIGESTS[2], "s", Urgency.ACTIVATE, "poll")
        for now, counts in ((110.0, True), (600.0, took_s > 300), (900.0, False)):  # noqa: B007 - read by the clock
            assert spine.fetch_step._is_confirmed(action) is counts


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
