"""One worker seen from the parent, with a process that is only a pair of descriptors."""

import asyncio
import socket
from dataclasses import replace

import pytest

from gateway.errors import (
    DeadlineExceededError,
    LoadError,
    ModelOverloadedError,
    ModelRaisedError,
    NotDeliveredError,
    NotFiniteAnswerError,
    WorkerDiedError,
)
from gateway.http.problems import problem
from gateway.serving.replica import replica as replicas
from gateway.serving.replica.replica import Replica, ReplicaLimits, ReplicaState
from gateway.serving.replica.requests import WorkerReply
from gateway.serving.replica.worker_messages import read_failed
from gateway.worker.loading.proofs.proof import MAX_LOST, Proof
from gateway.worker.protocol.frames import PREFIX, FrameReader, pack
from gateway.worker.protocol.messages import (
    KIND_OF,
    Alive,
    Failed,
    Hello,
    Kind,
    Load,
    Loaded,
    Proved,
    Proving,
    Reply,
    Warming,
    encode_header,
)
from tests.acceptance.waiting import eventually_true
from tests.fakes.waiting import becomes
from tests.fakes.worker import FakeWorker

LIMITS = ReplicaLimits(4, 1000, load_timeout_s=5, warm_up_timeout_s=5, stuck_grace_s=1)
LOAD = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {})


class SlowLauncher:
    def __init__(self):
        self.gate, self.worker = asyncio.Event(), FakeWorker()

    async def launch(self, interpreter):
        await self.gate.wait()
        return self.worker


async def test_worker_of_a_replica_ended_during_its_start_ends():
    launcher = SlowLauncher()
    stopped: list[Replica] = []
    replica = Replica("m/1", launcher, LIMITS, stopped.append)
    starting = asyncio.ensure_future(replica.start(LOAD))
    await asyncio.sleep(0)
    replica.stop("retired")
    launcher.gate.set()
    with pytest.raises(LoadError, match=r"stopped: .*gateway ended"):
        await starting
    assert replica.state is ReplicaState.STOPPED
    assert stopped == [replica]
    assert launcher.worker.killed
    assert launcher.worker.closed


class ReadyLauncher(SlowLauncher):
    def __init__(self):
        super().__init__()
        self.gate.set()

    def say(self, message, id_=0):
        header = encode_header(message)
        self.worker.peer.sendall(b"".join(pack(KIND_OF[type(message)], id_, header)))


async def loading(
    replica: Replica, launcher: ReadyLauncher, load: Load = LOAD
) -> asyncio.Task[Loaded]:
    """Have a worker greet and begin to load; return the start of its replica."""
    launcher.say(Hello(1, "3.11"))
    starting = asyncio.ensure_future(replica.start(load))
    await becomes(lambda: replica.state is ReplicaState.LOADING, "it loads")
    return starting


async def ready_replica(replica: Replica, launcher: ReadyLauncher, load: Load = LOAD) -> None:
    """Have a worker say all that one says until it is ready."""
    starting = await loading(replica, launcher, load)
    launcher.say(Loaded(1, {}, "passed", "alone", "", "pyfunc", ""))
    await starting


def ask(
    replica: Replica, body: bytes = b"{}", timeout_s: float = 5.0, limit_s: float | None = None
) -> asyncio.Future[WorkerReply]:
    return replica.submit(
        b"{}",
        body,
        timeout_s=timeout_s,
        limit_s=timeout_s if limit_s is None else limit_s,
        on_done=lambda: None,
    )


@pytest.fixture
async def ready():
    """A ready replica and its worker; limits of a fraction of a second."""
    async for replica, launcher, _ in _made_ready():
        yield replica, launcher


@pytest.fixture
async def counted():
    """The same, and the counted requests: seconds of the model's call, or None for a fault."""
    async for made in _made_ready():
        yield made


