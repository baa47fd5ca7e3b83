"""Which requests say something of their version, and which do not."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import errors
from gateway.contract.references import ReplicaKey
from gateway.observability.live_tallies import LiveRecord
from gateway.routing.node import Node
from gateway.serving.dispatch import Call, Dispatcher
from gateway.serving.replica.replica import Replica, ReplicaLimits, WorkerReply
from tests.unit.gateway.serving.dispatch.test_dispatch import ACTIVE, DIGEST, a_call, node
from tests.unit.gateway.serving.replica.test_replica import ReadyLauncher, bring_up

KEY = ReplicaKey("churn", 1, DIGEST)
LIMIT_S = 0.2


class FakeReplica:
    """A worker that answers, after a while, with what it is told to."""

    def __init__(self, outcome: Exception | None, after_s: float, predict_s: float = 0.0) -> None:
        self.outcome, self.after_s, self.pid = outcome, after_s, 1
        self.predict_s = predict_s

    def submit(self, header, body, *, timeout_s, limit_s, on_done, answer_type):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        reply = WorkerReply(b"{}", "application/json", 1, 0.0, self.predict_s, 1)
        if isinstance(self.outcome, errors.ModelOverloadedError):
            raise self.outcome
        if self.outcome:
            loop.call_later(self.after_s, answer.set_exception, self.outcome)
        else:
            loop.call_later(self.after_s, answer.set_result, reply)
        return answer


class FakeResidents:
    def __init__(self, replica: FakeReplica | Replica, refusal: Exception | None = None) -> None:
        self.replica, self.refusal = replica, refusal

    def try_lease(self, key, body_bytes):
        if self.refusal:
            return None
        resident = SimpleNamespace(key=key)
        return SimpleNamespace(resident=resident, replica=self.replica, release=lambda: None)

    async def lease(self, key):
        raise self.refusal or AssertionError


def dispatcher(record: LiveRecord, residents: FakeResidents) -> Dispatcher:
    at: Node = node()
    at.replace(at.table.with_active(ACTIVE))
    fake: Any = residents
    return Dispatcher(
        at,
        fake,
        record,
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


async def asked(way: Way, replica: FakeReplica, refusal: Exception | None = None) -> LiveRecord:
    record = LiveRecord()
    with contextlib.suppress(errors.GatewayError):
        await way(dispatcher(record, FakeResidents(replica, refusal)), a_call())
    return record


@both_ways
@pytest.mark.parametrize(
    ("outcome", "after_s", "counted"),
    [
        (None, 0.0, (1, 0)),
        (errors.ModelRaisedError("it raised"), 0.0, (0, 1)),
        (errors.ModelRaisedError("no memory for the body", begun=False), 0.0, (0, 0)),
        (errors.DeadlineExceededError("no answer"), LIMIT_S, (0, 0)),
        (errors.InvalidInputError("a column is missing"), 0.0, (0, 0)),
        (errors.MediaTypeError("no such type"), 0.0, (0, 0)),
        (errors.ModelOverloadedError("too many"), 0.0, (0, 0)),
        (errors.WorkerDiedError("killed once"), 0.0, (0, 0)),
    ],
)
async def test_only_what_the_version_did_counts(way, outcome, after_s, counted):
    tally = (await asked(way, FakeReplica(outcome, after_s))).total(KEY)
    assert (tally.answered, tally.faults) == counted


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
async def test_a_version_that_does_not_load_any_more_fails_its_callers(way, refusal, faults):
    assert (await asked(way, FakeReplica(None, 0.0), refusal)).total(KEY).faults == faults


@both_ways
async def test_a_second_worker_that_dies_counts(way):
    record, replica = LiveRecord(), FakeReplica(errors.WorkerDiedError("again"), 0.0)
    asking = dispatcher(record, FakeResidents(replica))
    for replica.pid in (1, 2):
        with pytest.raises(errors.WorkerDiedError):
            await way(asking, a_call())
    assert record.total(KEY).faults == 1


async def test_a_call_that_never_reached_its_worker_is_given_to_another():
    replica = FakeReplica(errors.NotDeliveredError(), 0.0)
    record, given = LiveRecord(), []

    class Residents(FakeResidents):
        def try_lease(self, key, body_bytes):
            given.append(key)
            if len(given) == 2:
                replica.outcome = None
            return super().try_lease(key, body_bytes)

    reply = await begun(dispatcher(record, Residents(replica)), a_call())
    assert cast("WorkerReply", reply).body == b"{}"
    assert len(given) == 2
    assert record.total(KEY).answered == 1


async def test_a_call_that_nobody_waits_for_any_more_says_nothing_of_its_version():
    told: list[asyncio.Future[WorkerReply]] = []
    record = LiveRecord()
    call = a_call()
    dispatcher(record, FakeResidents(FakeReplica(None, 10.0))).begin(call, told.append)
    call.leave()
    async with asyncio.timeout(10):
        while not told:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
    assert told[0].cancelled()
    assert record.total(KEY).requests == 0


@both_ways
async def test_the_time_that_counts_is_the_models_own(way):
    """A request that waits behind what others sent is no slower for the version's doing."""
    tally = (await asked(way, FakeReplica(None, 0.1, predict_s=0.001))).total(KEY)
    assert tally.answered_within(1.0)[1] < 0.1 / 2


async def test_an_answer_counts_though_its_caller_leaves_in_that_moment():
    record, answers = LiveRecord(), []

    class Asked(FakeReplica):
        def submit(self, header, body, *, timeout_s, limit_s, on_done, answer_type):
            answers.append(asyncio.get_running_loop().create_future())
            return answers[0]

    asking = dispatcher(record, FakeResidents(Asked(None, 0.0)))
    asked = asyncio.ensure_future(asking.predict(a_call()))
    while not answers:  # noqa: ASYNC110  # one turn of the loop
        await asyncio.sleep(0)
    answers[0].set_exception(errors.ModelRaisedError("it raised"))
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert record.total(KEY).faults == 1


@both_ways
@pytest.mark.parametrize("share", [0.3, 0.85, 0.92, 0.97, 1.0, 5.0, None])
async def test_a_worker_that_hangs_counts_once_for_each_request(way, share):
    """Whatever share of the model's limit its caller gives it: by its end, or by the worker's."""
    record, launcher = LiveRecord(), ReadyLauncher()
    limits = ReplicaLimits(9, 9999, load_timeout_s=5, warm_up_timeout_s=5, stuck_grace_s=0.2)
    replica = Replica("m/1", launcher, limits, lambda _: None, partial(record.late, KEY))
    await bring_up(replica, launcher)
    call = a_call(seconds=None if share is None else share * LIMIT_S)
    with pytest.raises(errors.DeadlineExceededError):
        await way(dispatcher(record, FakeResidents(replica)), call)
    await replica.wait_stopped()
    assert "stuck" in replica.end_reason
    assert (record.total(KEY).answered, record.total(KEY).faults) == (0, 1)
