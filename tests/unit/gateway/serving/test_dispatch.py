"""How calls reach workers, who holds leases and slots, and which calls are counted."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import errors
from gateway.contract.catalogue import VersionState
from gateway.contract.references import ArtifactRef
from gateway.observability.live_tallies import LiveTallies
from gateway.serving.admission import Admission
from gateway.serving.call import Call
from gateway.serving.dispatch import Dispatcher
from gateway.serving.replica.replica import Replica, ReplicaLimits
from gateway.serving.replica.requests import WorkerReply
from tests.fakes.calls import ACTIVE, DIGEST, OTHER, call_of, node_of, version_of
from tests.fakes.waiting import becomes
from tests.unit.gateway.serving.replica.test_replica import ReadyLauncher, ready_replica

KEY = ArtifactRef("churn", 1, DIGEST)
LIMIT_S = 0.2


class FakeReplica:
    """A replica that replies, after a while, with its outcome; None: never."""

    def __init__(self, outcome: Exception | None = None, after_s: float | None = None) -> None:
        self.outcome, self.after_s = outcome, after_s
        self.submitted: list[tuple[float, float, Callable[[], None]]] = []

    def submit(self, header, body, *, timeout_s, limit_s, on_done, answer_type):
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        self.submitted.append((timeout_s, limit_s, on_done))
        if self.after_s is not None and self.outcome:
            loop.call_later(self.after_s, reply.set_exception, self.outcome)
        elif self.after_s is not None:
            result = WorkerReply(b"{}", "application/json", 1, 0.0, 0.0, 1)
            loop.call_later(self.after_s, reply.set_result, result)
        return reply


class FakeResidents:
    """A resident set with one replica, or none that could be loaded."""

    def __init__(
        self, replica: FakeReplica | Replica | None, refusal: Exception | None = None
    ) -> None:
        self.replica, self.refusal = replica, refusal
        self.released, self.body_bytes = 0, list[int]()

    def try_lease(self, key, body_bytes):
        self.body_bytes.append(body_bytes)
        if self.refusal:
            return None
        return SimpleNamespace(
            resident=SimpleNamespace(key=key), replica=self.replica, release=self._release
        )

    def _release(self):
        self.released += 1

    async def lease(self, key):
        raise self.refusal or AssertionError


def dispatcher(residents: Any, tallies=None, node=None, limit_s=1.0) -> Dispatcher:
    return Dispatcher(
        node or node_of(active=True),
        residents,
        tallies or LiveTallies(),
        request_timeout_s=limit_s,
        load_budget_s=1.0,
        max_waiting=9,
    )


async def by_predict(dispatching: Dispatcher, call: Call) -> object:
    return await dispatching.predict(call)


async def by_begin(dispatching: Dispatcher, call: Call) -> object:
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    dispatching.begin(call, done.set_result)
    async with asyncio.timeout(10):
        assert await done is call.pending
    return cast("asyncio.Future[object]", await done).result()


Way = Callable[[Dispatcher, Call], Awaitable[object]]
both_ways = pytest.mark.parametrize("way", [by_predict, by_begin])


class TestDeadline:
    async def test_deadline_covers_the_wait_for_a_version(self):
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError):
            await dispatcher(FakeResidents(None), node=node_of()).predict(call_of(seconds=0.1))
        assert time.monotonic() - began < 10

    async def test_call_past_its_deadline_is_not_begun(self):
        residents = FakeResidents(FakeReplica())
        with pytest.raises(errors.DeadlineExceededError):
            await dispatcher(residents).predict(call_of(seconds=0))
        assert residents.body_bytes == []

    @pytest.mark.parametrize(("given", "expected"), [(None, 1.0), (0.5, 0.5), (500, 1.0)])
    async def test_callers_time_is_cut_to_the_models(self, given, expected):
        replica = FakeReplica()
        prediction = asyncio.ensure_future(
            dispatcher(FakeResidents(replica)).predict(call_of(seconds=given))
        )
        await asyncio.sleep(0)
        [(timeout_s, limit_s, _)] = replica.submitted
        assert timeout_s == pytest.approx(expected, abs=0.2)
        assert limit_s == 1.0
        prediction.cancel()
        await asyncio.gather(prediction, return_exceptions=True)


async def test_draining_dispatcher_refuses_new_calls():
    draining = dispatcher(FakeResidents(None))
    draining.refuse_when_draining()
    draining.drain()
    with pytest.raises(errors.DrainingError):
        draining.refuse_when_draining()


class TestLeases:
    async def test_call_names_the_version_that_it_was_sent_to(self):
        call = call_of()
        await dispatcher(FakeResidents(FakeReplica(None, 0.0))).predict(call)
        assert call.route is not None
        assert (call.route.version, call.route.digest) == (1, DIGEST)

    async def test_worker_holds_lease_and_slot_until_it_is_done(self):
        replica = FakeReplica()
        residents = FakeResidents(replica)
        admission = Admission(max_in_flight=9, max_in_flight_bytes=999)
        call = call_of(seconds=0.05)
        call.slot = admission.enter(2)
        with pytest.raises(errors.DeadlineExceededError):
            await dispatcher(residents).predict(call)
        call.slot.release()  # the caller has been answered
        assert (admission.in_flight, residents.released) == (1, 0)
        [(_, _, on_done)] = replica.submitted
        on_done()
        assert (admission.in_flight, residents.released) == (0, 1)

    @pytest.mark.parametrize("seconds", [None, 0.05])
    async def test_lease_is_taken_for_the_size_of_the_body(self, seconds):
        residents = FakeResidents(FakeReplica())
        call = call_of(body=b"x" * 700, seconds=seconds)
        done: list[Any] = []
        dispatcher(residents).begin(call, done.append)
        await becomes(lambda: residents.body_bytes, "its body counts")
        assert residents.body_bytes == [700]
        call.leave()

    async def test_worker_that_refuses_a_call_holds_nothing(self):
        def refuse(*_, **__):
            raise errors.NotDeliveredError

        replica = FakeReplica()
        replica.submit = refuse  # type: ignore[method-assign]
        residents = FakeResidents(replica)
        admission = Admission(max_in_flight=9, max_in_flight_bytes=999)
        call = call_of()
        call.slot = admission.enter(2)
        with pytest.raises(errors.WorkerDiedError):
            await dispatcher(residents).predict(call)
        call.slot.release()
        assert (admission.in_flight, residents.released) == (0, 3)

    async def test_call_that_its_worker_does_not_take_goes_to_another(self):
        replica = FakeReplica(after_s=0.0)
        taken = replica.submit

        def refuse(*_, **__):
            replica.submit = taken  # type: ignore[method-assign]
            raise errors.NotDeliveredError

        replica.submit = refuse  # type: ignore[method-assign]
        reply = await by_begin(dispatcher(FakeResidents(replica)), call_of())
        assert cast("WorkerReply", reply).body == b"{}"

    async def test_call_that_its_worker_did_not_begin_goes_to_another(self):
        replica = FakeReplica(errors.NotDeliveredError(), 0.0)

        class Residents(FakeResidents):
            def try_lease(self, key, body_bytes):
                if self.body_bytes:
                    replica.outcome = None
                return super().try_lease(key, body_bytes)

        residents = Residents(replica)
        reply = await by_begin(dispatcher(residents), call_of())
        assert cast("WorkerReply", reply).body == b"{}"
        assert len(residents.body_bytes) == 2


@pytest.mark.parametrize(
    ("state", "expected", "remedy"),
    [
        (VersionState.AVAILABLE, DIGEST, "the control plane fetches it again"),
        (VersionState.DELETED, DIGEST, "the registry no longer has version 1"),
        (VersionState.QUARANTINED, DIGEST, "version 1 may not serve: wrong bytes"),
        (VersionState.AVAILABLE, OTHER, "version 1 has other bytes in the registry now"),
    ],
)
async def test_refusal_for_a_damaged_copy_says_what_becomes_of_it(state, expected, remedy):
    known = {"expected_digest": expected, "accepted_digest": DIGEST, "reason": "wrong bytes"}
    node = node_of(version_of(1, state, **known))
    node.replace(node.table.with_active(ACTIVE))
    node.copy_damaged(KEY, "altered")
    residents = FakeResidents(None, errors.ModelLoadFailedError("version 1 failed to load"))
    with pytest.raises(errors.ModelLoadFailedError, match=remedy) as refused:
        await dispatcher(residents, node=node).predict(call_of("1"))
    promised = "the control plane fetches it again" in refused.value.message
    assert promised is (remedy == "the control plane fetches it again")


class TestCounts:
    """Which calls count as failed by their version."""

    @both_ways
    @pytest.mark.parametrize(
        ("refusal", "faults"),
        [
            (errors.ModelLoadFailedError("it raised"), 1),
            (errors.ModelLoadFailedError("it died 3 times in 60 s", failure="worker_died"), 1),
            (errors.ModelLoadFailedError("no descriptors", failure="worker_not_started"), 0),
            (errors.ModelLoadFailedError("not built", failure="environment_missing"), 0),
            (errors.ModelLoadingError("no room"), 0),
            (errors.InsufficientMemoryError("too big"), 0),
            (errors.DrainingError("shutting down"), 0),
        ],
    )
    async def test_failed_load_counts_as_a_fault(self, way, refusal, faults):
        tallies = LiveTallies()
        with pytest.raises(type(refusal)):
            await way(dispatcher(FakeResidents(None, refusal), tallies), call_of())
        assert tallies.requests(KEY) == tallies.total(KEY).faults == faults

    @both_ways
    @pytest.mark.parametrize("share", [0.5, 0.97, 1.0, 5.0, None])
    async def test_hanging_worker_counts_once_per_request(self, way, share):
        """Whatever share of the model's time-out the caller's own time is."""
        limit_s = 1.0  # longer than a busy machine holds up a test: the worker gets its request
        tallies, launcher = LiveTallies(), ReadyLauncher()
        limits = ReplicaLimits(9, 9999, load_timeout_s=5, warm_up_timeout_s=5, stuck_grace_s=0.2)
        replica = Replica("m/1", launcher, limits, lambda _: None, partial(tallies.count, KEY))
        await ready_replica(replica, launcher)
        call = call_of(seconds=None if share is None else share * limit_s)
        with pytest.raises(errors.DeadlineExceededError):
            await way(dispatcher(FakeResidents(replica), tallies, limit_s=limit_s), call)
        await replica.wait_stopped()
        assert "stuck" in replica.end_reason
        assert (tallies.total(KEY).answered, tallies.total(KEY).faults) == (0, 1)
