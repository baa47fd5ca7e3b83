"""The resident set: which versions have a worker now, who may use one, and who makes room.

Bounded by count and by measured bytes, over workers of every state. A version has one load however
many wait for it. A lease is taken in the step that chooses the replica, and handed to a waiter in
the step in which the replica becomes ready: between the two nothing can evict it.

Everything here runs on the event loop, so a method without ``await`` is a critical section.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from gateway.errors import (
    DrainingError,
    GatewayError,
    InsufficientMemoryError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
)
from gateway.replica import Replica, ReplicaState
from gateway.room import ReplicaKey, ResidentLimits, ResidentView, Room, plan_eviction
from gateway.track_record import TrackRecord
from gateway.worker import messages

_MIB = 1024 * 1024
BASE_WORKER_BYTES = 32 * _MIB
"""Private pages of a forked worker before its model: what an estimate starts from."""
OWN_WORKER_BYTES = 192 * _MIB
"""As much of a worker under its own interpreter, which shares no imported library with anybody."""
TURN_WAIT_S = 1.0
"""After so long without an idle victim, the least recently used replica takes no new leases, so
that steady traffic on the residents cannot keep a newcomer out for ever."""
LOADS_AT_ONCE = 2
_LOAD_TRIES = 3
_ENDS_WITHIN_S = 10.0


class Observer(Protocol):
    """Who is told of loads and ends; for metrics and logs, never for decisions."""

    def loaded(self, key: ReplicaKey, seconds: float, resident_bytes: int) -> None:
        """A worker is ready."""

    def load_failed(self, key: ReplicaKey, failure: str, message: str) -> None:
        """A worker did not come up."""

    def ended(self, key: ReplicaKey, reason: str, *, evicted: bool) -> None:
        """A worker that was ready has ended."""


@dataclass(slots=True)
class Resident:
    """One version in the set: waiting for room, coming up, ready, or going.

    Attributes:
        stages: Stages that have this version as standby, or as the one being replaced: while there
            are any, it is spared.
        pausing: Queued, but not to be loaded yet: its worker was killed a moment ago.
    """

    key: ReplicaKey
    bytes: int
    last_used: float
    give_up_at: float
    replica: Replica | None = None
    ending: bool = False
    evicted: bool = False
    closed_to_new: bool = False
    leases: int = 0
    stages: set[str] = field(default_factory=set)
    waiters: deque[asyncio.Future[Lease]] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None
    started_at: float = 0.0
    pausing: bool = False

    @property
    def ready(self) -> bool:
        """Whether leases may be taken."""
        return (
            self.replica is not None
            and self.replica.state is ReplicaState.READY
            and not self.closed_to_new
            and not self.ending
        )

    def view(self) -> ResidentView:
        """Return what a decision may see."""
        idle = self.replica is not None and self.replica.state is ReplicaState.READY
        return ResidentView(
            key=self.key,
            bytes=self.bytes,
            leases=self.leases if idle else max(self.leases, 0 if self.ending else 1),
            last_used=self.last_used,
            spared=bool(self.stages),
            ending=self.ending,
        )


class Lease:
    """The right to send one request to a replica: while it lasts, nothing evicts the replica."""

    __slots__ = ("_released", "_set", "resident")

    def __init__(self, resident_set: ResidentSet, resident: Resident) -> None:
        """Store; the set has counted it already."""
        self._set = resident_set
        self.resident = resident
        self._released = False

    @property
    def replica(self) -> Replica:
        """The leased replica."""
        if self.resident.replica is None:
            raise AssertionError("a lease is taken on a ready replica only")
        return self.resident.replica

    def release(self) -> None:
        """Give the right back. Twice is once."""
        if not self._released:
            self._released = True
            self._set.released(self.resident)


class ResidentSet:
    """Owner of every replica."""

    def __init__(
        self,
        *,
        limits: ResidentLimits,
        load_budget_s: float,
        max_waiting: int,
        new_replica: Callable[[ReplicaKey, Callable[[Replica], None]], Replica],
        prepare: Callable[[ReplicaKey], Awaitable[messages.Load]],
        estimate: Callable[[ReplicaKey], int],
        observer: Observer,
        shared_bytes: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store.

        Args:
            limits: The most workers, and the most bytes.
            load_budget_s: How long a load may wait for room before its waiters are told.
            max_waiting: The most requests that wait for one version.
            new_replica: Builds a replica; told whom to call when it has stopped.
            prepare: Reads what the worker needs to know from the artifact store.
            estimate: Guesses the bytes of a version that was never measured.
            observer: Told of loads and ends.
            shared_bytes: What the forkserver holds; counts once.
            clock: Monotonic seconds.
        """
        self._limits = limits
        self._load_budget_s = load_budget_s
        self._max_waiting = max_waiting
        self._new_replica = new_replica
        self._prepare = prepare
        self._estimate = estimate
        self._observer = observer
        self._shared_bytes = shared_bytes
        self._clock = clock
        self._residents: dict[ReplicaKey, Resident] = {}
        self._queue: deque[Resident] = deque()
        self._loads: set[asyncio.Task[None]] = set()
        self.track_record = TrackRecord(clock)
        self._shared = 0
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        """Say the counters."""
        ready = sum(resident.ready for resident in self._residents.values())
        ending = sum(resident.ending for resident in self._residents.values())
        leases = sum(resident.leases for resident in self._residents.values())
        return (
            f"<ResidentSet {len(self._residents)} workers of {self._limits.count}: {ready} ready, "
            f"{ending} ending; {len(self._queue)} queued; {leases} leases>"
        )

    # --- leases -----------------------------------------------------------------------------------

    def try_lease(self, key: ReplicaKey) -> Lease | None:
        """Take a lease if a ready replica is there: the step of nearly every request."""
        resident = self._residents.get(key)
        return self._take(resident) if resident is not None and resident.ready else None

    async def lease(self, key: ReplicaKey) -> Lease:
        """Take a lease, starting or joining the one load of this version.

        A caller that is cancelled leaves the load alone.

        Raises:
            ModelLoadingError: Not ready within the load budget.
            ModelOverloadedError: Too many wait for it already.
            ModelLoadFailedError: The load failed, or failed a moment ago.
            InsufficientMemoryError: It would not fit in an empty set.
            DrainingError: The gateway is shutting down.
        """
        lease = self.try_lease(key)
        return lease or await self._wait(self._join(key), self._load_budget_s)

    async def _wait(self, resident: Resident, wait_s: float) -> Lease:
        if len(resident.waiters) >= self._max_waiting:
            raise ModelOverloadedError(
                f"{len(resident.waiters)} requests wait for {resident.key} already",
                retry_after_s=self.track_record.expected_load_s(resident.key),
            )
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        resident.waiters.append(waiter)
        try:
            async with asyncio.timeout(wait_s):
                return await waiter
        except TimeoutError as error:
            self._leave(resident, waiter)
            raise ModelLoadingError(
                f"{resident.key} is still loading after {wait_s:g} s",
                retry_after_s=self.track_record.expected_load_s(resident.key),
            ) from error
        except asyncio.CancelledError:
            self._leave(resident, waiter)
            raise

    def released(self, resident: Resident) -> None:
        """Take a lease back; the last one may make room for somebody who waits."""
        resident.leases -= 1
        resident.last_used = self._clock()
        self._changed.set()
        if resident.leases == 0:
            if resident.closed_to_new:
                self._end(resident, "evicted: it had its turn", evicted=True)
            elif self._queue:
                self._pump()

    # --- standbys ---------------------------------------------------------------------------------

    async def stage(
        self, key: ReplicaKey, stage_id: str, *, replaces: ReplicaKey | None, wait_s: float
    ) -> messages.Loaded:
        """Bring a version up and spare it, and the one that it replaces, until ``unstage``.

        Raises:
            LoadError: It did not come up, or found no room within ``wait_s`` seconds.
        """
        old = self._residents.get(replaces) if replaces is not None else None
        if old is not None:
            old.stages.add(stage_id)
        self.track_record.forgive(key)
        try:
            lease = self.try_lease(key)
            if lease is None:
                resident = self._join(key)
                resident.stages.add(stage_id)
                lease = await self._wait(resident, wait_s)
        except BaseException as error:
            self.unstage(stage_id)
            if isinstance(error, GatewayError):
                raise _as_load_error(error) from error
            raise
        lease.resident.stages.add(stage_id)
        loaded = lease.replica.loaded
        lease.release()
        if loaded is None:
            raise AssertionError("a ready replica has been loaded")
        return loaded

    def unstage(self, stage_id: str) -> None:
        """Stop sparing what a stage spared: it was activated, failed, or ran out of time."""
        for resident in (*self._residents.values(), *self._queue):
            resident.stages.discard(stage_id)
        self._pump()

    def demote(self, key: ReplicaKey) -> None:
        """Make a resident the least recently used: warmed once, it stays out of the way."""
        if (resident := self._residents.get(key)) is not None:
            resident.last_used = 0.0

    def is_ready(self, key: ReplicaKey) -> bool:
        """Whether a worker serves this version now."""
        resident = self._residents.get(key)
        return resident is not None and resident.ready

    def residents(self) -> list[Resident]:
        """Return every member of the set, least recently used first."""
        return sorted(self._residents.values(), key=lambda resident: resident.last_used)

    def digests(self) -> set[str]:
        """Return the artifacts that a worker runs on, or is about to be started on."""
        return {one.key.digest for one in (*self._residents.values(), *self._queue)}

    def retire(self, key: ReplicaKey, reason: str) -> None:
        """Drain and end a version: no new leases; it ends with its last one."""
        resident = self._residents.get(key)
        if resident is None:
            return
        resident.closed_to_new = True
        if resident.leases == 0:
            self._end(resident, reason, evicted=False)

    async def close(self, drain_s: float) -> None:
        """Take no new leases, wait for those there are, end every worker.

        Args:
            drain_s: How long to wait for leases, in seconds.
        """
        self._closed = True
        for resident in list(self._queue):
            self._drop(resident, DrainingError("the gateway is shutting down"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._until(lambda: not any(one.leases for one in self._residents.values()))
        for task in list(self._loads):
            task.cancel()
        for resident in list(self._residents.values()):
            self._end(resident, "the gateway is shutting down", evicted=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._until(lambda: not self._residents)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- one load per version ---------------------------------------------------------------------

    def _take(self, resident: Resident) -> Lease:
        resident.leases += 1
        resident.last_used = self._clock()
        return Lease(self, resident)

    def _leave(self, resident: Resident, waiter: asyncio.Future[Lease]) -> None:
        with contextlib.suppress(ValueError):
            resident.waiters.remove(waiter)
        # A lease may have been put into the future after its caller had given up on it.
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().release()

    def _join(self, key: ReplicaKey) -> Resident:
        if self._closed:
            raise DrainingError("the gateway is shutting down")
        resident = self._residents.get(key)
        if resident is not None and not resident.ending and not resident.closed_to_new:
            return resident
        queued = next((one for one in self._queue if one.key == key), None)
        if queued is not None:
            return queued
        now = self._clock()
        pause_s = self.track_record.pause_s(key)
        resident = Resident(
            key=key,
            bytes=self.track_record.bytes_of(key) or self._guess(key),
            last_used=now,
            give_up_at=now + self._load_budget_s,
            pausing=pause_s > 0,
        )
        self._queue.append(resident)
        loop = asyncio.get_running_loop()
        if resident.pausing:
            loop.call_later(pause_s, self._end_pause, resident)
        resident.timer = loop.call_later(min(TURN_WAIT_S, self._load_budget_s), self._turn, key)
        # In the next turn: whoever joins here has still to add its waiter, to be told a refusal.
        loop.call_soon(self._pump)
        return resident

    def _guess(self, key: ReplicaKey) -> int:
        """Guess the bytes of a first load: never so many that it is not even tried."""
        return min(self._estimate(key), self._room().bytes)

    def _end_pause(self, resident: Resident) -> None:
        resident.pausing = False
        self._pump()

    def _pump(self) -> None:
        """Start what fits, oldest first; evict for the oldest that does not."""
        while not self._closed:
            # Whose predecessor is still ending, or who pauses, waits for that; others need not.
            resident = next((one for one in self._queue if self._may_start(one)), None)
            if resident is None or self._loading() >= LOADS_AT_ONCE:
                return
            views = [one.view() for one in self._residents.values()]
            plan = plan_eviction(views, resident.bytes, self._room())
            if plan.room is Room.NEVER:
                self._drop(resident, self._too_big(resident))
                continue
            for victim in plan.victims:
                self._end(self._residents[victim], "evicted: room was needed", evicted=True)
            if plan.room is Room.WAIT and all(view.spared and not view.ending for view in views):
                self._drop(resident, self._no_room_beside_spared(resident))
                continue
            if plan.room is not Room.FITS:
                return
            self._queue.remove(resident)
            self._start(resident)

    def _may_start(self, queued: Resident) -> bool:
        return queued.key not in self._residents and not queued.pausing

    def _room(self) -> ResidentLimits:
        """Return what is left for workers."""
        return replace(self._limits, bytes=self._limits.bytes - self._shared)

    def _loading(self) -> int:
        """Count the loads under way; one that takes longer than callers wait holds up nobody."""
        slow = self._clock() - self._load_budget_s
        return sum(
            one.replica is not None
            and one.replica.loaded is None
            and not one.ending
            and one.started_at > slow
            for one in self._residents.values()
        )

    def _no_room_beside_spared(self, resident: Resident) -> ModelLoadingError:
        return ModelLoadingError(
            f"no room for {resident.key} beside versions that are being replaced or staged: this "
            f"gateway may have {self._limits.count} workers and {self._limits.bytes // _MIB} MiB",
            retry_after_s=self.track_record.expected_load_s(resident.key),
        )

    def _turn(self, key: ReplicaKey) -> None:
        """A queued load has waited long: somebody busy must go, or the load is given up."""
        resident = next((one for one in self._queue if one.key == key), None)
        if resident is None:
            return
        now = self._clock()
        if now >= resident.give_up_at and not resident.stages:
            error = ModelLoadingError(
                f"no worker could make room for {key} within {self._load_budget_s:g} s",
                retry_after_s=self.track_record.expected_load_s(key),
            )
            self._drop(resident, error)
            return
        if self._waits_for_room(resident):
            busy = [one for one in self.residents() if one.leases and one.ready and not one.stages]
            if busy:
                busy[0].closed_to_new = True
        self._pump()
        resident.timer = asyncio.get_running_loop().call_later(TURN_WAIT_S, self._turn, key)

    def _waits_for_room(self, queued: Resident) -> bool:
        """Whether nothing but busy residents stands in the way of the next load."""
        following = next((one for one in self._queue if self._may_start(one)), None)
        if queued is not following or self._loading() >= LOADS_AT_ONCE:
            return False
        if any(one.ending or one.closed_to_new for one in self._residents.values()):
            return False
        views = [one.view() for one in self._residents.values()]
        return plan_eviction(views, queued.bytes, self._room()).room is Room.WAIT

    def _drop(self, resident: Resident, error: Exception) -> None:
        with contextlib.suppress(ValueError):
            self._queue.remove(resident)
        self._tell(resident, error)

    def _tell(self, resident: Resident, error: Exception) -> None:
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = None
        while resident.waiters:
            waiter = resident.waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _too_big(self, resident: Resident) -> InsufficientMemoryError:
        return InsufficientMemoryError(
            f"{resident.key} needs about {resident.bytes // _MIB} MiB; "
            f"this gateway may use {self._limits.bytes // _MIB} MiB"
        )

    def _start(self, resident: Resident) -> None:
        self._residents[resident.key] = resident
        resident.started_at = self._clock()
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = None
        self._new_worker(resident)
        task = asyncio.get_running_loop().create_task(self._load(resident))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    def _new_worker(self, resident: Resident) -> Replica:
        resident.replica = self._new_replica(
            resident.key, lambda replica: self._stopped(resident, replica)
        )
        return resident.replica

    async def _load(self, resident: Resident) -> None:
        """Bring a worker up. Whatever happens, its waiters are told."""
        started = self._clock()
        try:
            load = await self._prepare(resident.key)
            self._shared = await asyncio.to_thread(self._shared_bytes)
            await self._load_in_tries(resident, load)
        except LoadError as error:
            self._failed(resident, error)
        except asyncio.CancelledError:
            self._tell(resident, DrainingError("the gateway is shutting down"))
            self._end(resident, "its load was cancelled", evicted=False)
            raise
        except Exception as error:  # noqa: BLE001  # no waiter may be left without an answer
            self._failed(resident, LoadError("load_failed", f"internal error: {error!r}"))
        else:
            self._ready(resident, self._clock() - started)

    async def _load_in_tries(self, resident: Resident, load: messages.Load) -> None:
        """A worker that dies while it loads, by somebody's hand, does not fail its waiters."""
        for left in reversed(range(_LOAD_TRIES)):
            replica = resident.replica or self._new_worker(resident)
            try:
                await replica.start(load)
            except LoadError as error:
                told_to_end = resident.ending or self._closed
                if error.failure != "worker_died" or left == 0 or told_to_end:
                    raise
                await replica.wait_stopped()
                resident.replica = None
            else:
                return

    def _ready(self, resident: Resident, seconds: float) -> None:
        replica = resident.replica
        if replica is None or replica.state is not ReplicaState.READY:
            self._failed(resident, LoadError("worker_died", "the worker died as it became ready"))
            return
        resident.bytes = replica.private_bytes
        self.track_record.loaded(resident.key, seconds, resident.bytes)
        self._observer.loaded(resident.key, seconds, resident.bytes)
        if resident.bytes > self._room().bytes:
            error = self._too_big(resident)
            self._tell(resident, error)
            self._end(resident, "too big for this gateway", evicted=False)
            return
        while resident.waiters:
            waiter = resident.waiters.popleft()
            if not waiter.done():
                waiter.set_result(self._take(resident))
        self._trim()
        self._pump()

    def measured(self, resident: Resident, private_bytes: int) -> None:
        """Take what a worker has measured of itself since; some go if it is too much.

        What it has grown to is no measure of the next load: that begins with what the last one
        held when it was ready.
        """
        resident.bytes = private_bytes
        self._trim()

    def _trim(self) -> None:
        """End idle residents while more bytes are held than allowed; else the biggest busy one.

        An estimate was too low, or a worker grows.
        """
        plan = plan_eviction(
            [one.view() for one in self._residents.values()],
            0,
            replace(self._room(), count=self._limits.count + 1),
        )
        for victim in plan.victims:
            self._end(self._residents[victim], "evicted: too many bytes are held", evicted=True)
        if plan.room is not Room.WAIT:
            return
        staying = [one for one in self._residents.values() if not one.ending]
        staying = [one for one in staying if not one.closed_to_new]
        busy = [one for one in staying if one.leases and one.ready and not one.stages]
        if busy and sum(one.bytes for one in staying) > self._room().bytes:
            max(busy, key=lambda one: one.bytes).closed_to_new = True

    def _failed(self, resident: Resident, error: LoadError) -> None:
        if resident.ending:  # told to end while it was coming up: that is no fault of the version
            return
        pause_s = self.track_record.load_failed(resident.key, error.message)
        self._observer.load_failed(resident.key, error.failure, error.message)
        failed = ModelLoadFailedError(
            f"{resident.key} could not be loaded: {error.message}", retry_after_s=pause_s
        )
        failed.__cause__ = error
        self._tell(resident, failed)
        self._end(resident, f"its load failed: {error.message}", evicted=False)

    # --- ends -------------------------------------------------------------------------------------

    def _end(self, resident: Resident, reason: str, *, evicted: bool) -> None:
        if resident.ending:
            return
        resident.ending = True
        resident.evicted = evicted
        if resident.replica is None or resident.replica.state is ReplicaState.STOPPED:
            self._gone(resident, reason, was_ready=False)
        elif resident.leases:
            resident.replica.kill(reason)
        else:
            resident.replica.stop(reason)

    def _stopped(self, resident: Resident, replica: Replica) -> None:
        """A worker has ended: asked to, or by itself, or killed by somebody."""
        if resident.replica is not replica:
            return
        if replica.loaded is None and not resident.ending:
            return  # its load is told by the replica, and decides
        if not resident.ending:
            had_answered = replica.answered > 0
            self.track_record.died(resident.key, replica.end_reason, had_answered=had_answered)
        self._gone(resident, replica.end_reason, was_ready=replica.loaded is not None)

    def _gone(self, resident: Resident, reason: str, *, was_ready: bool) -> None:
        resident.ending = True
        if self._residents.get(resident.key) is resident:
            del self._residents[resident.key]
        if was_ready:
            self._observer.ended(resident.key, reason, evicted=resident.evicted)
        self._changed.set()
        self._pass_on_waiters(resident)
        self._pump()

    def _pass_on_waiters(self, gone: Resident) -> None:
        """Callers who joined a worker in the moment of its death wait for the next one."""
        waiters = [waiter for waiter in gone.waiters if not waiter.done()]
        gone.waiters.clear()
        if not waiters:
            return
        try:
            self._join(gone.key).waiters.extend(waiters)
        except GatewayError as error:
            for waiter in waiters:
                waiter.set_exception(error)


def _as_load_error(error: GatewayError) -> LoadError:
    """Say in the words of a stage's outcome why a version did not come up."""
    if isinstance(error, ModelLoadFailedError):
        cause = error.__cause__
        return cause if isinstance(cause, LoadError) else LoadError("load_failed", error.message)
    return LoadError("no_room", error.message)