async def _made_ready():
    launcher = ReadyLauncher()
    counts: list[float | None] = []
    limits = replace(LIMITS, max_in_flight=8, stuck_grace_s=0.5)
    replica = Replica("m/1", launcher, limits, lambda _: None, counts.append)
    await ready_replica(replica, launcher)
    yield replica, launcher, counts
    replica.kill("the test is over")
    await replica.wait_stopped()


async def test_worker_that_ends_after_hello_stops_its_replica():
    launcher = ReadyLauncher()
    stopped: list[Replica] = []
    replica = Replica("m/1", launcher, LIMITS, stopped.append)
    launcher.say(Hello(1, "3.11"))
    launcher.worker.kill()
    with pytest.raises(LoadError, match="was ended by SIGKILL before"):
        await asyncio.wait_for(replica.start(LOAD), 10)
    assert replica.state is ReplicaState.STOPPED
    assert stopped == [replica]


async def test_worker_is_told_of_a_caller_that_leaves(ready):
    replica, launcher = ready
    launcher.worker.peer.setblocking(False)
    loop = asyncio.get_running_loop()
    reader, kinds = FrameReader(), list[int]()

    async def until_it_gets(kind):
        async with asyncio.timeout(10):
            while kind not in kinds:
                data = await loop.sock_recv(launcher.worker.peer, 1 << 16)
                kinds.extend(frame.kind for frame in reader.feed(data))

    reply = ask(replica)
    await until_it_gets(Kind.PREDICT)
    reply.cancel()
    await until_it_gets(Kind.CANCEL)


async def test_slowness_of_an_idle_worker_fades(ready):
    replica, launcher = ready
    reply = ask(replica)
    await asyncio.sleep(0.05)
    launcher.say(Reply(1, 0.0, 0.04, 1), 1)
    await asyncio.wait_for(reply, 10)
    now = asyncio.get_running_loop().time()
    measured_s = replica.expected_service_s(now)
    assert measured_s > 0.04
    assert replica.decayed_service_s(now + 1) < measured_s
    assert replica.decayed_service_s(now + 1) > 0.1 * measured_s


async def test_stuck_worker_is_ended(ready):
    replica, launcher = ready
    done = []
    answer = replica.submit(
        b"{}", b"", timeout_s=0.05, limit_s=0.05, on_done=lambda: done.append(1)
    )
    with pytest.raises(DeadlineExceededError):
        await answer
    assert not launcher.worker.killed, "there is a grace"
    await replica.wait_stopped()
    assert launcher.worker.killed
    assert "stuck" in replica.end_reason
    assert done == [1]


def test_answer_that_is_not_finite_is_the_models_fault():
    details = [[1, "predictions", "a number that is not finite"]]
    error = read_failed(encode_header(Failed("not_finite", "no", details)))
    assert isinstance(error, NotFiniteAnswerError)
    assert isinstance(error, ModelRaisedError)
    assert problem(error, "r")["status"] == 422
    assert problem(error, "r")["errors"][0]["row"] == 1


@pytest.mark.parametrize("timeout_s", [0.02, 0.2, 5.0])
@pytest.mark.parametrize(
    ("said", "is_counted"),
    [
        (Reply(1, 0.0, 0.01, 1), [0.01]),
        (Reply(1, 0.0, 9.0, 1), [None]),
        (Failed("model_error", "no", begun=True), [None]),
        (Failed("model_error", "no memory"), []),
        (Failed("invalid_input", "no"), []),
        (Failed("cancelled", "nobody waits"), []),
        (Failed("deadline_exceeded", "in the queue"), []),
    ],
    ids=lambda said: getattr(said, "code", None),
)
async def test_what_the_model_did_with_a_request_counts_even_after_its_time_out(
    counted, said, is_counted, timeout_s
):
    """The wait before the model's call depends on what other callers have sent."""
    replica, launcher, counts = counted
    answer = ask(replica, timeout_s=timeout_s, limit_s=0.2)
    if timeout_s < 1:
        with pytest.raises(DeadlineExceededError):
            await answer
    assert counts == []
    launcher.say(said, 1)
    await asyncio.gather(answer, return_exceptions=True)
    await eventually_true(lambda: not replica.in_flight, "it was let go of")
    assert counts == is_counted


