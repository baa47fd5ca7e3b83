"""How far a fetch is: in the state, in an explanation, for eyes, and in the log."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from gateway.contract.catalogue import VersionState
from registry_sync.domain import AcceptedDigest, Initiator, LedgerView, Quarantine
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.errors import IncompleteArtifactError, SourceError
from registry_sync.planning.actions import Activate, Urgency
from registry_sync.reconcile.steps.fetch import FetchStep
from registry_sync.reconcile.steps.outcome import Stopwatch
from registry_sync.sources import OnProgress
from tests.fakes.nodes import A, M, NodeInMemory
from tests.fakes.operating import asking, listening
from tests.fakes.waiting import becomes


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    made = NodeInMemory(tmp_path)
    made.registry.publish(M, 1, size_bytes=4_000_000)
    made.registry.publish("other", 7)
    for model, version in ((M, 1), ("other", 7)):
        made.registry.without_latest(model)
        made.registry.point(model, A, version)
    return made


async def test_an_operator_sees_how_far_each_fetch_is(node: NodeInMemory) -> None:
    gate = node.registry.hold_fetches[M] = threading.Event()
    async with (
        node.control_plane() as spine,
        asking(node, spine) as client,
        listening(node, spine) as command,
    ):
        await becomes(
            lambda: [one.arrived_bytes for one in spine.fetch_step.fetches] == [2_000_000],
            "half of it is here, and all of the other one",
        )
        # What is logged later would get between the lines that the command says.
        await becomes(lambda: node.gateway.points("other", A) == 7, "the other one serves")
        await becomes(lambda: len(spine.steps.busy) == 1, "nothing else is under way")
        await spine.next_decision()
        (fetch,) = (await client.get("/state")).json()["fetches"]
        assert (fetch["model"], fetch["version"], fetch["comparing"]) == (M, 1, False)
        assert (fetch["arrived_bytes"], fetch["total_bytes"]) == (2_000_000, 4_000_000)
        assert fetch["started_at"].endswith("Z")
        for subject, told in ((M, [fetch]), ("other", [])):
            explained = (await client.get("/explain", params={"model": subject})).json()
            assert explained["fetches"] == told
        assert json.loads((await command("status", "--json")).stdout)["fetches"] == [fetch]
        for words in (("status",), ("explain", M)):
            assert (
                "fetching churn/1: 2.0 MB of 4.0 MB (50%), begun" in (await command(*words)).stdout
            )
        gate.set()
        await node.settles_at(1)
        assert (await client.get("/state")).json()["fetches"] == []


async def test_a_comparison_is_told_from_a_fetch(node: NodeInMemory) -> None:
    node.registry.tells_listings = False
    node.registry.publish(M, 2, latest=False)
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        spine.fetch_step._confirmed.clear()
        gate = node.registry.hold_fetches[M] = threading.Event()
        await node.promotes(1)
        await becomes(lambda: any(one.total_bytes for one in spine.fetch_step.fetches), "it moves")
        (fetch,) = (await client.get("/state")).json()["fetches"]
        assert (fetch["version"], fetch["comparing"]) == (1, True)
        gate.set()
        await node.serves(1)


async def test_a_fetch_that_an_operator_asks_for_is_told_to_the_gateway(
    node: NodeInMemory,
) -> None:
    node.registry.publish(M, 2, latest=False)
    async with node.at_rest(1):
        gate = node.registry.hold_fetches[M] = threading.Event()
        node.operators.fetch(M, 2)
        await node.shows(2, VersionState.FETCHING)
        gate.set()
        await node.shows(2, VersionState.AVAILABLE)


async def test_a_long_fetch_is_told_to_the_log_now_and_then(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.registry.forget("other")
    async with node.control_plane(poll=False) as spine:
        now = [1000.0]
        spine.fetch_step.context = replace(spine.fetch_step.context, clock=lambda: now[0])

        def slow(_order: Any, *, on_progress: OnProgress, **_: Any) -> None:
            for number in range(1, 101 if now == [1000.0] else 1):  # a second each, once
                now[0] += 1
                on_progress(10 * number, None)
            raise IncompleteArtifactError("it moves")

        monkeypatch.setattr(spine.fetch_step.intake, "bring", slow)
        with structlog.testing.capture_logs() as told:
            await spine.poll()
            await becomes(lambda: spine.steps.backoff.get(("fetch", M, 1)), "it has ended")
        said = [one for one in told if one["event"] == "fetch.progress"]
        assert [one["elapsed_s"] for one in said] == [10.0 * n for n in range(1, 11)]
        assert said[0]["arrived_bytes"] == 100


DIGESTS = {number: f"sha256:{number:064x}" for number in (1, 2)}
LISTED = Aspired({M: AspiredModel(M, {1: AspiredVersion(M, 1, "there")})}, 0.0)


class Intake:
    """What tells the mark of a version's files at the registry, if its storage answers."""

    def __init__(self, listing: str | None = None) -> None:
        self._listing = listing

    def listing_of(self, _listed: AspiredVersion) -> str:
        if self._listing is None:
            raise SourceError("the storage does not answer")
        return self._listing


