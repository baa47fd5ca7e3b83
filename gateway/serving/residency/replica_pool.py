"""Every worker of this node: coming up, ready, going. `ResidentSet` says who may use one.

Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from gateway.contract import ReplicaKey
from gateway.errors import LoadError
from gateway.serving.replica import Replica, ReplicaState
from gateway.serving.residency.decision import ReplicaView, State, faded, value
from gateway.serving.residency.load_history import TrackRecord
from gateway.system import release_all
from gateway.worker.protocol import messages

_LOAD_TRIES = 3
_log = structlog.get_logger("gateway.serving.residency.replica_pool")


class Observer(Protocol):
    """Who is told of loads and ends; for metrics and logs, never for decisions."""

    def loaded(self, key: ReplicaKey, seconds: float, resident_bytes: int) -> None:
        """A worker is ready."""

    def load_failed(self, key: ReplicaKey, failure: str, message: str) -> None:
        """A worker did not come up."""

    def ended(self, key: ReplicaKey, reason: str, *, evicted: bool, died: bool) -> None:
        """A worker that was ready has ended: to make room, by itself, or because it had to."""


class Owner(Protocol):
    """Who decides about workers: told what became of each."""

    def came_up(self, resident: Resident) -> None:
        """A worker is ready, and takes leases from now on."""

    def failed(self, resident: Resident, error: LoadError, pause_s: float) -> None:
        """A worker did not come up; its version is left alone for ``pause_s`` seconds."""

    def gone(self, resident: Resident, *, died: bool) -> None:
        """A worker's process has ended and its memory is free. ``died``: nobody asked it to."""