@pytest.mark.parametrize("left", [False, True])
async def test_of_the_requests_in_a_worker_that_dies_the_oldest_counts(counted, left):
    """It had begun that one for certain."""
    replica, launcher, counts = counted
    answers = [ask(replica) for _ in range(3)]
    await _all_sent(replica)
    if left:
        answers[0].cancel()
    launcher.worker.kill()
    await replica.wait_stopped()
    await asyncio.gather(*answers, return_exceptions=True)
    assert counts == [None]


async def test_of_the_requests_in_a_stuck_worker_those_past_their_time_out_count(counted):
    replica, _, counts = counted

    first = [ask(replica, timeout_s=0.8) for _ in range(3)]
    await asyncio.gather(*first, return_exceptions=True)
    with pytest.raises(WorkerDiedError):  # it is ended 1.3 s after the first one
        await ask(replica, timeout_s=0.8)
    assert "stuck" in replica.end_reason
    assert counts == [None] * 3


async def _all_sent(replica):
    while replica._channel.unsent_ids():  # noqa: ASYNC110  # one turn of the loop each
        await asyncio.sleep(0)


async def test_stuck_worker_is_ended_after_its_caller_left(ready):
    replica, launcher = ready
    ask(replica, timeout_s=0.05).cancel()
    await replica.wait_stopped()
    assert launcher.worker.killed


async def load_with(limits, *said, kept=None):
    """Start a replica whose worker says these messages after LOAD; return it and its start."""
    launcher, kept = ReadyLauncher(), [] if kept is None else kept
    replica = Replica(
        "m/1", launcher, limits, lambda _: None, on_proof=lambda order, proof: kept.append(proof)
    )
    starting = await loading(replica, launcher)
    for message in said:
        launcher.say(message)
    return replica, starting


LOADED = Loaded(1, {}, "passed", "alone", "", "pyfunc", "")


@pytest.mark.parametrize(
    ("load_s", "warm_up_s", "said", "reason"),
    [
        (0.1, 60.0, [], "the model was not loaded after 0.1 s"),
        (60.0, 0.1, [Warming()], "the model was loaded, but not warm after 0.1 s"),
    ],
)
async def test_load_and_warm_up_have_limits_of_their_own(load_s, warm_up_s, said, reason):
    limits = replace(LIMITS, load_timeout_s=load_s, warm_up_timeout_s=warm_up_s)
    replica, starting = await load_with(limits, *said)
    async with asyncio.timeout(10):
        with pytest.raises(LoadError) as late:
            await starting
        await replica.wait_stopped()
    assert (late.value.failure, late.value.message) == ("timeout", reason)


async def test_warm_up_may_last_beyond_the_load_timeout():
    limits = replace(LIMITS, load_timeout_s=0.3, warm_up_timeout_s=30)
    replica, starting = await load_with(limits, Warming())
    await asyncio.sleep(0.6)
    assert (replica.state, starting.done()) == (ReplicaState.WARMING, False)
    replica.kill("the test is over")
    with pytest.raises(LoadError):
        await starting


async def test_refusal_has_the_time_of_the_requests_in_flight(ready):
    replica, launcher = ready
    loop = asyncio.get_running_loop()
    assert replica.expected_service_s(loop.time()) == 0, "it has nothing to say"
    for number in range(1, 4):
        answer = ask(replica)
        await asyncio.sleep(0.4)
        assert replica.expected_service_s(loop.time()) > 0.3
        launcher.say(Failed("cancelled", ""), number)
        await asyncio.gather(answer, return_exceptions=True)
    assert 0.3 < replica.expected_service_s(loop.time()) < 0.9
    waiting = [ask(replica) for _ in range(8)]
    with pytest.raises(ModelOverloadedError) as refused:
        ask(replica)
    assert 3 <= (refused.value.retry_after_s or 0) <= 8
    for one in waiting:
        one.cancel()