def fetch_step(view: LedgerView, intake: Intake) -> tuple[FetchStep, list[object]]:
    """Return a step of a node that lists one version, and what it writes to the ledger."""
    written: list[object] = []

    async def write(*change: object) -> bool:
        written.append(change)
        return True

    async def threaded(work: Callable[..., object], *arguments: object) -> object:
        return work(*arguments)

    context = SimpleNamespace(
        listings=SimpleNamespace(aspired=LISTED),
        journal=SimpleNamespace(view=view, view_of=lambda _: view, write=write),
        ledger=SimpleNamespace(end_quarantine="end_quarantine"),
        threads=SimpleNamespace(registry=threaded, comparing=threaded),
        clock=lambda: 10_000.0,
    )
    parts: Any = (context, intake, None)
    return FetchStep(*parts), written


async def test_an_operator_gets_no_bytes_that_were_replaced_though_the_storage_is_silent() -> None:
    accepted = AcceptedDigest(M, 1, DIGESTS[2], None, False, "files")
    step, _ = fetch_step(LedgerView(accepted={(M, 1): accepted}), Intake())
    old, new = (
        Activate(M, A, 1, DIGESTS[number], "stage", Urgency.ACTIVATE, Initiator.OPERATOR)
        for number in (1, 2)
    )
    stopped = await step.confirm(old, Stopwatch())
    assert stopped is not None
    assert "version 1 has other bytes in the registry now" in stopped.reason
    assert stopped.refused
    assert await step.confirm(new, Stopwatch()) is None


@pytest.mark.parametrize(("listing", "ends"), [("other files", True), ("files", False)])
async def test_a_quarantine_ends_when_its_files_have_changed(listing: str, ends: bool) -> None:
    wrong = Quarantine(M, 1, None, "files", DIGESTS[1], "wrong", 0.0)
    step, written = fetch_step(LedgerView(quarantines={(M, 1): wrong}), Intake(listing))
    assert await step.look_at_quarantined() == []
    assert written == [(M, "end_quarantine", M, 1, "poll")] * ends


async def test_a_fetch_that_waits_for_room_looks_now_and_then_whether_it_is_cancelled() -> None:
    looks: list[None] = []

    async def make_room(_folder: Path, _total_bytes: int) -> None:
        await asyncio.sleep(0.3)

    step: Any = SimpleNamespace(make_room=make_room)
    loop = asyncio.get_running_loop()
    look = lambda: looks.append(None)  # noqa: E731 - shorter than its name
    await asyncio.to_thread(FetchStep._wait_for_room, step, loop, look, Path(), 1)
    assert 1 <= len(looks) <= 3


async def test_a_comparison_takes_no_thread_from_fetches(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.registry.tells_listings = False
    node.registry.publish(M, 2, latest=False)
    async with node.following(1, 2) as spine:
        spine.fetch_step._confirmed.clear()
        bring, names = spine.fetch_step.intake.bring, set[str]()

        def noted(*given: Any, **more: Any) -> Any:
            names.add(threading.current_thread().name.partition("_")[0])
            return bring(*given, **more)

        monkeypatch.setattr(spine.fetch_step.intake, "bring", noted)
        await node.promotes(1)
        await node.serves(1)
    assert names == {"compare"}


@pytest.mark.parametrize(("known", "is_failure"), [(None, True), (1, False), (2, True)])
async def test_bytes_whose_digest_the_ledger_does_not_record_count_only_if_it_has_it(
    known: int | None, is_failure: bool
) -> None:
    accepted = {(M, 1): AcceptedDigest(M, 1, DIGESTS[known], None, False, "files")} if known else {}
    step, _ = fetch_step(LedgerView(accepted=accepted), Intake())
    context: Any = step.context

    async def refuse(*_: object) -> bool:
        return False

    context.journal.write, context.journal.trouble = refuse, "the disk is full"
    context.ledger.accept, context.artifacts = "accept", {}
    context.changes = SimpleNamespace(note=lambda _: None)
    artifact = SimpleNamespace(digest=DIGESTS[1], accepted=())
    found: Any = SimpleNamespace(artifact=artifact, accepted=())
    failed = await step._accept((M, 1), found, 0.0, "poll")
    assert (failed is not None and failed.reason == "the disk is full") is is_failure