@dataclass(slots=True, eq=False)
class Resident:
    """One worker's place in the set, from the start of its process to the end of it.

    Attributes:
        number: Counts the workers of this gateway.
        bytes: What it holds: expected, while it comes up; measured, from then on.
        ready_bytes: Bytes held when the worker became ready.
        cold: It was warmed by a stage, and no caller has used it since.
        closed_to_new: It ends with its last lease; ``closed_at``: since then.
        wrong: Why it is to be replaced: a successor need not wait until it has ended. Mostly empty.
        heat: Leases, halved every ``HALF_LIFE_S``; with those of the version's last replica.
    """

    key: ReplicaKey
    number: int
    bytes: int
    last_used: float
    started_at: float
    replica: Replica
    ready_bytes: int = 0
    ending: bool = False
    evicted: bool = False
    closed_to_new: bool = False
    closed_at: float = 0.0
    wrong: str = ""
    cold: bool = False
    leases: int = 0
    heat: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether leases may be taken."""
        return (
            self.replica.state is ReplicaState.READY and not self.closed_to_new and not self.ending
        )

    @property
    def coming_up(self) -> bool:
        """Whether its load is under way, and wanted."""
        return self.replica.loaded is None and not self.closed_to_new and not self.ending

    def close_to_new(self, now: float) -> None:
        """Take no new leases from now on."""
        if not self.closed_to_new:
            self.closed_to_new, self.closed_at = True, now

    @property
    def state(self) -> State:
        """The state for the decision; a worker whose process is about to end is closed."""
        if self.ending:
            return State.ENDING
        if self.closed_to_new:
            return State.CLOSED
        if self.replica.loaded is None:
            return State.LOADING
        return State.READY if self.replica.state is ReplicaState.READY else State.CLOSED

    def view(self, now: float, *, keep_resident: bool) -> ReplicaView:
        """Return what the decision may see."""
        return ReplicaView(
            number=self.number,
            key=self.key,
            bytes=self.bytes,
            state=self.state,
            leases=self.leases,
            value=value(self.heat, now - self.last_used),
            keep_resident=keep_resident,
            grown=self.bytes - self.ready_bytes,
            started_at=self.started_at,
            closed_at=self.closed_at,
            is_wrong=bool(self.wrong),
        )


class Workers:
    """Owner of every replica."""

    def __init__(
        self,
        *,
        new_replica: Callable[[ReplicaKey, Callable[[Replica], None]], Replica],
        prepare: Callable[[ReplicaKey], Awaitable[messages.Load]],
        observer: Observer,
        track_record: TrackRecord,
        shared_bytes: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """Store; see `ResidentSet` for what each is. ``owner`` is set later."""
        self._new_replica = new_replica
        self._prepare = prepare
        self._observer = observer
        self._track_record = track_record
        self._shared_bytes = shared_bytes
        self._clock = clock
        self.owner: Owner
        self._by_key: dict[ReplicaKey, list[Resident]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._count = 0
        self._cooled_at = clock()
        self._closed = False
        self.shared = 0

    # --- questions --------------------------------------------------------------------------------

    def of(self, key: ReplicaKey) -> list[Resident]:
        """Return the workers of a version, oldest first, whatever their state."""
        return self._by_key.get(key, [])

    def all(self) -> list[Resident]:
        """Return every worker, whatever its state."""
        return [one for group in self._by_key.values() for one in group]

    def keys(self) -> list[ReplicaKey]:
        """Return the versions that have a worker."""
        return list(self._by_key)

    def by_use(self) -> list[Resident]:
        """Return every worker, the least recently used first."""
        return sorted(self.all(), key=lambda one: one.last_used)

    def count_ready(self, key: ReplicaKey) -> int:
        """Count the workers of a version that take leases."""
        return sum(one.ready for one in self.of(key))

    def numbered(self, number: int) -> Resident:
        """Return the worker with this number."""
        return next(one for one in self.all() if one.number == number)

    def cool(self, now: float) -> None:
        """Let uses count less, the longer ago they are."""
        for one in self.all():
            one.heat = faded(one.heat, now - self._cooled_at)
        self._cooled_at = now

    # --- up ---------------------------------------------------------------------------------------

    def start(self, key: ReplicaKey, expected_bytes: int) -> None:
        """Begin to bring a worker up; its owner is told how it went."""
        now = self._clock()
        self._count += 1
        number = self._count
        resident = Resident(
            key=key,
            number=number,
            bytes=expected_bytes,
            last_used=now,
            started_at=now,
            heat=self._track_record.take_heat(key),
            replica=self._new_replica(key, lambda replica: self._stopped(resident, replica)),
        )
        task = asyncio.get_running_loop().create_task(self._load(resident))
        self._by_key.setdefault(key, []).append(resident)
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    async def _load(self, resident: Resident) -> None:
        """Bring a worker up. Whatever happens, the owner is told."""
        started = self._clock()
        try:
            self.shared = await self._measured_shared()
            await self._load_in_tries(resident)
            self._ready(resident, self._clock() - started)
        except LoadError as error:
            self._failed(resident, error)
        except asyncio.CancelledError:
            self.end(resident, "its load was cancelled")
            raise
        except Exception as error:  # noqa: BLE001  # no waiter may be left without an answer
            _log.exception("load.failed", replica=str(resident.key))
            self._failed(resident, LoadError("internal_error", f"internal error: {error!r}"))

    async def _measured_shared(self) -> int:
        """Measure the forkserver; as it was, where no thread can be started for it."""
        try:
            return await asyncio.to_thread(self._shared_bytes)
        except RuntimeError:
            return self.shared

    async def _load_in_tries(self, resident: Resident) -> None:
        """A worker that dies while it loads, by somebody's hand, does not fail its waiters.

        Nor one that does not come back from a proof: the next order says so, and it is left out.
        """
        for left in reversed(range(_LOAD_TRIES)):
            load = await self._prepare(resident.key)
            try:
                await resident.replica.start(load)
            except LoadError as error:
                if error.failure != "worker_died" or left == 0 or resident.ending or self._closed:
                    raise
                await resident.replica.wait_stopped()
                if resident.ending:  # meanwhile, and its place is given to another one
                    raise
                resident.replica = self._new_replica(
                    resident.key, lambda replica: self._stopped(resident, replica)
                )
            else:
                return

    def _ready(self, resident: Resident, seconds: float) -> None:
        replica = resident.replica
        if replica.state is not ReplicaState.READY:
            self._failed(resident, LoadError("worker_died", "the worker died as it became ready"))
            return
        resident.bytes = resident.ready_bytes = replica.private_bytes
        peak_bytes = replica.loaded.peak_bytes if replica.loaded else 0
        self._track_record.loaded(resident.key, seconds, resident.bytes, peak_bytes)
        release_all(partial(self._observer.loaded, resident.key, seconds, resident.bytes))
        self.owner.came_up(resident)

    def _failed(self, resident: Resident, error: LoadError) -> None:
        if resident.ending:  # told to end while it was coming up: that is no fault of the version
            return
        pause_s = self._track_record.load_failed(resident.key, error.message)
        release_all(
            partial(self._observer.load_failed, resident.key, error.failure, error.message),
            partial(self.owner.failed, resident, error, pause_s),
            partial(self.end, resident, f"its load failed: {error.message}"),
        )

    # --- down -------------------------------------------------------------------------------------

    def end(self, resident: Resident, reason: str, *, evicted: bool = False) -> None:
        """End a worker now; what is in flight inside it is lost."""
        if resident.ending:
            return
        resident.ending = True
        resident.evicted = evicted
        if resident.replica.state is ReplicaState.STOPPED:
            self._gone(resident, reason, died=False)
        elif resident.leases:
            resident.replica.kill(reason)
        else:
            resident.replica.stop(reason)

    def replace(self, resident: Resident, reason: str) -> None:
        """Let a ready worker that is wrong answer what it has and end: that counts as a death.

        It counts now: what asks for its successor next is to know.
        """
        resident.close_to_new(self._clock())
        resident.wrong = reason
        had_answered = resident.replica.answered > 0
        self._track_record.died(resident.key, reason, had_answered=had_answered)
        if not resident.leases:
            resident.replica.stop(reason)  # it dies, as far as anybody else is concerned

    def close(self) -> None:
        """End every worker, and every load under way."""
        self._closed = True
        release_all(
            *(task.cancel for task in self._loads),
            *(partial(self.end, one, "the gateway is shutting down") for one in self.all()),
        )

    def _stopped(self, resident: Resident, replica: Replica) -> None:
        """A worker has ended: asked to, or by itself, or killed by somebody."""
        if resident.replica is not replica:
            return
        if replica.loaded is None and not resident.ending:
            return  # its load is told by the replica, and decides
        died = not resident.ending
        if died and not resident.wrong:
            had_answered = replica.answered > 0
            self._track_record.died(resident.key, replica.end_reason, had_answered=had_answered)
        self._gone(resident, replica.end_reason, died=died)

    def _gone(self, resident: Resident, reason: str, *, died: bool) -> None:
        resident.ending = True
        group = self.of(resident.key)
        if resident not in group:
            return  # told before
        group.remove(resident)
        if not group:
            del self._by_key[resident.key]
        self._track_record.keep_heat(resident.key, resident.heat)
        told = partial(
            self._observer.ended, resident.key, reason, evicted=resident.evicted, died=died
        )
        release_all(
            *([told] if resident.replica.loaded is not None else []),
            partial(self.owner.gone, resident, died=died),
        )


def choose(ready: Sequence[Resident], body_bytes: int, now: float) -> Resident:
    """Return the replica with the least expected wait: seconds per answer times what is in flight.

    One that would refuse the request is chosen only if all of them would.

    The rule is known as *peak EWMA*: a replica that is silent with something in flight counts as
    slow as its silence is long, so a stuck one is left alone long before its time-out. One that
    has not answered yet counts as fast as the fastest.

    Where that one has work, one that has none is tried instead as soon as what was measured of it
    has faded enough: it is not slow for ever because it was once.

    Args:
        ready: At least one.
        body_bytes: How large the request's body is.
        now: Monotonic seconds.
    """
    ready = [one for one in ready if one.replica.has_room(body_bytes)] or ready
    paces = [one.replica.pace_s(now) for one in ready]
    fastest = min((pace for pace in paces if pace > 0), default=1.0)
    waits = [(one.leases + 1) * (pace or fastest) for one, pace in zip(ready, paces, strict=True)]
    least = min(waits)
    best = ready[waits.index(least)]
    if best.leases:
        for one in ready:
            if not one.leases and one.replica.rested_pace_s(now) < least:
                return one
    return best
