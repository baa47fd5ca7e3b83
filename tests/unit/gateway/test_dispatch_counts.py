"""Which requests say something of their version, and which do not."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import errors
from gateway.dispatch import Dispatcher
from gateway.live_record import LiveRecord
from gateway.node import Node
from gateway.replica import WorkerReply
from gateway.room import ReplicaKey
from tests.unit.gateway.test_dispatch import ACTIVE, DIGEST, a_call, node

KEY = ReplicaKey("churn", 1, DIGEST)
LIMIT_S = 0.2


class FakeReplica:
    """A worker that answers, after a while, with what it is told to."""

    def __init__(self, outcome: Exception | None, after_s: float) -> None:
        self.outcome, self.after_s, self.pid = outcome, after_s, 1

    def submit(self, header, body, *, timeout_s, limit_s, on_done):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        reply = WorkerReply(b"{}", "application/json", 1, 0.0, 0.0, 1)
        if isinstance(self.outcome, errors.ModelOverloadedError):
            raise self.outcome
        if self.outcome:
            loop.call_later(self.after_s, answer.set_exception, self.outcome)
        else:
            loop.call_later(self.after_s, answer.set_result, reply)
        return answer


class FakeResidents:
    def __init__(self, replica: FakeReplica, refusal: Exception | None = None) -> None:
        self.replica, self.refusal = replica, refusal

    def try_lease(self, key):
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


async def asked(replica: FakeReplica, refusal: Exception | None = None) -> LiveRecord:
    record = LiveRecord()
    with contextlib.suppress(errors.GatewayError):
        await dispatcher(record, FakeResidents(replica, refusal)).predict(a_call())
    return record


@pytest.mark.parametrize(
    ("outcome", "after_s", "counted"),
    [
        (None, 0.0, (1, 0)),
        (errors.ModelRaisedError("it raised"), 0.0, (0, 1)),
        (errors.DeadlineExceededError("no answer"), LIMIT_S, (0, 1)),
        (errors.DeadlineExceededError("the caller's own"), 0.0, (0, 0)),
        (errors.InvalidInputError("a column is missing"), 0.0, (0, 0)),
        (errors.MediaTypeError("no such type"), 0.0, (0, 0)),
        (errors.ModelOverloadedError("too many"), 0.0, (0, 0)),
        (errors.WorkerDiedError("killed once"), 0.0, (0, 0)),
    ],
)
async def test_only_what_the_version_did_counts(outcome, after_s, counted):
    tally = (await asked(FakeReplica(outcome, after_s))).total(KEY)
    assert (tally.answered, tally.faults) == counted


@pytest.mark.parametrize(
    ("refusal", "faults"),
    [
        (errors.ModelLoadFailedError("its worker died 3 times in a minute"), 1),
        (errors.ModelLoadingError("no room"), 0),
        (errors.InsufficientMemoryError("too big"), 0),
        (errors.DrainingError("shutting down"), 0),
    ],
)
async def test_a_version_that_does_not_load_any_more_fails_its_callers(refusal, faults):
    assert (await asked(FakeReplica(None, 0.0), refusal)).total(KEY).faults == faults


async def test_a_second_worker_that_dies_counts():
    record, replica = LiveRecord(), FakeReplica(errors.WorkerDiedError("again"), 0.0)
    asking = dispatcher(record, FakeResidents(replica))
    for replica.pid in (1, 2):
        with pytest.raises(errors.WorkerDiedError):
            await asking.predict(a_call())
    assert record.total(KEY).faults == 1
