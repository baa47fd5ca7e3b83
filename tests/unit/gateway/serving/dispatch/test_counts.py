"""The requests that count as failed by their version, from the call to the tally."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import errors
from gateway.contract.references import ReplicaKey
from gateway.observability.live_tallies import LiveTallies
from gateway.routing.node import Node
from gateway.serving.dispatch import Call, Dispatcher
from gateway.serving.replica.replica import Replica, ReplicaLimits
from tests.unit.gateway.serving.dispatch.test_dispatch import ACTIVE, DIGEST, a_call, node
from tests.unit.gateway.serving.replica.test_replica import ReadyLauncher, bring_up

KEY = ReplicaKey("churn", 1, DIGEST)
LIMIT_S = 0.2


class FakeResidents:
    """Hands out one worker, or refuses."""

    def __init__(self, replica: Replica | None, refusal: Exception | None = None) -> None:
        self.replica, self.refusal = replica, refusal

    def try_lease(self, key, body_bytes):
        if self.refusal:
            return None
        resident = SimpleNamespace(key=key)
        return SimpleNamespace(resident=resident, replica=self.replica, release=lambda: None)

    async def lease(self, key):
        raise self.refusal or AssertionError


def dispatcher(tallies: LiveTallies, residents: FakeResidents) -> Dispatcher:
    at: Node = node()
    at.replace(at.table.with_active(ACTIVE))
    fake: Any = residents
    return Dispatcher(
        at,
        fake,
        tallies,
        request_timeout_s=LIMIT_S,
        load_budget_s=1,
        max_waiting=9,
    )


async def predicted(asking: Dispatcher, call: Call) -> object:
    return await asking.predict(call)


async def begun(asking: Dispatcher, call: Call) -> object:
    """Ask as for a request that came whole; return what its caller is told."""
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    asking.begin(call, told.set_result)
    async with asyncio.timeout(10):
        assert await told is call.pending
    return cast("asyncio.Future[object]", await told).result()


Way = Callable[[Dispatcher, Call], Awaitable[object]]
both_ways = pytest.mark.parametrize("way", [predicted, begun])


@both_ways
@pytest.mark.parametrize(
    ("refusal", "faults"),
    [
        (errors.ModelLoadFailedError("its worker died 3 times in 60 s"), 1),
        (errors.ModelLoadingError("no room"), 0),
        (errors.InsufficientMemoryError("too big"), 0),
        (errors.DrainingError("shutting down"), 0),
    ],
)
async def test_a_version_that_does_not_load_fails_its_callers(way, refusal, faults):
    tallies = LiveTallies()
    with pytest.raises(type(refusal)):
        await way(dispatcher(tallies, FakeResidents(None, refusal)), a_call())
    assert tallies.requests(KEY) == tallies.total(KEY).faults == faults


@both_ways
@pytest.mark.parametrize("share", [0.3, 0.85, 0.92, 0.97, 1.0, 5.0, None])
async def test_a_worker_that_hangs_counts_once_for_each_request(way, share):
    """Whatever share of the model's limit its caller gives it: by its end, or by the worker's."""
    tallies, launcher = LiveTallies(), ReadyLauncher()
    limits = ReplicaLimits(9, 9999, load_timeout_s=5, warm_up_timeout_s=5, stuck_grace_s=0.2)
    replica = Replica("m/1", launcher, limits, lambda _: None, partial(tallies.count, KEY))
    await bring_up(replica, launcher)
    call = a_call(seconds=None if share is None else share * LIMIT_S)
    with pytest.raises(errors.DeadlineExceededError):
        await way(dispatcher(tallies, FakeResidents(replica)), call)
    await replica.wait_stopped()
    assert "stuck" in replica.end_reason
    assert (tallies.total(KEY).answered, tallies.total(KEY).faults) == (0, 1)
