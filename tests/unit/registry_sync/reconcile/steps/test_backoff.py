"""No step is done again and again at full speed."""

import asyncio
import time
from pathlib import Path

import pytest

from registry_sync.planning.actions import Fetch
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.steps.outcome import Stopped, Stopwatch
from tests.fakes.gateway import becomes
from tests.fakes.nodes import A, M, NodeInMemory, idle


def _count(spine: Reconciler) -> int:
    """How many tries are known to have had no effect: each is, a decision after its end."""
    failure = spine.steps.backoff.get(("fetch", M, 1))
    return failure.count if failure is not None else 0


async def test_a_step_that_has_no_effect_is_tried_again_ever_later(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    async def without_effect(action: Fetch, _watch: Stopwatch) -> Stopped | None:
        done.append(action)
        return None

    async with node.control_plane(poll=False) as spine:
        monkeypatch.setattr(spine.arrival, "fetch", without_effect)
        await spine.poll()
        async with asyncio.timeout(20):
            while _count(spine) < 3:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
        failure = spine.steps.backoff.get(("fetch", M, 1))
        assert failure is not None
        assert (failure.count, failure.retry_at - failure.failed_at) == (3, 2.0)
        assert "had no effect" in failure.reason


async def test_a_time_that_comes_while_the_gateway_is_away_is_slept_for_once(
    tmp_path: Path,
) -> None:
    ahead_s = 0.0
    node = NodeInMemory.with_versions(tmp_path, 2)
    node.clock = lambda: time.time() + ahead_s
    async with node.control_plane() as spine:
        await node.serves(1)
        node.gateway.fails[M, 2] = ("unavailable", "no room")
        node.registry.point(M, A, 2)
        await spine.poll()
        await becomes(lambda: spine.steps.backoff.failures(M), "it failed")
        node.gateway.stop()
        await becomes(lambda: spine.observation.unreachable, "the gateway is away")
        ahead_s = 3600.0
        await spine.next_decision()
        next_at = spine.steps.next_try_at()
        assert next_at is None or next_at > node.clock(), "the loop sleeps for what is over"
        node.gateway.fails.clear()
        node.gateway.down = False
        await node.serves(2)
        await idle(spine)
