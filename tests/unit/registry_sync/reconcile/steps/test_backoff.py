"""No step is done again and again at full speed."""

import time
from pathlib import Path

import pytest

from registry_sync.errors import IncompleteArtifactError
from registry_sync.planning.actions import Fetch
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch
from tests.fakes.nodes import M, NodeInMemory
from tests.fakes.waiting import becomes


async def test_step_without_effect_is_not_repeated_at_full_speed(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_at = []

    async def without_effect(_action: Fetch, _watch: Stopwatch) -> StepFailure | None:
        begun_at.append(time.monotonic())
        return None

    async with node.control_plane(poll=False) as spine:
        monkeypatch.setattr(spine.fetch_step, "fetch", without_effect)
        await spine.poll()
        await becomes(lambda: len(begun_at) > 1, "it is repeated")
        await becomes(lambda: spine.steps.backoff.get(("fetch", M, 1)), "the second one failed")
        failure = spine.steps.backoff.get(("fetch", M, 1))
        assert failure is not None
        assert "had no effect" in failure.reason
    assert begun_at[1] - begun_at[0] >= 0.9


async def test_step_that_is_due_anew_begins_at_once(node: NodeInMemory) -> None:
    async with node.control_plane() as spine:
        for version in (1, 2, 1, 2):
            await node.promotes(version)
            await node.serves(version)
        assert not spine.steps.backoff.failures(M)


async def test_upload_in_progress_is_fetched_again_every_ten_seconds(tmp_path: Path) -> None:
    ahead_s = 0.0
    node = NodeInMemory.with_versions(tmp_path, 1)
    node.clock = lambda: time.time() + ahead_s
    node.registry.fetch_error = IncompleteArtifactError("it moves")

    def failures() -> int:
        failure = spine.steps.backoff.get(("fetch", M, 1))
        return failure.count if failure else 0

    async with node.control_plane() as spine:
        for count in range(1, 8):
            await becomes(lambda count=count: failures() >= count, "the next try has failed")  # type: ignore[misc]
            ahead_s += 10.0
            spine.wake()


async def test_a_time_that_comes_while_the_gateway_is_away_is_slept_for_once(
    tmp_path: Path,
) -> None:
    ahead_s = 0.0
    node = NodeInMemory.with_versions(tmp_path, 2)
    node.clock = lambda: time.time() + ahead_s
    async with node.following(1) as spine:
        node.gateway.fails[M, 2] = ("unavailable", "no room")
        await node.promotes(2)
        await becomes(lambda: spine.steps.backoff.failures(M), "it failed")
        node.gateway.stop()
        await becomes(lambda: spine.observation.unreachable, "the gateway is away")
        ahead_s = 3600.0
        await spine.next_decision()
        next_at = spine.steps.next_try_at()
        assert next_at is None or next_at > node.clock(), "the loop sleeps for what is over"
        node.gateway.fails.clear()
        node.gateway.down = False
        await node.settles_at(2)
