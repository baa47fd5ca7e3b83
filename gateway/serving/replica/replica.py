"""One worker seen from the parent: its states, what is in flight inside it, and its end.

The exit of the process is known from its pidfd; end of file on the socket is a hint that it is
about to come, since a model's own child may keep the socket open.

Nothing that comes from the worker is believed: `gateway.worker_messages` reads each frame, and what
comes here twice, out of order, unasked or too often ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeVar

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
from gateway.serving.replica.output_log import WorkerOutput
from gateway.serving.replica.service_rate import Pace
from gateway.serving.replica.worker_messages import (
    NonsenseError,
    read_alive,
    read_failed,
    read_hello,
    read_load_failed,
    read_loaded,
    read_proof,
    read_reply,
)
from gateway.system import release_all
from gateway.worker.loading.proofs.proof import MAX_LOST, Proof, longest_call_s, parse
from gateway.worker.protocol import messages
from gateway.worker.protocol.frames import Frame
from gateway.worker.protocol.messages import Kind

_EXIT_AFTER_EOF_S = 2.0
_STOP_GRACE_S = 2.0
_KILL_WAIT_S = 30.0
_ANSWERS = (Kind.REPLY, Kind.FAILED)
_OF_PROOFS = (Kind.PROVING, Kind.PROVED)
_OF_HANDSHAKE = (Kind.HELLO, Kind.LOADED, Kind.LOAD_FAILED)
_PROOF_FRAMES = 512
_PROOF_FRAMES_PER_S = 64
"""Frames about proofs that a worker may send: so many at once, and so many in every second."""
_EXCUSES = 2
"""A worker may take one proof and one probe before the request whose turn it is, each once."""
_SMALL_BYTES = 64 * 1024
_LARGE_SHARE = 0.75
"""Of the bytes inside a worker: what larger bodies may take together."""
_JSON = "application/json"
_NONSENSE = "the worker speaks nonsense"
_log = structlog.get_logger("gateway.serving.replica.replica")
M = TypeVar("M")
_CLOCK_S = 0.001
"""How much earlier than asked for the event loop, whose clock is coarse, may call."""


class ReplicaState(StrEnum):
    """``STARTING → LOADING → WARMING → READY → DRAINING → STOPPED``; any → ``STOPPED`` by death.

    A replica takes leases in ``READY`` only. ``STOPPED`` is reported after the process has ended,
    so a stopped replica holds no memory.
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
    """How much one worker may hold, and how long it may take. Seconds and bytes.

    Attributes:
        load_timeout_s: From the start of the worker until the model is loaded.
        warm_up_timeout_s: From then until it is ready, its proof not counted.
        proof_s: For a proof in its warm-up.
    """

    max_in_flight: int
    max_in_flight_bytes: int
    load_timeout_s: float
    warm_up_timeout_s: float
    stuck_grace_s: float
    proof_s: float = 3.0


class WorkerReply(NamedTuple):
    """A finished body and what the worker measured on the way. Seconds."""

    body: bytes
    content_type: str
    rows: int
    queued_s: float
    predict_s: float
    batch_rows: int


@dataclass(slots=True)
class _ProofUnderWay:
    """What a worker proves now.

    Attributes:
        unproved: What is to hold if it does not come back; None: it did not say.
        late: Ends the worker if it takes too long; None: the limit of the load does.
        left_s: Seconds that were left to its warm-up when it began.
    """

    unproved: Proof | None
    late: asyncio.TimerHandle | None = None
    left_s: float = 0.0


