"""A copy that was altered on this node is dropped and fetched again; back-offs that callers end."""

from pathlib import Path

from registry_sync.backoff import Backoff
from tests.fakes.gateway import becomes
from tests.unit.registry_sync.nodes import A, M, NodeInMemory


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