@pytest.mark.parametrize(
    ("inside", "next_one"), [([400, 500], 101), ([900, 100], 1), ([4000], 0), ([1] * 8, 0)]
)
async def test_replica_has_no_room_for_a_request_that_it_would_refuse(ready, inside, next_one):
    """Of eight requests, and of 1000 bytes unless it is one request alone."""
    replica, _ = ready

    for size in inside:
        assert replica.has_room(size)
        ask(replica, bytes(size))
    assert not replica.has_room(next_one)
    with pytest.raises(ModelOverloadedError):
        ask(replica, bytes(next_one))


async def test_large_bodies_leave_room_for_small_ones():
    launcher, mib = ReadyLauncher(), 1024 * 1024
    limits = replace(LIMITS, max_in_flight=100, max_in_flight_bytes=64 * mib)
    replica = Replica("m/1", launcher, limits, lambda _: None)
    await ready_replica(replica, launcher)
    for _ in range(3):
        ask(replica, b"x" * 16 * mib)
    assert not replica.has_room(16 * mib)
    assert not replica.has_room(65 * 1024)
    assert replica.has_room(64 * 1024)
    replica.kill("the test is over")
    await replica.wait_stopped()


async def test_short_deadline_of_a_caller_does_not_end_its_worker(ready):
    replica, launcher = ready
    done = []
    answer = replica.submit(b"{}", b"", timeout_s=0.05, limit_s=60, on_done=lambda: done.append(1))
    with pytest.raises(DeadlineExceededError):
        await answer
    await asyncio.sleep(0.8)  # its grace is 0.5
    assert not launcher.worker.killed
    assert (replica.in_flight, done) == (1, []), "its place is taken until the worker lets go"
    launcher.say(Failed("cancelled", ""), 1)
    await becomes(lambda: not replica.in_flight, "the worker lets go")
    assert done == [1]


async def test_worker_with_a_reply_beyond_the_limit_is_ended(ready):
    replica, launcher = ready
    launcher.worker.peer.sendall(PREFIX.pack(Kind.REPLY, 0, LOAD.max_answer_bytes + 1, 1))
    await becomes(lambda: replica.state is not ReplicaState.READY, "it is ended")


# --- proofs -------------------------------------------------------------------------------------

PROOF = Proof(batching="joined", joined_rows=96, answers="per_row", decided=True)
LOST = replace(PROOF, lost=1)


@pytest.fixture
async def proved():
    """A ready replica, its worker, and what it has kept of proofs; a proof may take 0.2 s."""
    launcher, kept = ReadyLauncher(), []
    limits = replace(LIMITS, stuck_grace_s=0.1, proof_s=1.0)
    replica = Replica(
        "m/1", launcher, limits, lambda _: None, on_proof=lambda order, proof: kept.append(proof)
    )
    await ready_replica(replica, launcher)
    yield replica, launcher, kept
    replica.kill("the test is over")
    await replica.wait_stopped()


async def heard(replica, launcher):
    """Wait until the replica has read all that its worker has said."""
    probe = asyncio.ensure_future(replica.probe(10))
    await asyncio.sleep(0)
    launcher.say(Alive(1, example_ok=True))
    await probe


async def test_proof_while_serving_is_kept_and_shown(proved):
    replica, launcher, kept = proved
    launcher.say(Proving(LOST.as_header()))
    launcher.say(Proved(PROOF.as_header()))
    await heard(replica, launcher)
    assert kept == [PROOF]
    assert (replica.loaded.batching, replica.loaded.joined_rows) == ("joined", 96)
    assert replica.loaded.answers == "per_row"
    await asyncio.sleep(0.4)
    assert replica.state is ReplicaState.READY, "it has come back"


@pytest.mark.parametrize("header", [{}, {"joined_rows": 2**63}, PROOF.as_header() | {"lost": "1"}])
async def test_invalid_proof_is_not_kept(proved, header):
    replica, launcher, kept = proved
    launcher.say(Proved(header))
    await heard(replica, launcher)
    assert (kept, replica.loaded) == ([], LOADED)