class _Answer(asyncio.Future[WorkerReply]):
    """What a caller waits for. Cancelling it tells the worker, at no cost to those who do not."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cancel: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self._tell = cancel

    def cancel(self, msg: object = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._tell()
        return cancelled


@dataclass(slots=True)
class _InFlight:
    """A request inside the worker.

    Attributes:
        began: When it was given to the worker, in the event loop's time.
        answer_type: The content type of its answer.
        due: When to look at it: its caller's time is over; after that, whether it is stuck.
    """

    answer: asyncio.Future[WorkerReply]
    body_bytes: int
    on_done: Callable[[], None]
    timeout_s: float
    limit_s: float
    began: float
    due: float
    answer_type: str


def _uncounted(seconds: float | None) -> None:
    """Ignore what the worker did with a request."""


def _unkept(order: messages.Load, proof: Proof) -> None:
    """Nobody wants to know."""


class Replica:
    """A running worker. Its owner is the resident set; all methods run on the event loop."""

    def __init__(
        self,
        name: str,
        launcher: Launcher,
        limits: ReplicaLimits,
        on_stopped: Callable[[Replica], None],
        on_request: Callable[[float | None], None] = _uncounted,
        *,
        on_proof: Callable[[messages.Load, Proof], None] = _unkept,
    ) -> None:
        """Store.

        ``on_stopped`` is called once, when the process has ended; ``on_request`` once for each
        request that the worker had begun, whether its caller still waits or not, with the seconds
        of the model's call, or None if the model failed the request; ``on_proof`` with what the
        worker has proved of the artifact that was ordered, or what holds after it did not come back
        from a proof.
        """
        self.name = name
        self.state = ReplicaState.STARTING
        self.loaded: messages.Loaded | None = None
        self.private_bytes = 0
        self.gpu_bytes = 0
        self.example_s = 0.0
        self.answered = 0
        self._launcher = launcher
        self._limits = limits
        self._on_stopped = on_stopped
        self._on_request = on_request
        self._on_proof = on_proof
        self._order: messages.Load | None = None
        self._proof: _ProofUnderWay | None = None
        self._proved_in_warm_up = False
        self._told_to_end = False
        self._nonsense = ""
        self._stuck = False
        self._worker: WorkerProcess | None = None
        self._channel: Channel | None = None
        self._output: WorkerOutput | None = None
        self._in_flight: dict[int, _InFlight] = {}
        self._in_flight_bytes = 0
        self._next_id = 1
        self._heard_at = 0.0
        self._turn_began = 0.0  # since then the oldest request inside is the oldest
        self._excuses = 0
        self._proof_frames = float(_PROOF_FRAMES)
        self._proof_frames_at = 0.0
        self._pace = Pace()
        self._handshake: asyncio.Future[Frame] | None = None
        self._phase_limit: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf
        self._early: list[Frame] = []
        self._probe: asyncio.Future[messages.Alive] | None = None
        self._probe_is_out = False
        self._stopped = asyncio.Event()
        self.end_reason = "the worker ended by itself"

    def __repr__(self) -> str:
        """Say its state and counters."""
        pid = self._worker.pid if self._worker else None
        return f"<Replica {self.name} pid={pid} {self.state} in_flight={len(self._in_flight)}>"

    @property
    def pid(self) -> int | None:
        """The worker's process id; None before it was started."""
        return self._worker.pid if self._worker else None

    @property
    def in_flight(self) -> int:
        """Requests that the worker has been sent and has not answered."""
        return len(self._in_flight)

    def has_room(self, body_bytes: int) -> bool:
        """Whether it would take one more request with so large a body; alone, any may come.

        Large bodies leave a share of the bytes to small ones.
        """
        limits = self._limits
        most = limits.max_in_flight_bytes
        if body_bytes > _SMALL_BYTES:
            most = int(_LARGE_SHARE * most)
        if self._in_flight_bytes + body_bytes > most and self._in_flight:
            return False
        return len(self._in_flight) < limits.max_in_flight

    @property
    def service_s(self) -> float:
        """Seconds per answer while it has work, lately; 0 before the first answer."""
        return self._pace.seconds_per_answer

    def silent_s(self, now: float) -> float:
        """Return for how many seconds it has work and says nothing; 0 while it has none.

        ``now`` is the event loop's time.
        """
        return max(0.0, now - self._heard_at) if self._in_flight else 0.0

    def pace_s(self, now: float) -> float:
        """Return the seconds that one more answer takes, as far as is known; 0: nothing is known.

        Args:
            now: Monotonic seconds.
        """
        return max(self.service_s, self.silent_s(now))

    def rested_pace_s(self, now: float) -> float:
        """Return the same for one that is idle, which is forgotten as it idles.

        Args:
            now: Monotonic seconds.
        """
        return self._pace.rested_s(now)

    # --- up ---------------------------------------------------------------------------------------

    async def start(self, load: messages.Load) -> messages.Loaded:
        """Start the worker, let it check, load and warm the artifact.

        On failure the worker is ended; ``on_stopped`` comes when it is gone.

        Raises:
            LoadError: It did not come up; says why.
        """
        try:
            async with asyncio.timeout(self._limits.load_timeout_s) as self._phase_limit:
                self._worker = await self._launcher.launch(load.interpreter)
                return await self._load(self._worker, load)
        except TimeoutError as error:
            raise self._late() from error
        finally:
            if self.state not in (ReplicaState.READY, ReplicaState.STOPPED):
                self.kill("it did not come up")

    async def _load(self, worker: WorkerProcess, load: messages.Load) -> messages.Loaded:
        if self.state is not ReplicaState.STARTING:  # told to end while its process was started
            self._worker = None
            worker.close()
            raise LoadError("stopped", "it was told to end before it was ready")
        channel = self._watch(worker, load)
        hello = _believed(read_hello, await self._next_frame(Kind.HELLO))
        if hello.protocol_version != messages.PROTOCOL_VERSION:
            raise LoadError(
                "unsupported",
                f"the worker speaks protocol {hello.protocol_version}, "
                f"this gateway {messages.PROTOCOL_VERSION}",
            )
        # It may have ended since it said that: who hears a frame is woken a turn later.
        if not self._is_in(ReplicaState.STARTING):
            raise self._ended_early()
        self.state = ReplicaState.LOADING
        self._order = load
        channel.send(Kind.LOAD, 0, messages.encode_header(load))
        loaded = _believed(read_loaded, await self._next_frame(Kind.LOADED))
        if not self._is_in(ReplicaState.LOADING, ReplicaState.WARMING):
            raise self._ended_early()
        self.loaded = loaded
        if (proof := parse(loaded.proof)) is not None:
            release_all(partial(self._on_proof, load, proof))
        self.private_bytes = loaded.private_bytes
        self.gpu_bytes = loaded.gpu_bytes
        self.state = ReplicaState.READY
        early, self._early = self._early, []
        for frame in early:
            self._received(frame)
        return self.loaded

    def _is_in(self, *states: ReplicaState) -> bool:
        return self.state in states

    def _watch(self, worker: WorkerProcess, load: messages.Load) -> Channel:
        """See the end of a process, and hear what it says.

        One whose end cannot be seen is ended, and counts as ended at once: its slot would be taken
        for ever otherwise.
        """
        self._loop = loop = asyncio.get_running_loop()
        try:
            loop.add_reader(worker.exited, self._exited)
            self._channel = channel = Channel(
                worker.channel, self._received, self._hung_up, self._garbled, load.max_answer_bytes
            )
            channel.open()
            self._output = WorkerOutput(self.name, worker.output.fileno())
            self._output.open()
        except Exception as error:
            self.end_reason = "the gateway could not watch it"
            self._told_to_end = True
            self._end()
            raise LoadError("unavailable", f"a worker could not be watched: {error!r}") from error
        return channel

    def _begin_warm_up(self) -> None:
        """Let the warm-up have its own time. Once: a worker cannot prolong it."""
        if self.state is not ReplicaState.LOADING or self._phase_limit is None:
            raise NonsenseError("a warm-up begins out of its order")
        self.state = ReplicaState.WARMING
        self._phase_limit.reschedule(self._loop.time() + self._limits.warm_up_timeout_s)

    # A proof has a time of its own, so that none keeps a model from serving. Nor does one count
    # against requests: of those that come during it the worker has begun none, and another worker
    # may have them.

    def _begin_proof(self, unproved: Proof | None) -> None:
        """Let a proof have its time: in the warm-up once; later for one call of the model."""
        now, grace_s = self._loop.time(), self._limits.stuck_grace_s
        if self.state is ReplicaState.READY:
            self._end_proof()
            timeout_s = self._order.timeout_s if self._order is not None else math.inf
            limit_s = longest_call_s(self._limits.proof_s, timeout_s) + grace_s
            late = self._loop.call_later(limit_s, self._proof_is_late, limit_s)
            self._proof = _ProofUnderWay(unproved, late)
        elif self._proof is not None:
            self._proof.unproved = unproved  # it has come further
        elif self.state is ReplicaState.WARMING and not self._proved_in_warm_up:
            self._proved_in_warm_up = True
            if self._phase_limit is not None and (until := self._phase_limit.when()) is not None:
                self._proof = _ProofUnderWay(unproved, left_s=until - now)
                self._phase_limit.reschedule(now + self._limits.proof_s + grace_s)

    def _hear_of_proof(self, frame: Frame) -> None:
        self._count_proof_frame()
        if self._handshake is not None and self._handshake.done():
            self._early.append(frame)  # LOADED was heard, and is taken in the next turn
            return
        if self.state in (ReplicaState.STARTING, ReplicaState.LOADING):
            raise NonsenseError("a proof is out of its order")
        proof = read_proof(frame.header)
        if frame.kind == Kind.PROVING:
            self._begin_proof(proof)
            return
        self._end_proof()
        self._excuse()
        if proof is not None and self._order is not None:
            release_all(partial(self._on_proof, self._order, proof))
            if self.loaded is not None:
                self.loaded = with_proof(self.loaded, proof)

    def _count_proof_frame(self) -> None:
        """Refuse a flood: what a proof says is kept on disk, and nothing else bounds how often."""
        now = self._loop.time()
        earned = (now - self._proof_frames_at) * _PROOF_FRAMES_PER_S
        self._proof_frames = min(_PROOF_FRAMES, self._proof_frames + earned) - 1
        self._proof_frames_at = now
        if self._proof_frames < 0:
            raise NonsenseError("a flood of proofs")

    def _end_proof(self) -> None:
        """Note that the worker has come back from its proof."""
        proof, self._proof = self._proof, None
        if proof is not None and proof.late is not None:
            proof.late.cancel()
        elif proof is not None and self._phase_limit is not None:
            with contextlib.suppress(RuntimeError):  # it is over at this moment
                self._phase_limit.reschedule(self._loop.time() + proof.left_s)

    def _proof_is_late(self, limit_s: float) -> None:
        self._lose_proof(MAX_LOST)
        self.kill(f"it did not come back from a proof within {limit_s:g} s")

    def _lose_proof(self, lost: int | None = None) -> None:
        """Keep what is to hold after a proof from which the worker did not come back."""
        proof, order = self._proof, self._order
        if proof is not None and proof.unproved is not None and order is not None:
            unproved = proof.unproved
            self._on_proof(order, unproved if lost is None else replace(unproved, lost=lost))
            proof.unproved = None

    def _late(self) -> LoadError:
        """Say which phase took too long; without its proof, it may be in time."""
        if self._proof is not None:
            self._lose_proof(MAX_LOST)
            return LoadError("worker_died", "the worker did not come back from its proof")
        warming = self.state is ReplicaState.WARMING
        limits = self._limits
        limit_s = limits.warm_up_timeout_s if warming else limits.load_timeout_s
        undone = _UNDONE.get(self.state, "the worker was not ready")
        return LoadError("timeout", f"{undone} after {limit_s:g} s")

    async def _next_frame(self, expected: Kind) -> Frame:
        if self.state is ReplicaState.STOPPED:
            raise self._ended_early()
        self._handshake = asyncio.get_running_loop().create_future()
        try:
            frame = await self._handshake
        finally:
            self._handshake = None
        if frame.kind == Kind.LOAD_FAILED and expected == Kind.LOADED:
            failed = _believed(read_load_failed, frame)
            raise LoadError(failed.failure, failed.message)
        if frame.kind != expected:
            raise LoadError(
                "load_failed", f"{_NONSENSE}: {Kind(frame.kind).name} came, not {expected.name}"
            )
        return frame

    def _ended_early(self) -> LoadError:
        if self._nonsense:
            return LoadError("load_failed", self._nonsense)
        if self._told_to_end:
            return LoadError("stopped", "it was told to end before it was ready")
        return LoadError("worker_died", "the worker ended before it was ready")

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
        """Send a request to the worker.

        Args:
            header: An encoded `messages.Predict`.
            body: The caller's body, untouched.
            timeout_s: After which the caller is answered with `DeadlineExceededError`; the place
                inside the worker is freed when the worker has let go of it.
            limit_s: The model's own time-out, which is no shorter: a worker that has the oldest
                request for longer than this and a grace is stuck, however little time its callers
                have, and whatever else it answers.
            on_done: Called once, when the worker has answered or is gone.
            answer_type: The content type of the protocol's answers.

        Returns:
            The answer. Cancelling it tells the worker to skip the request if it has not begun.

        Raises:
            NotDeliveredError: The replica is not ready; ``on_done`` is not called.
            ModelOverloadedError: Too much is in flight; ``on_done`` is not called.
        """
        if self.state is not ReplicaState.READY or self._channel is None:
            raise NotDeliveredError
        if not self.has_room(len(body)):
            raise ModelOverloadedError(
                f"{len(self._in_flight)} requests of {self.name} are in flight",
                retry_after_s=self._pace.retry_after_s(len(self._in_flight)),
            )
        loop = self._loop
        frame_id = self._next_id
        self._next_id += 1
        answer = _Answer(loop, partial(self._cancel, frame_id))
        now = loop.time()
        if not self._in_flight:
            self._heard_at = now  # it had nothing to say until now
            self._begin_turn(now)
            self._pace.began(now)
        due = now + timeout_s
        self._in_flight[frame_id] = _InFlight(
            answer, len(body), on_done, timeout_s, limit_s, now, due, answer_type
        )
        self._in_flight_bytes += len(body)
        if due < self._look_at:
            self._look_later(due)
        self._channel.send(Kind.PREDICT, frame_id, header, body)
        return answer

    def _cancel(self, frame_id: int) -> None:
        if frame_id in self._in_flight and self._channel is not None and self._channel.is_open:
            self._channel.send(Kind.CANCEL, frame_id, b"{}")

    # One timer for all that is inside: one for each would cost every request two calls.

    def _look_later(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Look at every request whose time has come; see to it that the others are looked at.

        What the worker has said by now is heard first: a gateway that was held up judges nobody for
        the time in which it did not listen.
        """
        self._timer, self._look_at = None, math.inf
        if self._channel is not None:
            release_all(self._channel.read_waiting)
        now = self._loop.time() + _CLOCK_S
        for frame_id, request in list(self._in_flight.items()):
            if request.due <= now and self.state is not ReplicaState.STOPPED:
                request.due = math.inf  # it is looked at once, whatever becomes of that
                release_all(partial(self._overdue, frame_id, request))
        due = min((request.due for request in self._in_flight.values()), default=math.inf)
        if due < math.inf and self.state is not ReplicaState.STOPPED:
            self._look_later(due)

    def _overdue(self, frame_id: int, request: _InFlight) -> None:
        """Tell a caller that its time is over; end the worker if it is stuck; else look again.

        A worker takes the oldest request into its next batch. So it is stuck if it has the oldest
        one for longer than any batch may take, since that is the oldest: whether it is silent, or
        answers others. A request may well wait behind the batches of others for longer than that.

        A worker in a proof has not begun it: then it may be given to another one, and if the oldest
        one waits for too long, its proof is to blame.
        """
        if not request.answer.done():
            told = f"no answer within {request.timeout_s:g} s"
            begun = self._proof is None
            request.answer.set_exception(
                DeadlineExceededError(told) if begun else NotDeliveredError()
            )
            self._cancel(frame_id)
        oldest = next(iter(self._in_flight.values()), request)
        longest_s = oldest.limit_s + self._limits.stuck_grace_s
        request.due = self._turn_began + longest_s
        if request.due <= self._loop.time():
            request.due = math.inf
            if self._proof is not None:
                self._proof_is_late(longest_s)
                return
            self._stuck = True
            self.kill(f"it was stuck in one prediction for {longest_s:g} s")

    def _begin_turn(self, now: float) -> None:
        """Note that another request is the oldest now."""
        self._turn_began, self._excuses = now, _EXCUSES

    def _excuse(self) -> None:
        """Begin the time of the oldest request anew: the worker did something else that is due."""
        if self._excuses:
            self._excuses -= 1
            self._turn_began = self._loop.time()

    async def probe(self, timeout_s: float) -> messages.Alive:
        """Ask the worker to predict its example and to measure itself.

        Raises:
            TimeoutError: It did not answer in time.
            NotDeliveredError: It is not ready, or died meanwhile.
        """
        if self.state is not ReplicaState.READY or self._channel is None or self._probe is not None:
            raise NotDeliveredError
        self._probe = asyncio.get_running_loop().create_future()
        if not self._probe_is_out:  # else the answer to the last one, which came to no end, is next
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

    # --- down -------------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Take no more requests and end; whoever calls has seen that nothing is in flight."""
        if self.state is ReplicaState.STOPPED:
            return
        self.end_reason = reason
        self._told_to_end = True
        if self._channel is None or not self._channel.is_open:
            self.kill(reason)
            return
        self.state = ReplicaState.DRAINING
        self._loop.call_later(_STOP_GRACE_S, self.kill, reason)
        self._channel.send(Kind.STOP, 0, b"{}")

    def kill(self, reason: str) -> None:
        """End the worker and its process group at once. Its exit is reported as ever."""
        if self.state is ReplicaState.STOPPED:
            return
        self.end_reason = reason
        self._told_to_end = True
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

    # --- what comes from the worker ---------------------------------------------------------------

    def _received(self, frame: Frame) -> None:
        try:
            self._hear(frame)
        except NonsenseError as error:
            self._disbelieve(f"{_NONSENSE}: {error}")
        except Exception:  # noqa: BLE001  # the fault is ours; the worker that met it goes
            _log.exception("frame.failed", replica=self.name, kind=frame.kind)
            self._disbelieve("the gateway failed on what the worker said")

    def _hear(self, frame: Frame) -> None:
        self._heard_at = self._loop.time()
        if frame.kind in _ANSWERS:
            self._hear_answer(frame)
        elif frame.kind == Kind.ALIVE:
            self._hear_alive(frame)
        elif frame.kind in _OF_PROOFS:
            self._hear_of_proof(frame)
        elif frame.kind == Kind.WARMING:
            self._begin_warm_up()
        elif frame.kind not in _OF_HANDSHAKE:
            raise NonsenseError(f"a message of kind {frame.kind}, which no worker sends")
        elif self._handshake is None or self._handshake.done():
            raise NonsenseError(f"{Kind(frame.kind).name} is out of its order")
        else:
            self._handshake.set_result(frame)

    def _disbelieve(self, reason: str) -> None:
        """Hear no more of this worker, and end it."""
        if not self._nonsense:
            self._nonsense = reason
            _log.warning("worker.disbelieved", replica=self.name, pid=self.pid, reason=reason)
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(LoadError("load_failed", reason))
        self.kill(reason)
        if self._channel is not None:
            self._channel.close()

    def _garbled(self, reason: str) -> None:
        self._disbelieve(f"{_NONSENSE}: {reason}")

    def _hear_alive(self, frame: Frame) -> None:
        if not self._probe_is_out:
            raise NonsenseError("an answer to a probe that nobody asked for")
        alive = read_alive(frame.header)
        self._probe_is_out = False
        self._excuse()
        if self._probe is not None and not self._probe.done():
            self._probe.set_result(alive)

    def _hear_answer(self, frame: Frame) -> None:
        request = self._take(frame.id)
        if request is None:
            raise NonsenseError("an answer to a request that it does not have")
        self._pace.answered(self._heard_at)
        try:
            self._answer(request, frame)
        except NonsenseError:
            if not request.answer.done():
                request.answer.set_exception(
                    WorkerDiedError(f"the worker of {self.name} speaks nonsense", retry_after_s=1)
                )
            raise

    def _answer(self, request: _InFlight, frame: Frame) -> None:
        """Give an answer to its caller, who may have left, and count what the model did.

        The time that counts is that of the model's call: the wait before it depends on what other
        callers have sent.
        """
        answer = request.answer
        if frame.kind == Kind.REPLY:
            reply = WorkerReply(frame.body, request.answer_type, *read_reply(frame.header))
            self.answered += 1
            if not answer.done():
                answer.set_result(reply)
            self._on_request(reply.predict_s if reply.predict_s < request.limit_s else None)
            return
        error = read_failed(frame.header)
        if not answer.done():
            answer.set_exception(error)
        if isinstance(error, ModelRaisedError) and error.begun:
            self._on_request(None)

    def _take(self, frame_id: int) -> _InFlight | None:
        was_oldest = next(iter(self._in_flight), 0) == frame_id
        request = self._in_flight.pop(frame_id, None)
        if request is None:
            return None
        if was_oldest:
            self._begin_turn(self._heard_at)
        self._in_flight_bytes -= request.body_bytes
        try:
            request.on_done()
        except Exception:  # noqa: BLE001  # its caller is answered all the same
            _log.exception("release.failed", replica=self.name)
        return request

    def _hung_up(self) -> None:
        """The socket ended. The process should be about to; otherwise it is made to."""
        if self.state is not ReplicaState.STOPPED:
            if self.state is not ReplicaState.DRAINING:
                self.state = ReplicaState.DRAINING
            asyncio.get_running_loop().call_later(_EXIT_AFTER_EOF_S, self.kill, self.end_reason)

    def _exited(self) -> None:
        """The process has ended: read what it still said, then fail the rest."""
        drain = [self._channel.drain] if self._channel is not None else []
        release_all(*drain, self._end)

    def _end(self) -> None:
        """Report what has ended with the process, and release all; each step whatever raises."""
        if self.state is ReplicaState.STOPPED:
            return
        self.state = ReplicaState.STOPPED
        unsent = self._channel.unsent_ids() if self._channel else set()
        # While it proves something, it has begun no request.
        proving = self._proof is not None and not self._nonsense
        release_all(
            *(() if proving else (partial(self._count_failed, unsent),)),
            *(
                partial(self._fail, frame_id, delivered=frame_id not in unsent and not proving)
                for frame_id in list(self._in_flight)
            ),
            self._lose_proof_if_died,
            self._tell_who_waits,
            *self._releases(),
            self._stopped.set,
            partial(self._on_stopped, self),
        )

    def _lose_proof_if_died(self) -> None:
        if not self._told_to_end:
            self._lose_proof()

    def _tell_who_waits(self) -> None:
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(self._ended_early())
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
        request = self._take(frame_id)
        if request is None:
            return
        if request.answer.done():
            return
        request.answer.set_exception(
            WorkerDiedError(
                f"the worker of {self.name} ended with this request inside", retry_after_s=1
            )
            if delivered
            else NotDeliveredError()
        )

    def _releases(self) -> list[Callable[[], object]]:
        """Return the steps that release all that this holds: no step needs another one."""
        steps: list[Callable[[], object]] = []
        if self._proof is not None and self._proof.late is not None:
            steps.append(self._proof.late.cancel)
        if self._timer is not None:
            steps.append(self._timer.cancel)
        if self._channel is not None:
            steps.append(self._channel.close)
        if self._output is not None:
            steps.append(self._output.close)
        if self._worker is not None:
            steps += [
                partial(self._loop.remove_reader, self._worker.exited),
                self._worker.close,  # and ends what a dead leader left of its session
            ]
        return steps


def _believed(read: Callable[[bytes], M], frame: Frame) -> M:
    """Read what a worker says while it comes up.

    Raises:
        LoadError: It is not what a worker of ours says.
    """
    try:
        return read(frame.header)
    except NonsenseError as error:
        raise LoadError("load_failed", f"{_NONSENSE}: {error}") from error


def with_proof(loaded: messages.Loaded, proof: Proof) -> messages.Loaded:
    """Return what a worker has said of itself, as it is with what it has proved since."""
    return replace(
        loaded,
        batching=proof.batching,
        batching_reason=proof.batching_reason,
        call_path=proof.call_path,
        call_path_reason=proof.call_path_reason,
        answers=proof.answers,
        joined_rows=proof.joined_rows,
        proof=proof.as_header(),
    )


def clock_deadline(timeout_s: float) -> float:
    """Return the absolute deadline that workers understand (``CLOCK_MONOTONIC``, seconds)."""
    return time.monotonic() + timeout_s
