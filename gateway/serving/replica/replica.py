"""One worker seen from the parent: its states, the requests inside it, and its end.

The pidfd shows the exit of the process. End of file on the socket is only a hint, since a model's
own child may keep the socket open.

A worker's messages are not trusted: `worker_messages` checks each frame, and a message that comes
twice, out of order, unasked or too often ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import structlog

from gateway.errors import (
    DeadlineExceededError,
    LoadError,
    ModelOverloadedError,
    ModelRaisedError,
    NotDeliveredError,
    WorkerDiedError,
)
from gateway.serving.replica.channel import Channel
from gateway.serving.replica.launcher import Launcher, WorkerProcess
from gateway.serving.replica.output_log import OutputLog
from gateway.serving.replica.proof_watch import ProofWatch, with_proof
from gateway.serving.replica.requests import InFlight, PendingReply, WorkerReply
from gateway.serving.replica.service_rate import ServiceRate
from gateway.serving.replica.worker_end import WorkerEnd, last_lines
from gateway.serving.replica.worker_messages import (
    InvalidMessageError,
    read_failed,
    read_message,
    read_proof,
    read_reply,
)
from gateway.system import release_all
from gateway.worker.loading.proofs.proof import Proof, parse
from gateway.worker.protocol import messages
from gateway.worker.protocol.frames import Frame
from gateway.worker.protocol.messages import Kind

_EXIT_AFTER_EOF_S = 2.0
_STOP_GRACE_S = 2.0
_KILL_WAIT_S = 30.0
_STATUS_LOOK_S, _STATUS_LOOKS = 0.005, 40
_REPLIES = (Kind.REPLY, Kind.FAILED)
_OF_PROOFS = (Kind.PROVING, Kind.PROVED)
_OF_LOADS = (Kind.HELLO, Kind.WARMING, Kind.LOADED, Kind.LOAD_FAILED)
_PAUSES = 2
"""Before the oldest request, a worker may finish one proof and one probe."""
_SMALL_BYTES = 64 * 1024
_LARGE_SHARE = 0.75
"""The share of the bytes inside a worker that larger bodies may fill."""
_JSON = "application/json"
_INVALID = "the worker sent an invalid message"
_CLOCK_S = 0.001
"""The event loop, whose clock is coarse, may call a timer so much too early."""
_log = structlog.get_logger("gateway.serving.replica.replica")


class ReplicaState(StrEnum):
    """``STARTING → LOADING → WARMING → READY → DRAINING → STOPPED``; any → ``STOPPED`` by death.

    Leases are taken in ``READY`` only. ``STOPPED`` begins after the process has ended, so a stopped
    replica holds no memory.
    """

    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


_UNDONE = {
    ReplicaState.STARTING: "the worker had not started",
    ReplicaState.LOADING: "the model was not loaded",
    ReplicaState.WARMING: "the model was loaded, but not warm",
}


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """The limits of one worker in requests, bytes and seconds.

    Attributes:
        load_timeout_s: Limit from the start of the process until the model is loaded.
        warm_up_timeout_s: Limit from then until the replica is ready, without its proof.
        proof_s: Limit of the proof in the warm-up.
    """

    max_in_flight: int
    max_in_flight_bytes: int
    load_timeout_s: float
    warm_up_timeout_s: float
    stuck_grace_s: float
    proof_s: float = 3.0


def _ignore(*_: object) -> None:
    """Ignore a report: the default callback."""


class Replica:
    """A running worker. The resident set owns it; all methods run on the event loop.

    ``name`` is the version, for logs and errors. ``on_stopped`` is called once, when the process
    has ended. ``on_request`` is called once for each request that the worker had begun, with the
    seconds of the model's call, or None if the model failed the request. ``on_proof`` keeps a proof
    of the worker.
    """

    def __init__(
        self,
        name: str,
        launcher: Launcher,
        limits: ReplicaLimits,
        on_stopped: Callable[[Replica], None],
        on_request: Callable[[float | None], None] = _ignore,
        *,
        on_proof: Callable[[messages.Load, Proof], None] = _ignore,
    ) -> None:
        self.name = name
        self.state = ReplicaState.STARTING
        self.loaded: messages.Loaded | None = None
        self.private_bytes = 0
        self.gpu_bytes = 0
        self.example_s = 0.0
        self.answered = 0
        self.end_reason = "the worker ended by itself"
        self._launcher = launcher
        self._limits = limits
        self._on_stopped = on_stopped
        self._on_request = on_request
        self._proofs = ProofWatch(
            limits.proof_s, limits.stuck_grace_s, on_proof, self._proof_is_late
        )
        self._is_ended_by_owner = False
        self._invalid = ""
        self._stuck = False
        self._worker: WorkerProcess | None = None
        self._channel: Channel | None = None
        self._output: OutputLog | None = None
        self._exit = WorkerEnd()
        self._is_ordered = False
        self._in_flight: dict[int, InFlight] = {}
        self._in_flight_bytes = 0
        self._next_id = 1
        self._last_frame_at = 0.0
        self._oldest_since = 0.0
        self._pauses_left = 0
        self._rate = ServiceRate()
        self._up: asyncio.Future[None] | None = None
        self._report: messages.Loaded | None = None
        self._phase: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._check_at = math.inf
        self._probe: asyncio.Future[messages.Alive] | None = None
        self._probe_is_out = False
        self._stopped = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The worker's process id, or None before its start."""
        return self._worker.pid if self._worker else None

    @property
    def in_flight(self) -> int:
        """The number of requests inside the worker."""
        return len(self._in_flight)

    def has_room(self, body_bytes: int) -> bool:
        """Whether one more request fits. Any fits alone; large bodies leave room to small ones."""
        limits = self._limits
        most = limits.max_in_flight_bytes
        if body_bytes > _SMALL_BYTES:
            most = int(_LARGE_SHARE * most)
        if self._in_flight_bytes + body_bytes > most and self._in_flight:
            return False
        return len(self._in_flight) < limits.max_in_flight

    def expected_service_s(self, now: float) -> float:
        """Return the expected seconds of one more answer; 0 before the first one.

        At least as long as it has had work and sent no frame. ``now``: the event loop's time.
        """
        silent_s = now - self._last_frame_at if self._in_flight else 0.0
        return max(self._rate.seconds_per_answer, silent_s)

    def decayed_service_s(self, now: float) -> float:
        """Return the seconds per answer of an idle replica, which decay while it idles."""
        return self._rate.decayed_s(now)

    # --- start ------------------------------------------------------------------------------------

    async def start(self, load: messages.Load) -> messages.Loaded:
        """Start the worker; it verifies, loads and warms the artifact.

        On failure the worker is ended, and ``on_stopped`` follows.

        Raises:
            LoadError: The replica did not become ready.
        """
        try:
            async with asyncio.timeout(self._limits.load_timeout_s) as self._phase:
                self._worker = await self._launcher.launch(load.interpreter)
                self._watch(self._worker, load)
                self._up = self._loop.create_future()
                await self._up
                if self.state is ReplicaState.DRAINING and not self._is_ended_by_owner:
                    await self.wait_stopped()  # it crashed as it became ready: learn how
                return self._become_ready()
        except TimeoutError as error:
            raise self._late() from error
        finally:
            if self.state not in (ReplicaState.READY, ReplicaState.STOPPED):
                self.kill("it did not come up")

    def _become_ready(self) -> messages.Loaded:
        """Serve from this step on, unless the worker has ended since it was loaded."""
        if self._report is None or self.state not in (ReplicaState.LOADING, ReplicaState.WARMING):
            raise self._ended_early()
        self.loaded = self._report
        self._keep_proof(parse(self.loaded.proof))
        self.private_bytes = self.loaded.private_bytes
        self.gpu_bytes = self.loaded.gpu_bytes
        self.state = ReplicaState.READY
        return self.loaded

    def _watch(self, worker: WorkerProcess, load: messages.Load) -> None:
        """Watch the end of a process, and read its messages.

        A process that cannot be watched is ended, and counts as ended at once: else it would hold
        its slot for ever.
        """
        if self.state is not ReplicaState.STARTING:  # it was ended while its process started
            self._worker = None
            worker.close()
            raise self._ended_early()
        self._proofs.order = load
        self._loop = loop = asyncio.get_running_loop()
        try:
            loop.add_reader(worker.exited, self._exited)
            self._channel = Channel(
                worker.channel, self._received, self._hung_up, self._garbled, load.max_answer_bytes
            )
            self._channel.open()
            self._output = OutputLog(self.name, worker.output.fileno())
            self._output.open()
        except Exception as error:
            self.end_reason = "the gateway could not watch it"
            self._is_ended_by_owner = True
            self._end()
            raise LoadError("unavailable", f"a worker could not be watched: {error!r}") from error

    def _handle_load(self, frame: Frame) -> None:
        """Take the next message of a load, each once and in its order."""
        if self.state is ReplicaState.DRAINING:
            return
        over = self._up is None or self._up.done()
        loading = self.state in (ReplicaState.LOADING, ReplicaState.WARMING) and not over
        if frame.kind == Kind.HELLO and self.state is ReplicaState.STARTING and not over:
            self._greet(read_message(messages.Hello, frame.header))
        elif (
            frame.kind == Kind.WARMING
            and self.state is ReplicaState.LOADING
            and loading
            and self._phase
        ):
            self.state = ReplicaState.WARMING
            # Its own time limit, once: a worker cannot prolong it.
            self._phase.reschedule(self._loop.time() + self._limits.warm_up_timeout_s)
        elif frame.kind == Kind.LOADED and loading:
            self._report = read_message(messages.Loaded, frame.header)
            self._end_start(None)
        elif frame.kind == Kind.LOAD_FAILED and loading:
            failed = read_message(messages.LoadFailed, frame.header)
            self._end_start(LoadError(failed.failure, failed.message))
        else:
            raise InvalidMessageError(f"{Kind(frame.kind).name} is out of its order")

    def _greet(self, hello: messages.Hello) -> None:
        """Order the load of a worker that speaks this gateway's protocol."""
        if hello.protocol_version == messages.PROTOCOL_VERSION and self._channel is not None:
            self.state = ReplicaState.LOADING
            self._is_ordered = True
            self._channel.send(Kind.LOAD, 0, messages.encode_header(self._proofs.order))
            return
        reason = (
            f"the worker speaks protocol {hello.protocol_version}, "
            f"this gateway {messages.PROTOCOL_VERSION}"
        )
        self._end_start(LoadError("unsupported", reason))

    def _end_start(self, error: LoadError | None) -> None:
        """Let `start` go on, once, with an error or without."""
        if self._up is not None and not self._up.done():
            self._up.set_exception(error) if error else self._up.set_result(None)

    def _keep_proof(self, proof: Proof | None) -> None:
        if proof is not None:
            release_all(partial(self._proofs.keep, proof))

    def _handle_proof(self, frame: Frame) -> None:
        self._proofs.count_frame(self._loop.time())
        early = self.state in (ReplicaState.STARTING, ReplicaState.LOADING)
        if early and self._report is None:
            raise InvalidMessageError("a proof is out of its order")
        proof = read_proof(frame.header)
        if frame.kind == Kind.PROVED:
            self._proofs.end(self._phase)
            self._restart_oldest()
            self._keep_proof(proof)
            if proof is not None and self._report is not None:
                self._report = with_proof(self._report, proof)
                self.loaded = self.loaded and self._report
        elif self.state is ReplicaState.DRAINING:
            return  # it is being ended
        elif self._report is not None:
            self._proofs.begin_while_ready(proof)
        elif self.state is ReplicaState.WARMING or self._proofs.is_under_way:
            self._proofs.begin_in_warm_up(proof, self._phase)

    def _proof_is_late(self, limit_s: float) -> None:
        self._proofs.give_up()
        self.kill(f"it did not come back from a proof within {limit_s:g} s")

    def _late(self) -> LoadError:
        """Return the error of the phase that took too long. A lost proof lets the load retry."""
        if self._proofs.is_under_way:
            self._proofs.give_up()
            return LoadError("worker_died", "the worker did not come back from its proof")
        warming = self.state is ReplicaState.WARMING
        limits = self._limits
        limit_s = limits.warm_up_timeout_s if warming else limits.load_timeout_s
        undone = _UNDONE.get(self.state, "the worker was not ready")
        return LoadError("timeout", f"{undone} after {limit_s:g} s")

    def _ended_early(self) -> LoadError:
        if self._invalid:
            return LoadError("load_failed", self._invalid)
        if self._is_ended_by_owner:
            return LoadError("stopped", "the gateway ended the worker before it was ready")
        output = last_lines(self._output.tail) if self._output else ""
        wrote = f"; it wrote: {output}" if output else ""
        # Before its order a worker has met no byte of the model.
        crashed = self._is_ordered and self._exit.is_crash
        failure = "worker_crashed" if crashed else "worker_died"
        return LoadError(failure, f"the worker {self._exit} before it was ready{wrote}")

    # --- requests ---------------------------------------------------------------------------------

    def submit(
        self,
        header: bytes,
        body: bytes,
        *,
        timeout_s: float,
        limit_s: float,
        on_done: Callable[[], None],
        answer_type: str = _JSON,
    ) -> asyncio.Future[WorkerReply]:
        """Send a request to the worker; return its reply.

        If the reply is cancelled, the worker skips the request unless it has begun.

        Args:
            header: An encoded `messages.Predict`.
            body: The caller's body, untouched.
            timeout_s: Seconds until the caller gets `DeadlineExceededError`. The request stays
                inside the worker until that replies.
            limit_s: The model's own time-out, at least ``timeout_s``. A worker that has the oldest
                request for longer than this and a grace is stuck.
            on_done: Called once, when the worker has replied or died.
            answer_type: The content type of the protocol's replies.

        Raises:
            NotDeliveredError: The replica is not ready; ``on_done`` is not called.
            ModelOverloadedError: Too much is in flight; ``on_done`` is not called.
        """
        if self.state is not ReplicaState.READY or self._channel is None:
            raise NotDeliveredError
        if not self.has_room(len(body)):
            raise ModelOverloadedError(
                f"{len(self._in_flight)} requests of {self.name} are in flight",
                retry_after_s=self._rate.retry_after_s(len(self._in_flight)),
            )
        loop = self._loop
        frame_id = self._next_id
        self._next_id += 1
        reply = PendingReply(loop, partial(self._cancel, frame_id))
        now = loop.time()
        if not self._in_flight:
            self._last_frame_at = now  # it had no work until now
            self._begin_oldest(now)
            self._rate.began(now)
        due = now + timeout_s
        self._in_flight[frame_id] = InFlight(
            reply, len(body), on_done, timeout_s, limit_s, now, due, answer_type
        )
        self._in_flight_bytes += len(body)
        if due < self._check_at:
            self._schedule_check(due)
        self._channel.send(Kind.PREDICT, frame_id, header, body)
        return reply

    def _cancel(self, frame_id: int) -> None:
        if frame_id in self._in_flight and self._channel is not None and self._channel.is_open:
            self._channel.send(Kind.CANCEL, frame_id, b"{}")

    # One timer for all requests: a timer each would cost every request two more calls.

    def _schedule_check(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._check_at = due
        self._timer = self._loop.call_at(due, self._check_due)

    def _check_due(self) -> None:
        """Check every request that is due, and schedule the next check.

        Frames that wait on the socket are read first: if the gateway was held up, the worker is not
        to blame.
        """
        self._timer, self._check_at = None, math.inf
        if self._channel is not None:
            release_all(self._channel.read_waiting)
        now = self._loop.time() + _CLOCK_S
        for frame_id, request in list(self._in_flight.items()):
            if request.due <= now and self.state is not ReplicaState.STOPPED:
                request.due = math.inf
                release_all(partial(self._overdue, frame_id, request))
        due = min((request.due for request in self._in_flight.values()), default=math.inf)
        if due < math.inf and self.state is not ReplicaState.STOPPED:
            self._schedule_check(due)

    def _overdue(self, frame_id: int, request: InFlight) -> None:
        """Answer a caller whose time-out has passed; end the worker if it is stuck.

        A worker takes the oldest request into its next batch. So it is stuck if it has the oldest
        one for longer than a batch may take, even if it answers others. Younger requests may well
        wait that long behind other batches.

        A worker in a proof has not begun the request, so another worker may have it; and if the
        oldest one waits too long, the proof is to blame.
        """
        proving = self._proofs.is_under_way
        if not request.reply.done():
            request.reply.set_exception(
                NotDeliveredError()
                if proving
                else DeadlineExceededError(f"no answer within {request.timeout_s:g} s")
            )
            self._cancel(frame_id)
        oldest = next(iter(self._in_flight.values()), request)
        longest_s = oldest.limit_s + self._limits.stuck_grace_s
        request.due = self._oldest_since + longest_s
        if request.due <= self._loop.time():
            request.due = math.inf
            if proving:
                self._proof_is_late(longest_s)
                return
            self._stuck = True
            self.kill(f"it was stuck in one prediction for {longest_s:g} s")

    def _begin_oldest(self, now: float) -> None:
        """Begin the time of a request that is the oldest from now on."""
        self._oldest_since, self._pauses_left = now, _PAUSES

    def _restart_oldest(self) -> None:
        """Begin that time anew, a bounded number of times: the worker has finished other work."""
        if self._pauses_left:
            self._pauses_left -= 1
            self._oldest_since = self._loop.time()

    async def probe(self, timeout_s: float) -> messages.Alive:
        """Let the worker predict its example and measure itself.

        Raises:
            TimeoutError: The worker did not reply in time.
            NotDeliveredError: The replica is not ready, or died meanwhile.
        """
        if self.state is not ReplicaState.READY or self._channel is None or self._probe is not None:
            raise NotDeliveredError
        self._probe = asyncio.get_running_loop().create_future()
        if not self._probe_is_out:  # else the reply to the last probe, which timed out, is next
            self._probe_is_out = True
            self._channel.send(Kind.PROBE, 0, b"{}")
        try:
            async with asyncio.timeout(timeout_s):
                alive = await self._probe
        finally:
            self._probe = None
        self.private_bytes = alive.private_bytes
        self.gpu_bytes = alive.gpu_bytes
        self.example_s = alive.example_s
        return alive

    # --- end --------------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Take no more requests and end; nothing may be in flight."""
        if self.state is ReplicaState.STOPPED:
            return
        self.end_reason = reason
        self._is_ended_by_owner = True
        if self._channel is None or not self._channel.is_open:
            self.kill(reason)
            return
        self.state = ReplicaState.DRAINING
        self._loop.call_later(_STOP_GRACE_S, self.kill, reason)
        self._channel.send(Kind.STOP, 0, b"{}")

    def kill(self, reason: str) -> None:
        """End the worker and its process group at once; ``on_stopped`` follows."""
        if self.state is ReplicaState.STOPPED:
            return
        self.end_reason = reason
        self._is_ended_by_owner = True
        if self._worker is None:
            self._end()
            return
        self.state = ReplicaState.DRAINING
        release_all(self._worker.kill)

    async def wait_stopped(self) -> None:
        """Wait until the process has ended and everything is released.

        Raises:
            TimeoutError: The kernel did not end a killed process in 30 s.
        """
        async with asyncio.timeout(_KILL_WAIT_S):
            await self._stopped.wait()

    # --- the worker's messages --------------------------------------------------------------------

    def _received(self, frame: Frame) -> None:
        try:
            self._handle(frame)
        except InvalidMessageError as error:
            self._garbled(str(error))
        except Exception:  # noqa: BLE001  # a fault of ours ends only the worker that met it
            _log.exception("frame.failed", replica=self.name, kind=frame.kind)
            self._distrust("the gateway failed on a message of the worker")

    def _handle(self, frame: Frame) -> None:
        self._last_frame_at = self._loop.time()
        if frame.kind in _REPLIES:
            self._handle_reply(frame)
        elif frame.kind == Kind.ALIVE:
            self._handle_alive(frame)
        elif frame.kind in _OF_PROOFS:
            self._handle_proof(frame)
        elif frame.kind in _OF_LOADS:
            self._handle_load(frame)
        else:
            raise InvalidMessageError(f"a message of kind {frame.kind}, which no worker sends")

    def _distrust(self, reason: str) -> None:
        """Read no more messages of this worker, and end it."""
        if not self._invalid:
            self._invalid = reason
            _log.warning("worker.distrusted", replica=self.name, pid=self.pid, reason=reason)
        self._end_start(LoadError("load_failed", reason))
        self.kill(reason)
        if self._channel is not None:
            self._channel.close()

    def _garbled(self, reason: str) -> None:
        self._distrust(f"{_INVALID}: {reason}")

    def _handle_alive(self, frame: Frame) -> None:
        if not self._probe_is_out:
            raise InvalidMessageError("a reply to no probe")
        alive = read_message(messages.Alive, frame.header)
        self._probe_is_out = False
        self._restart_oldest()
        if self._probe is not None and not self._probe.done():
            self._probe.set_result(alive)

    def _handle_reply(self, frame: Frame) -> None:
        request = self._pop_request(frame.id)
        if request is None:
            raise InvalidMessageError("a reply to a request that is not inside the worker")
        self._rate.answered(self._last_frame_at)
        try:
            self._answer(request, frame)
        except InvalidMessageError:
            if not request.reply.done():
                request.reply.set_exception(
                    WorkerDiedError(
                        f"the worker of {self.name} sent an invalid reply", retry_after_s=1
                    )
                )
            raise

    def _answer(self, request: InFlight, frame: Frame) -> None:
        """Pass a reply on to its caller, which may have left, and count the model's call.

        Only the time of the call counts, since the wait before it depends on other callers.
        """
        if frame.kind == Kind.REPLY:
            reply = WorkerReply(frame.body, request.answer_type, *read_reply(frame.header))
            self.answered += 1
            if not request.reply.done():
                request.reply.set_result(reply)
            self._on_request(reply.predict_s if reply.predict_s < request.limit_s else None)
            return
        error = read_failed(frame.header)
        if not request.reply.done():
            request.reply.set_exception(error)
        if isinstance(error, ModelRaisedError) and error.begun:
            self._on_request(None)

    def _pop_request(self, frame_id: int) -> InFlight | None:
        was_oldest = next(iter(self._in_flight), 0) == frame_id
        request = self._in_flight.pop(frame_id, None)
        if request is None:
            return None
        if was_oldest:
            self._begin_oldest(self._last_frame_at)
        self._in_flight_bytes -= request.body_bytes
        try:
            request.on_done()
        except Exception:  # noqa: BLE001  # its caller is answered all the same
            _log.exception("release.failed", replica=self.name)
        return request

    def _hung_up(self) -> None:
        """Expect the exit of a process whose socket has ended, or end it after a while."""
        if self.state is not ReplicaState.STOPPED:
            self.state = ReplicaState.DRAINING
            asyncio.get_running_loop().call_later(_EXIT_AFTER_EOF_S, self.kill, self.end_reason)

    def _exited(self) -> None:
        """Read the last messages of a process that has ended, then release everything."""
        steps: list[Callable[[], object]] = []
        if self._worker is not None:
            steps.append(partial(self._loop.remove_reader, self._worker.exited))
        if self._channel is not None:
            steps.append(self._channel.drain)
        release_all(*steps, partial(self._end_by_itself, _STATUS_LOOKS))

    def _end_by_itself(self, looks: int) -> None:
        """End once the exit status is known: the forkserver reports it some milliseconds later."""
        if self.state is ReplicaState.STOPPED:
            return
        if self._worker is not None and not self._is_ended_by_owner:
            self.state = ReplicaState.DRAINING
            with contextlib.suppress(Exception):  # the end counts, whatever its status
                self._exit = WorkerEnd(self._worker.exit_status())
            if self._exit.status is None and looks:
                self._loop.call_later(_STATUS_LOOK_S, self._end_by_itself, looks - 1)
                return
            self.end_reason = f"the worker {self._exit}"
        # The error of the load shows what the worker wrote last.
        read_output = [self._output.close] if self._output is not None else []
        release_all(*read_output, self._end)

    def _end(self) -> None:
        """Fail every request, release everything and report the end; no step prevents another."""
        if self.state is ReplicaState.STOPPED:
            return
        self.state = ReplicaState.STOPPED
        unsent = self._channel.unsent_ids() if self._channel else set()
        proving = self._proofs.is_under_way and not self._invalid  # then it has begun no request
        release_all(
            *(() if proving else (partial(self._count_failed, unsent),)),
            *(
                partial(self._fail, frame_id, delivered=frame_id not in unsent and not proving)
                for frame_id in list(self._in_flight)
            ),
            *([] if self._is_ended_by_owner else [self._proofs.lose]),
            self._fail_waiters,
            *self._releases(),
            self._stopped.set,
            partial(self._on_stopped, self),
        )

    def _fail_waiters(self) -> None:
        self._end_start(self._ended_early())
        if self._probe is not None and not self._probe.done():
            self._probe.set_exception(NotDeliveredError())

    def _count_failed(self, unsent: Collection[int]) -> None:
        """Count the requests that the model failed by the worker's end.

        The worker had begun its oldest request for certain. If it was stuck, the model also failed
        the requests that it has had for their whole time-out.
        """
        delivered = [one for frame_id, one in self._in_flight.items() if frame_id not in unsent]
        for one in delivered:
            stuck = self._stuck and self._loop.time() - one.began >= one.limit_s
            if stuck or one is delivered[0]:
                self._on_request(None)

    def _fail(self, frame_id: int, *, delivered: bool) -> None:
        request = self._pop_request(frame_id)
        if request is None or request.reply.done():
            return
        request.reply.set_exception(
            WorkerDiedError(
                f"the worker of {self.name} {self._exit} with this request inside",
                retry_after_s=1,
            )
            if delivered
            else NotDeliveredError()
        )

    def _releases(self) -> list[Callable[[], object]]:
        """Return the steps that release timers, sockets and the process."""
        steps: list[Callable[[], object]] = [self._proofs.close]
        if self._timer is not None:
            steps.append(self._timer.cancel)
        if self._channel is not None:
            steps.append(self._channel.close)
        if self._output is not None:
            steps.append(self._output.close)
        if self._worker is not None:
            steps += [partial(self._loop.remove_reader, self._worker.exited), self._worker.close]
        return steps