@pytest.mark.parametrize(("told", "lost"), [(False, [LOST]), (True, [])])
async def test_only_a_worker_that_dies_in_a_proof_is_lost_in_it(proved, told, lost):
    replica, launcher, kept = proved
    launcher.say(Proving(LOST.as_header()))
    await heard(replica, launcher)
    answer = ask(replica, timeout_s=60)
    await _all_sent(replica)
    if told:
        replica.kill("room was needed")
    else:
        launcher.worker.kill()
    async with asyncio.timeout(10):
        with pytest.raises(NotDeliveredError):
            await answer
        await replica.wait_stopped()
    assert kept == lost


async def test_proof_beyond_the_models_time_out_is_lost(proved):
    replica, launcher, kept = proved
    replica._limits = replace(replica._limits, stuck_grace_s=0.2)
    replica._proofs._grace_s, replica._proofs._limit_s = 0.2, 100.0
    launcher.say(Proving(LOST.as_header()))
    await heard(replica, launcher)
    answer = ask(replica, timeout_s=0.1)
    async with asyncio.timeout(10):
        with pytest.raises(NotDeliveredError):
            await answer
        assert not launcher.worker.killed, "there is a grace"
        again = ask(replica, timeout_s=60)
        with pytest.raises(NotDeliveredError):
            await again
        await replica.wait_stopped()
    assert kept == [replace(PROOF, lost=MAX_LOST)]
    assert replica.end_reason == "it did not come back from a proof within 0.3 s"


async def test_proof_may_take_a_part_of_the_models_time_out():
    launcher, kept = ReadyLauncher(), []
    limits = replace(LIMITS, stuck_grace_s=0.1, proof_s=100.0)
    replica = Replica("m/1", launcher, limits, lambda _: None, on_proof=lambda _, p: kept.append(p))
    await ready_replica(replica, launcher, replace(LOAD, timeout_s=1.0))
    launcher.say(Proving(LOST.as_header()))
    await replica.wait_stopped()
    assert replica.end_reason == "it did not come back from a proof within 0.2 s"
    assert kept == [replace(PROOF, lost=MAX_LOST)]


async def test_worker_that_ends_between_proofs_is_lost_in_none(proved):
    replica, launcher, kept = proved
    launcher.say(Proving(LOST.as_header()))
    launcher.say(Proved(PROOF.as_header()))
    await heard(replica, launcher)
    launcher.worker.kill()
    await replica.wait_stopped()
    assert kept == [PROOF]


async def test_proof_in_the_warm_up_has_its_own_time_limit():
    kept: list[Proof] = []
    limits = replace(LIMITS, warm_up_timeout_s=0.3, proof_s=30, stuck_grace_s=1)
    replica, starting = await load_with(limits, Warming(), Proving(LOST.as_header()), kept=kept)
    await asyncio.sleep(0.6)
    assert not starting.done()
    replica._launcher.say(Proved(PROOF.as_header()))
    async with asyncio.timeout(10):
        with pytest.raises(LoadError, match="not warm after"):
            await starting  # what was left of the warm-up is over
        await replica.wait_stopped()
    assert kept == [PROOF]


async def test_load_with_a_lost_proof_is_tried_again_without_it():
    kept: list[Proof] = []
    limits = replace(LIMITS, warm_up_timeout_s=30, proof_s=0.1, stuck_grace_s=0.1)
    said = [Warming(), *[Proving(LOST.as_header())] * 3]
    replica, starting = await load_with(limits, *said, kept=kept)
    async with asyncio.timeout(10):
        with pytest.raises(LoadError) as late:
            await starting
        await replica.wait_stopped()
    assert late.value.failure == "worker_died", "so the load is tried again"
    assert kept == [replace(PROOF, lost=MAX_LOST)]


