"""Invalid messages of workers: each costs the worker's own callers only."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings, strategies as st
from structlog.testing import capture_logs

from gateway.contract.references import ArtifactRef
from gateway.errors import (
    GatewayError,
    InvalidInputError,
    LoadError,
    NotDeliveredError,
    WorkerDiedError,
)
from gateway.http.problems import problem
from gateway.serving.replica import worker_messages
from gateway.serving.replica.replica import Replica, ReplicaLimits, ReplicaState
from gateway.serving.replica.requests import WorkerReply
from gateway.serving.residency.decision import ResidentLimits
from gateway.serving.residency.replica_pool import ReplicaPool
from gateway.serving.residency.resident_set import ResidentSet
from gateway.worker.errors import Detail, RequestRefusedError
from gateway.worker.loading.load import LoadFailedError
from gateway.worker.loading.proofs.proof import Proof, parse
from gateway.worker.protocol.frames import PREFIX, Frame, pack
from gateway.worker.protocol.messages import (
    KIND_OF,
    Alive,
    Failed,
    Hello,
    Kind,
    Load,
    Loaded,
    LoadFailed,
    Proved,
    Proving,
    Reply,
    Warming,
    bounded,
    encode_header,
)
from tests.acceptance.scale import LIES
from tests.acceptance.waiting import eventually_true
from tests.fakes.lies import (
    FLOOD_FRAMES,
    HONEST,
    MOMENTS,
    ODD,
    START,
    Lie,
    header_of,
    spelled_as,
)
from tests.fakes.resident_set import MIB, World
from tests.fakes.worker import FakeLauncher, FakeWorker
from tests.unit.gateway.serving.replica.test_replica import (
    LIMITS,
    LOAD,
    ReadyLauncher,
    ready_replica,
)


def test_every_field_of_every_message_has_a_rule():
    ruled = {kind: rules.keys() for kind, rules in worker_messages._RULES.items()}
    assert ruled == {kind: {one.name for one in fields(kind)} for kind in ruled}
    by_hand = {Reply, Warming, Proving, Proved}
    assert ruled.keys() | by_hand == {kind for kind in KIND_OF if KIND_OF[kind] >= Kind.HELLO}


LONGEST = "\U0001f600" * 5000
"""JSON spells each of these characters with twelve bytes."""
LARGEST_PROOF = Proof(
    made_with="\U0001f600" * 300,
    batching_reason="\U0001f600" * 300,
    call_path_reason="\U0001f600" * 300,
).as_header()


def largest(kind: int) -> Any:
    """Return the message of a kind whose header is the largest that an honest worker sends."""
    match kind:
        case Kind.FAILED:
            details: list[Detail] = [(2**40, LONGEST, LONGEST)] * 100
            refusal = RequestRefusedError("invalid_input", LONGEST, details)
            return Failed(refusal.code, refusal.message, refusal.as_lists())
        case Kind.LOADED:
            return replace(
                HONEST[kind],
                batching_reason="\U0001f600" * 300,
                call_path_reason="\U0001f600" * 300,
                frameworks={f"{number:0100}": "1" * 100 for number in range(64)},
                proof=LARGEST_PROOF,
            )
        case Kind.LOAD_FAILED:
            return LoadFailedError("load_failed", LONGEST).report
        case Kind.PROVING | Kind.PROVED:
            return replace(HONEST[kind], proof=LARGEST_PROOF)
        case Kind.ALIVE:
            return replace(HONEST[kind], message=bounded(LONGEST))
        case _:
            return HONEST[kind]


@pytest.mark.parametrize("kind", sorted(HONEST))
def test_largest_header_of_an_honest_worker_is_valid(kind):
    assert parse(LARGEST_PROOF) is not None
    header = encode_header(largest(kind))
    assert len(header) < worker_messages.MAX_HEADER_BYTES
    if kind in READERS:
        assert_sound(READERS[kind](header))


# --- one invalid message each -------------------------------------------------------------------


@pytest.fixture
async def serving():
    """A ready replica with three requests inside, their answers, and its worker."""
    launcher = ReadyLauncher()
    released: list[int] = []
    limits = replace(LIMITS, max_in_flight=8, stuck_grace_s=0.4)
    replica = Replica("m/1", launcher, limits, lambda _: None)
    await ready_replica(replica, launcher)
    answers = [
        replica.submit(
            b"{}", b"{}", timeout_s=30, limit_s=30, on_done=partial(released.append, number)
        )
        for number in (1, 2, 3)
    ]
    yield replica, launcher.worker.peer, answers, released
    replica.kill("the test is over")
    await replica.wait_stopped()


def said(peer, kind, header=b"{}", id_=0, body=b""):
    peer.sendall(b"".join(pack(kind, id_, header, body)))


DEEP = b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
REPLY = encode_header(HONEST[Kind.REPLY])
FAILED = encode_header(HONEST[Kind.FAILED])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([(Kind.FAILED, b'{"code":"invalid_input","message":"no","details":[[1]]}', 1)], "details"),
        ([(Kind.FAILED, b'{"code":"odd","message":"no"}', 1)], "code"),
        ([(Kind.REPLY, b'{"rows":1,"queued_s":"0","predict_s":0,"batch_rows":1}', 1)], "answer"),
        ([(Kind.REPLY, b'{"rows":1,"queued_s":1e400,"predict_s":0,"batch_rows":1}', 1)], "JSON"),
        ([(Kind.REPLY, b'{"rows":1,"queued_s":-1,"predict_s":0,"batch_rows":1}', 1)], "answer"),
        ([(Kind.REPLY, b'{"rows":1}', 1)], "lacks"),
        ([(Kind.REPLY, b"[]", 1)], "lacks"),
        ([(Kind.REPLY, REPLY, 99)], "not inside the worker"),
        ([(Kind.FAILED, FAILED, 1), (Kind.FAILED, FAILED, 1)], "not inside the worker"),
        ([(Kind.ALIVE, encode_header(HONEST[Kind.ALIVE]), 0)], "a reply to no probe"),
        ([(Kind.HELLO, encode_header(HONEST[Kind.HELLO]), 0)], "HELLO is out of its order"),
        ([(Kind.LOADED, encode_header(HONEST[Kind.LOADED]), 0)], "LOADED is out of its order"),
        ([(Kind.LOAD_FAILED, b"{}", 0)], "LOAD_FAILED is out of its order"),
        ([(Kind.WARMING, b"{}", 0)], "out of its order"),
        ([(Kind.PROVED, b'{"proof":1}', 0)], "proof"),
        ([(Kind.PROVING, b'{"proof":%b}' % DEEP, 0)], "JSON"),
        ([(Kind.PREDICT, b"{}", 1)], "no worker sends"),
        ([(200, b"{}", 1)], "no worker sends"),
        ([(Kind.PROVING, encode_header(HONEST[Kind.PROVING]), 0)] * 1000, "flood"),
        ([(Kind.PROVED, b"", 0)] * 10_000, "frames in one read"),
    ],
)
async def test_invalid_message_ends_its_worker_and_fails_its_callers(serving, frames, reason):
    replica, peer, answers, released = serving
    data = b"".join(b"".join(pack(kind, id_, header)) for kind, header, id_ in frames)
    with contextlib.suppress(OSError):  # it is ended in the midst of it
        await asyncio.get_running_loop().run_in_executor(None, peer.sendall, data)
    async with asyncio.timeout(10):
        told = await asyncio.gather(*answers, return_exceptions=True)
        await replica.wait_stopped()
    assert reason in replica.end_reason
    assert sorted(released) == [1, 2, 3]
    assert (replica.in_flight, replica._in_flight_bytes) == (0, 0)
    assert all(isinstance(one, GatewayError) for one in told), told
    assert any(isinstance(one, WorkerDiedError) for one in told)


HELLO = encode_header(HONEST[Kind.HELLO])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "had not started after"),
        ([(Kind.HELLO, b'{"pid":"x","python":"3.11","protocol_version":4}')], "pid of a Hello"),
        ([(Kind.HELLO, b'{"pid":1,"python":[],"protocol_version":4}')], "python of a Hello"),
        ([(Kind.HELLO, b'{"pid":1,"python":"3.11","protocol_version":3}')], "speaks protocol 3"),
        ([(Kind.HELLO, b'{"pid":1}')], "lacks a field"),
        ([(Kind.HELLO, b"")], "not JSON"),
        ([(Kind.HELLO, HELLO), (Kind.LOADED, b'{"private_bytes":-1}')], "private_bytes of a Loa"),
        ([(Kind.HELLO, HELLO)] * 2, "HELLO is out of its order"),
        ([(Kind.HELLO, HELLO), *([(Kind.WARMING, b"{}")] * 2)], "WARMING is out of its order"),
        ([(Kind.WARMING, b"{}"), (Kind.HELLO, HELLO)], "out of its order"),
        ([(Kind.LOADED, encode_header(HONEST[Kind.LOADED]))], "LOADED is out of its order"),
        (
            [(Kind.LOAD_FAILED, encode_header(HONEST[Kind.LOAD_FAILED]))],
            "LOAD_FAILED is out of its order",
        ),
        (
            [(Kind.ALIVE, encode_header(HONEST[Kind.ALIVE])), (Kind.HELLO, HELLO)],
            "a reply to no probe",
        ),
        ([(Kind.REPLY, REPLY), (Kind.HELLO, HELLO)], "not inside the worker"),
        ([(Kind.PROVED, b"")] * FLOOD_FRAMES, "frames in one read"),
        ([(Kind.HELLO, HELLO), *([(Kind.PROVED, b"")] * FLOOD_FRAMES)], "frames in one read"),
    ],
)
async def test_invalid_message_during_the_load_fails_it(frames, reason):
    launcher = ReadyLauncher()
    stopped: list[Replica] = []
    limits = replace(LIMITS, load_timeout_s=30 if frames else 0.3)
    replica = Replica("m/1", launcher, limits, stopped.append)
    starting = asyncio.ensure_future(replica.start(LOAD))
    data = b"".join(b"".join(pack(kind, 0, header)) for kind, header in frames)
    with contextlib.suppress(OSError):  # it is ended in the midst of it
        await asyncio.get_running_loop().run_in_executor(None, launcher.worker.peer.sendall, data)
    async with asyncio.timeout(10):
        with pytest.raises(LoadError, match=reason):
            await starting
        await replica.wait_stopped()
    assert launcher.worker.closed
    assert stopped == [replica]


@pytest.mark.parametrize("first", [Kind.LOAD_FAILED, Kind.LOADED])
async def test_proof_of_a_load_that_failed_is_not_kept(first):
    launcher, kept = ReadyLauncher(), []
    loaded = HONEST[Kind.LOADED]
    failed = HONEST[Kind.LOAD_FAILED]
    other = {Kind.LOAD_FAILED: Kind.LOADED, Kind.LOADED: Kind.LOAD_FAILED}[first]
    headers = {Kind.LOADED: encode_header(loaded), Kind.LOAD_FAILED: encode_header(failed)}
    replica = Replica("m/1", launcher, LIMITS, lambda _: None, on_proof=lambda *it: kept.append(it))
    starting = asyncio.ensure_future(replica.start(LOAD))
    kinds = ((Kind.HELLO, HELLO), (first, headers[first]), (other, headers[other]))
    data = b"".join(b"".join(pack(kind, 0, header)) for kind, header in kinds)
    launcher.worker.peer.sendall(data)
    with pytest.raises(LoadError):
        await starting
    await replica.wait_stopped()
    assert not kept


async def test_frame_beyond_the_limits_ends_its_worker(serving):
    replica, peer, _, _ = serving
    peer.sendall(PREFIX.pack(Kind.REPLY, worker_messages.MAX_HEADER_BYTES + 1, 0, 1))
    await replica.wait_stopped()
    assert "beyond the limits" in replica.end_reason


async def test_worker_that_skips_a_request_is_ended_as_stuck():
    """It answers later requests, so the earlier one would hold its slot for ever."""
    launcher = ReadyLauncher()
    counts: list[float | None] = []
    limits = ReplicaLimits(8, 1000, load_timeout_s=5, warm_up_timeout_s=5, stuck_grace_s=0.3)
    replica = Replica("m/1", launcher, limits, lambda _: None, counts.append)
    await ready_replica(replica, launcher)
    done = []

    def ask():
        return replica.submit(
            b"{}", b"", timeout_s=0.2, limit_s=0.2, on_done=lambda: done.append(1)
        )

    passed_over = ask()
    count = 1
    async with asyncio.timeout(10):
        while replica.state is ReplicaState.READY:
            later = ask()
            count += 1
            said(launcher.worker.peer, Kind.REPLY, REPLY, count)
            with contextlib.suppress(WorkerDiedError):
                await later
            await asyncio.sleep(0.02)
        await replica.wait_stopped()
    assert "stuck" in replica.end_reason
    assert passed_over.exception() is not None
    assert len(done) == count
    assert counts.count(None) == 1


async def test_worker_with_a_long_queue_is_not_stuck(serving):
    replica, peer, answers, _ = serving
    for request in replica._in_flight.values():
        request.limit_s = 0.1  # and a grace of 0.4 s
    for number in (1, 2, 3):
        await asyncio.sleep(0.3)
        said(peer, Kind.REPLY, REPLY, number)
        await answers[number - 1]
    assert replica.state is ReplicaState.READY


async def test_frames_that_wait_are_read_before_a_worker_counts_as_stuck(serving):
    """The gateway was held up: its timers expired before it read its sockets."""
    replica, peer, answers, _ = serving
    for request in replica._in_flight.values():
        request.limit_s = request.due = 0.0
    replica._oldest_since = 0.0
    for number in (1, 2, 3):
        said(peer, Kind.REPLY, REPLY, number)
    replica._check_due()
    assert [answer.result().rows for answer in answers] == [1, 1, 1]
    assert replica.state is ReplicaState.READY


async def test_probe_after_probes_that_timed_out_gets_one_reply():
    launcher = ReadyLauncher()
    replica = Replica("m/1", launcher, LIMITS, lambda _: None)
    await ready_replica(replica, launcher)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await replica.probe(0.01)
    probe = asyncio.ensure_future(replica.probe(10))
    await asyncio.sleep(0)
    said(launcher.worker.peer, Kind.ALIVE, encode_header(HONEST[Kind.ALIVE]))
    assert (await probe).example_ok
    said(launcher.worker.peer, Kind.ALIVE, encode_header(HONEST[Kind.ALIVE]))
    await replica.wait_stopped()
    assert "a reply to no probe" in replica.end_reason


# --- every field of every message ---------------------------------------------------------------

READERS: dict[Kind, Callable[[bytes], object]] = {
    Kind.HELLO: partial(worker_messages.read_message, Hello),
    Kind.LOADED: partial(worker_messages.read_message, Loaded),
    Kind.LOAD_FAILED: partial(worker_messages.read_message, LoadFailed),
    Kind.FAILED: worker_messages.read_failed,
    Kind.ALIVE: partial(worker_messages.read_message, Alive),
    Kind.REPLY: worker_messages.read_reply,
    Kind.PROVING: worker_messages.read_proof,
}


@pytest.mark.parametrize("kind", READERS)
def test_every_field_is_checked_for_types_and_ranges(kind):
    honest = spelled_as(kind)
    read = READERS[kind]
    assert_sound(read(header_of(honest)))
    refused = 0
    for name in (*honest, "odd"):
        for odd in ODD:
            try:
                assert_sound(read(header_of(honest | {name: odd})))
            except worker_messages.InvalidMessageError:
                refused += 1
    assert refused > len(honest) * 8


def assert_sound(said: object) -> None:
    """Fail if what was read is not what everything that comes after takes it for."""
    if isinstance(said, GatewayError):
        shown = problem(said, "r")
        assert all(type(one["reason"]) is str for one in shown.get("errors", []))
        orjson.dumps(shown)
    elif isinstance(said, tuple):
        rows, queued_s, predict_s, batch_rows = said
        assert type(rows) is type(batch_rows) is int
        assert 0 <= queued_s + predict_s < 1e9
    elif said is not None:
        for one in fields(cast("Any", said)):
            value, meant = getattr(said, one.name), str(one.type)
            assert type(value).__name__ == meant.partition("[")[0] or (
                meant == "float" and type(value) is int
            ), one.name
            assert not isinstance(value, int | float) or 0 <= value < 2**63
            assert not isinstance(value, str) or len(value) <= 4096
            assert meant != "dict[str, float]" or all(0 <= v < 1e9 for v in value.values())
            orjson.dumps(value)


class Liar(FakeLauncher):
    """Starts honest workers of version 1; those of version 2 lie at a given moment.

    Version 2 has an interpreter of its own, which tells the two apart before a load does.
    """

    def __init__(self, moment: int, told: list[Lie], then: str) -> None:
        super().__init__(lambda _: 1)
        self.workers: list[FakeWorker] = []
        self._moment, self._lies, self._then = moment, told, then

    async def launch(self, interpreter: str | None) -> Any:
        worker = await super().launch(interpreter)
        self.workers.append(worker)
        return worker

    async def _greeted(self, peer: Any, pid: int, interpreter: str | None) -> bool:
        if interpreter is None or self._moment != START:
            return await super()._greeted(peer, pid, interpreter)
        return await self._tell(peer, 0)  # in place of HELLO

    async def _answer(self, peer: Any, frame: Frame, version: int, hung: set[int]) -> bool:
        return await self._lie(peer, frame, version) and await super()._answer(
            peer, frame, version, hung
        )

    async def _loaded(self, peer: Any, frame: Frame, version: int) -> bool:
        return await self._lie(peer, frame, version) and await super()._loaded(peer, frame, version)

    async def _lie(self, peer: Any, frame: Frame, version: int) -> bool:
        """Lie, if this is the moment; False: and end."""
        if version != LYING.version or frame.kind != self._moment:
            return True
        return await self._tell(peer, frame.id)

    async def _tell(self, peer: Any, asked_id: int) -> bool:
        """Tell the lies; False: and end."""
        told = b"".join(one.as_answer_to(asked_id) * one.times for one in self._lies)
        await asyncio.get_running_loop().sock_sendall(peer, told)
        if self._then == "hang":
            await asyncio.get_running_loop().create_future()
        return self._then == "go on"


GOOD, LYING = (ArtifactRef(name, version, "d") for name, version in (("good", 1), ("liar", 2)))
SHORT = ReplicaLimits(4, 1000, load_timeout_s=0.3, warm_up_timeout_s=0.3, stuck_grace_s=0.05)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a lie that is that long
@settings(max_examples=LIES, deadline=None)
@given(moment=MOMENTS, then=st.sampled_from(["go on", "go on", "end", "hang"]))
def test_lying_worker_costs_others_nothing(moment, then):
    at, told = moment
    with capture_logs() as logs:
        asyncio.run(_lied_to(Liar(at, told, then)))
    assert [one for one in logs if "exc_info" in one] == []


async def _lied_to(launcher: Liar) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    known: list[Replica] = []

    def new_replica(key: ArtifactRef, on_stopped: Any) -> Replica:
        known.append(Replica(str(key), launcher, SHORT, on_stopped))
        return known[-1]

    async def order(key: ArtifactRef) -> Load:
        own = "/liar" if key == LYING else None
        return Load(key.model, key.version, key.digest, "/nowhere", "/nowhere", {}, interpreter=own)

    world: Any = World()
    residents = ResidentSet(
        ReplicaPool(new_replica=new_replica, prepare=order, observer=world),
        limits=ResidentLimits(2, 100 * MIB),
        load_budget_s=20.0,
        max_waiting=10,
        requirements=world,
    )
    async with asyncio.timeout(30):
        (await residents.lease(GOOD)).release()
        await _ask(residents, LYING)
        reply = await _ask(residents, GOOD)
        assert isinstance(reply, WorkerReply)
        await residents.close(10.0)
    json.dumps(world.told).encode()
    assert residents.residents() == []
    assert launcher.alive() == 0
    assert all(worker.closed for worker in launcher.workers)
    assert [one.in_flight for one in known] == [0] * len(known)
    assert faults == []


async def _ask(residents: ResidentSet, key: ArtifactRef) -> object:
    """Ask and probe a worker; return the first answer. Every lease comes back."""
    answers: list[asyncio.Future[WorkerReply]] = []
    probe: asyncio.Future[Alive] | None = None
    for _ in range(3):
        try:
            lease = residents.try_lease(key) or await residents.lease(key)
        except GatewayError as error:
            problem(error, "r")
            break
        try:
            answers.append(
                lease.replica.submit(
                    b"{}",
                    b'{"features":[1]}',
                    timeout_s=0.2,
                    limit_s=0.2,
                    on_done=lease.release,
                )
            )
        except (GatewayError, NotDeliveredError):
            lease.release()
        if probe is None:
            probe = asyncio.ensure_future(lease.replica.probe(0.5))
    told = await asyncio.gather(*answers, *([probe] if probe else []), return_exceptions=True)
    for one in told:
        _look_at(one)
    await eventually_true(
        lambda: not any(one.leases for one in residents.residents()), "leases are back"
    )
    return told[0] if told else None


def _look_at(told: object) -> None:
    """Use what a caller is told, as everything does that comes after it."""
    if isinstance(told, GatewayError):
        assert_sound(told)
    elif isinstance(told, WorkerReply):
        assert told.content_type == "application/json"
        assert_sound(tuple(told)[2:])
    elif isinstance(told, Alive):
        assert_sound(told)
    else:
        assert isinstance(told, NotDeliveredError | TimeoutError), told


@pytest.mark.parametrize(
    ("detail", "is_read"),
    [
        ([3, "x", "no number"], True),
        ([None, "x", "no number"], True),
        ([3, None, "no number"], True),
        (["3", "x", "no number"], False),
        ([-1, "x", "no number"], False),
        ([3, 4, "no number"], False),
        ([3, "x", None], False),
        ([3, "x"], False),
    ],
)
def test_a_detail_names_a_row_or_a_field_or_neither(detail: list[Any], is_read: bool) -> None:
    header = encode_header(Failed("invalid_input", "no", [detail]))
    if is_read:
        error = worker_messages.read_failed(header)
        assert isinstance(error, InvalidInputError)
        assert error.details == [detail]
    else:
        with pytest.raises(worker_messages.InvalidMessageError):
            worker_messages.read_failed(header)
