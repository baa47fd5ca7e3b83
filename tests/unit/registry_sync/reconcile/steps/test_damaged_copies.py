"""A copy that was altered on this node is dropped and fetched again; back-offs that callers end."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.contract.catalogue import VersionState
from gateway.contract.node_state import NodeState
from registry_sync.artifacts.manifest import FetchedArtifact
from registry_sync.domain import LedgerView
from registry_sync.domain.aspired import Aspired
from registry_sync.errors import StoreError
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.steps import damaged_copies as copies_module
from registry_sync.reconcile.steps.backoff import Backoff
from registry_sync.reconcile.steps.damaged_copies import Copies, _Drop
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.waiting import becomes


async def test_an_altered_copy_is_fetched_again_and_its_version_is_not_quarantined(
    tmp_path: Path,
) -> None:
    node = NodeInMemory(tmp_path)
    node.registry.publish(M, 1)
    node.registry.point(M, A, 1)
    node.gateway.fails[M, 1] = ("integrity", "the file model.skops was changed")
    async with node.control_plane() as spine:
        await becomes(
            lambda: node.registry.fetched.count(f"fake:/{M}/1") > 1, "the bytes are fetched again"
        )
        assert spine.journal.view.quarantines == {}
        node.gateway.fails.clear()
        await node.serves(1)


def _fetches(node: NodeInMemory) -> int:
    return node.registry.fetched.count(f"fake:/{M}/1")


async def test_a_copy_that_a_load_found_altered_is_fetched_again(node: NodeInMemory) -> None:
    async with node.at_rest(1) as spine:
        before = _fetches(node)
        node.gateway.find_damaged(M, 1)
        await becomes(lambda: _fetches(node) == before + 1, "the bytes are fetched again")
        await node.shows(1, VersionState.AVAILABLE)
        await idle(spine)
        assert _fetches(node) == before + 1, "what was told of the copy before says nothing now"
        assert node.gateway.points(M, A) == 1


@pytest.mark.parametrize("fetch_s", [0, 130, 10_000])
async def test_a_copy_that_is_damaged_again_and_again_is_fetched_less_and_less_often(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch, fetch_s: float
) -> None:
    later = [0.0]
    node.clock = lambda: time.time() + later[0]
    fetch, began_at = node.registry.fetch, list[float]()

    def slowly(uri: str, into: Path, **how: Any) -> FetchedArtifact:
        began_at.append(node.clock())
        later[0] += fetch_s
        return fetch(uri, into, **how)

    monkeypatch.setattr(node.registry, "fetch", slowly)
    async with node.at_rest(1) as spine:
        pauses = []
        for _ in range(6):
            stored = spine.artifacts[node.registry.digest(M, 1)]
            before = _fetches(node)
            while _fetches(node) == before:
                later[0] += 0.25
                node.gateway.find_damaged(M, 1, node.clock())
                await _is_told(node, spine)
            pauses.append(began_at[-1] - stored.stored_at)
            node.gateway.find_whole()
            await _is_told(node, spine)
        assert all(pause >= 0.5 * 2**n for n, pause in enumerate(pauses[1:])), pauses
        assert pauses[0] < 60, "the first time it is fetched at once"


async def _is_told(node: NodeInMemory, spine: Reconciler) -> None:
    """Wait until what the gateway says of copies was decided upon, and done."""
    told = node.gateway.seq
    await becomes(
        lambda: spine.observation.node and spine.observation.node.seq >= told, "it observes"
    )
    await idle(spine)


async def test_a_stage_has_no_copy_fetched_at_full_speed_either(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.gateway.fails[M, 2] = ("integrity", "the file model.skops was changed")
        digest = node.registry.digest(M, 2)
        spine._copies._drops[digest] = _Drop(20, time.time(), pause_s=3600.0)
        await node.promotes(2)
        subject = ("stage", M, 2, digest)
        await becomes(lambda: spine.steps.backoff.get(subject), "the stage has failed")
        failure = spine.steps.backoff.get(subject)
        assert failure is not None
        assert "it is fetched again later" in failure.reason
        assert digest in spine.artifacts


async def test_a_copy_that_the_disk_keeps_is_not_dropped_at_full_speed(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(digest: str) -> None:
        tries.append(digest)
        raise StoreError("a read-only disk")

    now = [2e9]  # it stands still, so that no pause ends
    node.clock = lambda: now[0]
    async with node.at_rest(1) as spine:
        monkeypatch.setattr(spine.store, "drop", refuse)
        now[0] += 1000
        node.gateway.find_damaged(M, 1, now[0])
        for _ in range(5):
            await _is_told(node, spine)
        assert tries == [node.registry.digest(M, 1)]
        assert tries[0] in spine.artifacts


async def test_without_the_registry_no_copy_is_dropped(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.registry.down = True
        await spine.poll()
        before = _fetches(node)
        node.gateway.find_damaged(M, 1)
        await idle(spine)
        assert spine.artifacts
        node.registry.down = False
        await spine.poll()
        await becomes(lambda: _fetches(node) == before + 1, "the bytes are fetched again")


def test_what_failed_for_one_goal_holds_up_no_other() -> None:
    backoff = Backoff(clock=lambda: 0.0, jitter=lambda: 1.0)
    for _ in range(7):
        backoff.failed(("activate", M, "a"), "no connection", goal=(1, "x"))
    assert backoff.waits(("activate", M, "a"), goal=(1, "x"))
    assert not backoff.waits(("activate", M, "a"), goal=(2, "y"))
    assert backoff.failed(("activate", M, "a"), "no connection", goal=(2, "y")).count == 1


def test_a_clock_that_is_set_back_makes_nobody_wait() -> None:
    now = [1e9]
    backoff = Backoff(clock=lambda: now[0], jitter=lambda: 1.0)
    backoff.failed(("fetch", M, 1), "no connection")
    assert backoff.waits(("fetch", M, 1))
    now[0] -= 3600
    assert not backoff.waits(("fetch", M, 1))
    again = backoff.failed(("fetch", M, 1), "no connection")
    assert backoff.waits(("fetch", M, 1))
    assert again.retry_at < now[0] + 10


def test_a_caller_who_waits_shortens_a_long_wait() -> None:
    now = [0.0]
    backoff = Backoff(clock=lambda: now[0], jitter=lambda: 1.0)
    for _ in range(7):
        backoff.failed(("fetch", M, 1), "no connection")
    now[0] = 6.0
    assert backoff.waits(("fetch", M, 1))
    assert not backoff.waits(("fetch", M, 1), longest_s=5.0)
    assert not backoff.waits(("fetch", M, 2))


def copies_of(
    artifacts: dict[str, Any], clock: Callable[[], float], damaged: dict[str, Any] | None = None
) -> Copies:
    """Return what drops copies of a store that takes every drop.

    ``damaged`` is what the store has found damaged, each with what is there when it is to go.
    """
    found = damaged or {}

    async def threaded(work: Callable[[str], object], digest: str) -> object:
        return work(digest)

    context = SimpleNamespace(
        artifacts=artifacts,
        store=SimpleNamespace(
            drop=lambda _digest: None,
            damaged=lambda: dict.fromkeys(found, "its record is gone"),
            drop_damaged=found.get,
        ),
        threads=SimpleNamespace(ledger=threaded),
        changes=SimpleNamespace(wake=lambda: None),
        clock=clock,
        jitter=lambda: 1.0,
    )
    return Copies(cast("Any", context))


async def test_of_more_copies_than_are_remembered_the_drop_of_longest_ago_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies_module, "_MOST_REMEMBERED", 3)
    now = [0.0]
    artifacts: dict[str, Any] = {}
    copies = copies_of(artifacts, lambda: now[0])

    async def drop(digest: str) -> bool:
        artifacts[digest] = SimpleNamespace(stored_at=0.0)
        return await copies.drop(digest)

    for digest in ("a", "b", "c"):
        assert await drop(digest)
    assert not await drop("a"), "it has a pause"
    now[0] = 10.0
    assert await drop("a"), "its pause is over, and a longer one begins"
    assert await drop("d")
    assert set(copies._drops) == {"a", "c", "d"}
    assert [await drop(digest) for digest in ("a", "d")] == [False, False]


async def test_a_copy_that_is_found_whole_when_it_is_to_be_dropped_is_offered_again() -> None:
    """It could not be read for a moment, or has come again meanwhile."""
    artifacts: dict[str, Any] = {"whole": "as it was", "lost": "as it was"}
    copies = copies_of(artifacts, lambda: 0.0, {"whole": "as it is", "lost": None})
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1)
    await copies.heal_store(node, Aspired({}, 0.0), LedgerView())
    assert artifacts == {"whole": "as it is"}