async def test_a_worker_that_crashes_in_its_load_says_how_and_what_it_wrote():
    replica, starting = await load_with(LIMITS)
    worker = replica._launcher.worker
    worker.status = -11
    worker.spoken.send_bytes(b"Fatal Python error: Segmentation fault")
    worker.kill()
    with pytest.raises(LoadError) as crashed:
        await asyncio.wait_for(starting, 10)
    await replica.wait_stopped()
    assert crashed.value.failure == "worker_crashed"
    assert crashed.value.message.startswith("the worker was ended by SIGSEGV before it was ready")
    assert "it wrote: " in crashed.value.message
    assert "Segmentation fault" in crashed.value.message


async def test_a_worker_that_ends_before_its_order_has_crashed_for_no_model():
    launcher = ReadyLauncher()
    replica = Replica("m/1", launcher, LIMITS, lambda _: None)
    launcher.worker.status = 1
    launcher.worker.kill()
    with pytest.raises(LoadError, match="worker_died: the worker ended itself with exit status 1"):
        await asyncio.wait_for(replica.start(LOAD), 10)
    await replica.wait_stopped()


async def test_an_exit_status_that_never_comes_delays_an_end_for_a_moment_only():
    replica, starting = await load_with(LIMITS)
    worker = replica._launcher.worker
    worker.status = None
    worker.kill()
    with pytest.raises(LoadError, match="worker_died: the worker ended before it was ready"):
        await asyncio.wait_for(starting, 10)
    await replica.wait_stopped()


async def test_worker_that_dies_in_its_first_proof_keeps_its_progress():
    kept: list[Proof] = []
    begun = Proving(replace(LOST, batching="alone", joined_rows=1).as_header())
    said = Warming(), begun, Proving(LOST.as_header())
    replica, starting = await load_with(LIMITS, *said, kept=kept)
    under_way = lambda: replica._proofs._under_way  # noqa: E731 - shorter than its name
    await becomes(lambda: under_way() and under_way().unproved == LOST, "the next one began")
    replica._launcher.worker.kill()
    with pytest.raises(LoadError, match="was ended by SIGKILL before"):
        await asyncio.wait_for(starting, 10)
    await replica.wait_stopped()
    assert kept == [LOST]


async def test_proof_in_the_report_of_a_load_is_kept():
    for header, expected in ((PROOF.as_header(), [PROOF]), ({"odd": 1}, [])):
        kept: list[Proof] = []
        said = Warming(), replace(LOADED, proof=header)
        replica, starting = await load_with(LIMITS, *said, kept=kept)
        await asyncio.wait_for(starting, 10)
        assert kept == expected
        replica.kill("the test is over")
        await replica.wait_stopped()


class TestStop:
    """A worker that does not end by itself is ended."""

    async def test_one_that_ignores_stop_is_killed_after_a_grace(self, ready, monkeypatch):
        replica, launcher = ready
        monkeypatch.setattr(replicas, "_STOP_GRACE_S", 0.05)
        replica.stop("evicted")
        assert replica.state is ReplicaState.DRAINING
        assert not launcher.worker.killed
        await replica.wait_stopped()
        assert launcher.worker.killed
        assert replica.end_reason == "evicted"

    async def test_one_that_hangs_up_and_does_not_end_is_killed(self, ready, monkeypatch):
        replica, launcher = ready
        monkeypatch.setattr(replicas, "_EXIT_AFTER_EOF_S", 0.05)
        launcher.worker.peer.shutdown(socket.SHUT_RDWR)
        await replica.wait_stopped()
        assert launcher.worker.killed

    async def test_one_that_has_hung_up_is_killed_at_once_when_it_is_to_stop(self, ready):
        replica, launcher = ready
        launcher.worker.peer.shutdown(socket.SHUT_RDWR)
        await eventually_true(lambda: replica.state is ReplicaState.DRAINING, "it has hung up")
        replica.stop("evicted")
        assert launcher.worker.killed


