"""A copy that was altered on this node is dropped and fetched again; back-offs that callers end."""

from pathlib import Path

from gateway.control_contract import VersionState
from registry_sync.backoff import Backoff
from tests.fakes.gateway import becomes
from tests.unit.registry_sync.nodes import A, M, NodeInMemory, idle


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
    async with node.control_plane() as spine:
        await node.serves(1)
        await idle(spine)
        before = _fetches(node)
        node.gateway.find_damaged(M, 1)
        await becomes(lambda: _fetches(node) == before + 1, "the bytes are fetched again")
        await node.shows(1, VersionState.AVAILABLE)
        await idle(spine)
        assert _fetches(node) == before + 1, "what was told of the copy before says nothing now"
        assert node.gateway.points(M, A) == 1


async def test_what_serves_is_fetched_again_although_the_alias_is_to_move(
    node: NodeInMemory,
) -> None:
    async with node.control_plane() as spine:
        await node.serves(1)
        node.gateway.fails[M, 2] = ("warm_up_failed", "it answers NaN")
        node.registry.point(M, A, 2)
        await spine.poll()
        await becomes(lambda: spine.journal.view.rejections, "version 2 is rejected")
        before = _fetches(node)
        node.gateway.find_damaged(M, 1)
        await becomes(lambda: _fetches(node) == before + 1, "the bytes are fetched again")
        await node.shows(1, VersionState.AVAILABLE)


async def test_what_an_alias_may_go_back_to_is_fetched_again(node: NodeInMemory) -> None:
    async with node.control_plane() as spine:
        await node.serves(1)
        node.registry.point(M, A, 2)
        await spine.poll()
        await node.serves(2)
        await idle(spine)
        before = _fetches(node)
        node.gateway.find_damaged(M, 1)
        await becomes(lambda: _fetches(node) == before + 1, "the bytes are fetched again")
        await node.shows(1, VersionState.AVAILABLE)
        assert node.gateway.points(M, A) == 2


async def test_a_copy_that_is_damaged_again_and_again_is_not_fetched_at_full_speed(
    node: NodeInMemory,
) -> None:
    async with node.control_plane() as spine:
        await node.serves(1)
        await idle(spine)
        before = _fetches(node)
        for _ in range(20):
            node.gateway.find_damaged(M, 1)
            await idle(spine)
            await node.shows(1, VersionState.AVAILABLE)
        assert before < _fetches(node) <= before + 3
        failure = spine._copies._backoff.get(("copy", node.gateway.damaged[0].digest))
        assert failure is not None
        assert failure.retry_at > failure.failed_at


async def test_without_the_registry_no_copy_is_dropped(node: NodeInMemory) -> None:
    async with node.control_plane() as spine:
        await node.serves(1)
        node.registry.down = True
        await spine.poll()
        before = _fetches(node)
        node.gateway.find_damaged(M, 1)
        await idle(spine)
        assert spine.arrival.artifacts
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