class TestInFlight:
    """What is inside a worker is counted until the worker has let go of it."""

    async def test_the_bytes_of_a_request_are_free_again_with_its_answer(self, ready):
        replica, launcher = ready
        for number in range(1, 4):
            answer = ask(replica, bytes(LIMITS.max_in_flight_bytes))
            assert not replica.has_room(1)
            launcher.say(Reply(1, 0.0, 0.0, 1), number)
            await answer
            assert replica.has_room(1)
        assert (replica.in_flight, replica._in_flight_bytes) == (0, 0)

    async def test_what_was_not_sent_when_the_worker_ended_may_go_to_another_one(self, ready):
        replica, launcher = ready
        sent = ask(replica)
        await _all_sent(replica)
        kept = ask(replica)
        launcher.worker.kill()
        with pytest.raises(WorkerDiedError):
            await sent
        with pytest.raises(NotDeliveredError):
            await kept


class TestEnd:
    """What an end leaves: nothing that is open, and one report of it."""

    async def test_everything_is_released_and_its_owner_is_told_once(self):
        launcher = ReadyLauncher()
        stopped: list[Replica] = []
        replica = Replica("m/1", launcher, LIMITS, stopped.append)
        pids = [replica.pid]
        await ready_replica(replica, launcher)
        assert [*pids, replica.pid] == [None, launcher.worker.pid]
        answer = ask(replica)
        replica.kill("it is too large")
        await replica.wait_stopped()
        replica.kill("twice")
        replica.stop("thrice")
        await asyncio.sleep(0)
        assert stopped == [replica]
        assert launcher.worker.closed
        assert replica.end_reason == "it is too large"
        assert not asyncio.get_running_loop().remove_reader(launcher.worker.exited)
        assert replica._timer is None or replica._timer.cancelled()
        with pytest.raises((WorkerDiedError, NotDeliveredError)):
            await answer

    async def test_one_that_is_stopped_while_it_loads_did_not_fail(self, monkeypatch):
        monkeypatch.setattr(replicas, "_STOP_GRACE_S", 0.05)
        replica, starting = await load_with(LIMITS)
        replica.stop("retired")
        with pytest.raises(LoadError, match=r"stopped: .*gateway ended"):
            await starting
        await replica.wait_stopped()

    async def test_one_on_whose_words_the_gateway_fails_is_ended(self, ready, monkeypatch):
        replica, launcher = ready

        def fail(frame):
            raise RuntimeError("out of order")

        monkeypatch.setattr(replica, "_handle", fail)
        launcher.say(Reply(1, 0.0, 0.0, 1), 1)
        await replica.wait_stopped()
        assert launcher.worker.killed
        assert "the gateway failed" in replica.end_reason


class TestProbe:
    """A probe measures the worker, and is one at a time."""

    async def test_what_it_says_of_itself_is_kept(self, ready):
        replica, launcher = ready
        probe = asyncio.ensure_future(replica.probe(5))
        await asyncio.sleep(0)
        launcher.say(Alive(77, True, gpu_bytes=5, example_s=0.25))
        assert (await probe).example_ok
        measured = (replica.private_bytes, replica.gpu_bytes, replica.example_s)
        assert measured == (77, 5, 0.25)

    async def test_it_is_not_delivered_to_one_that_is_not_ready_or_is_probed(self, ready):
        replica, launcher = ready
        first = asyncio.ensure_future(replica.probe(5))
        await asyncio.sleep(0)
        with pytest.raises(NotDeliveredError):
            await replica.probe(5)
        launcher.say(Alive(1, True))
        await first
        replica.stop("evicted")
        with pytest.raises(NotDeliveredError):
            await replica.probe(5)
        with pytest.raises(NotDeliveredError):
            ask(replica)

    async def test_it_ends_with_its_worker(self, ready):
        replica, launcher = ready
        probe = asyncio.ensure_future(replica.probe(5))
        await asyncio.sleep(0)
        launcher.worker.kill()
        with pytest.raises(NotDeliveredError):
            await probe
