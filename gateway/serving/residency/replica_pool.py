"""Every replica of this node, from the start of its process to its end, and its leases.

Event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from gateway.contract import ArtifactRef
from gateway.errors import LoadError
from gateway.serving.replica import Replica, ReplicaState
from gateway.serving.residency.decision import ReplicaView, State, faded, value
from gateway.serving.residency.load_history import LoadHistory
from gateway.system import release_all
from gateway.worker.protocol import messages

_LOAD_TRIES = 3
_ENDS = frozenset({"worker_died", "worker_crashed"})
_FADE_EVERY_S = 10.0
_log = structlog.get_logger("gateway.serving.residency.replica_pool")


class Observer(Protocol):
    """Receives loads and ends, for metrics and logs."""

    def loaded(self, key: ArtifactRef, seconds: float, resident_bytes: int) -> None:
        """A replica became ready."""

    def load_failed(self, key: ArtifactRef, failure: str, message: str) -> None:
        """A load failed."""

    def ended(self, key: ArtifactRef, reason: str, *, evicted: bool, died: bool) -> None:
        """A replica that was ready has ended. ``died``: without being stopped."""


class Owner(Protocol):
    """Decides about replicas, and receives the outcome of each."""

    def became_ready(self, resident: Resident) -> None:
        """A replica became ready, and may be leased from now on."""

    def load_failed(self, resident: Resident, error: LoadError, pause_s: float) -> None:
        """A load failed; the version pauses for ``pause_s`` seconds."""

    def replica_ended(self, resident: Resident, *, died: bool) -> None:
        """A replica has ended, and its memory is free. ``died``: without being stopped."""

    def replica_idle(self) -> None:
        """The last lease of a replica was released; the replica may make room."""


@dataclass(slots=True, eq=False)
class Resident:
    """A replica as a member of the resident set.

    Attributes:
        number: Identifies the replica among all of this gateway.
        bytes: Expected size while it loads; measured size afterwards.
        ready_bytes: Size when it became ready.
        closed_to_new: It takes no more leases since ``closed_at``, and ends with its last one.
        end_reason: The reason why it ends with its last lease, or empty.
        evicted: It ends to make room.
        wrong: The reason why it will be replaced, or empty. Its successor may start beside it.
        heat: Leases, halved every ``HALF_LIFE_S``; with those of the version's ended replicas.
    """

    key: ArtifactRef
    number: int
    bytes: int
    last_used: float
    started_at: float
    replica: Replica
    ready_bytes: int = 0
    ending: bool = False
    closed_to_new: bool = False
    closed_at: float = 0.0
    end_reason: str = ""
    evicted: bool = False
    wrong: str = ""
    leases: int = 0
    heat: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether it may be leased."""
        return (
            self.replica.state is ReplicaState.READY and not self.closed_to_new and not self.ending
        )

    def close_to_new(self, now: float) -> None:
        """Take no more leases."""
        if not self.closed_to_new:
            self.closed_to_new, self.closed_at = True, now

    @property
    def state(self) -> State:
        """The state for the decision; a replica that died but has not ended yet is closed."""
        if self.ending:
            return State.ENDING
        if self.closed_to_new:
            return State.CLOSED
        if self.replica.loaded is None:
            return State.LOADING
        return State.READY if self.replica.state is ReplicaState.READY else State.CLOSED

    def view(self, now: float, *, keep_resident: bool) -> ReplicaView:
        """Return the replica as the decision sees it.

        A replica that died is closed from the first decision on that sees it.
        """
        state = self.state
        if state is State.CLOSED and not self.closed_at:
            self.closed_at = now
        return ReplicaView(
            number=self.number,
            key=self.key,
            bytes=self.bytes,
            state=state,
            leases=self.leases,
            value=value(self.heat, now - self.last_used),
            keep_resident=keep_resident,
            grown=self.bytes - self.ready_bytes,
            started_at=self.started_at,
            closed_at=self.closed_at,
            is_wrong=bool(self.wrong),
        )


class Lease:
    """The right to send one request to a replica. While it lasts, nothing evicts the replica."""

    __slots__ = ("_on_release", "_released", "resident")

    def __init__(self, resident: Resident, on_release: Callable[[Resident], None]) -> None:
        self._on_release = on_release
        self.resident = resident
        self._released = False

    @property
    def replica(self) -> Replica:
        """The leased replica."""
        return self.resident.replica

    def release(self) -> None:
        """End the lease. Idempotent."""
        if not self._released:
            self._released = True
            self._on_release(self.resident)


class ReplicaPool:
    """Starts, leases and ends replicas. Attribute ``owner`` is set once it exists.

    ``prepare`` reads a version's load order. ``new_replica`` builds a replica, which calls the
    second argument once it has stopped.
    """

    def __init__(
        self,
        *,
        new_replica: Callable[[ArtifactRef, Callable[[Replica], None]], Replica],
        prepare: Callable[[ArtifactRef], Awaitable[messages.Load]],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.load_history = LoadHistory(clock)
        self._new_replica = new_replica
        self._prepare = prepare
        self._observer = observer
        self.owner: Owner
        self._by_key: dict[ArtifactRef, list[Resident]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._count = 0
        self._faded_at = clock()
        self._closed = False

    # --- questions --------------------------------------------------------------------------------

    def of(self, key: ArtifactRef) -> list[Resident]:
        """Return the replicas of a version in any state, oldest first."""
        return self._by_key.get(key, [])

    def all(self) -> list[Resident]:
        """Return every replica, in any state."""
        return [one for group in self._by_key.values() for one in group]

    def keys(self) -> list[ArtifactRef]:
        """Return the versions that have a replica."""
        return list(self._by_key)

    def by_use(self) -> list[Resident]:
        """Return every replica, the least recently used first."""
        return sorted(self.all(), key=lambda one: one.last_used)

    def count_ready(self, key: ArtifactRef) -> int:
        """Count the ready replicas of a version."""
        return sum(one.ready for one in self.of(key))

    def numbered(self, number: int) -> Resident:
        """Return the replica with this number."""
        return next(one for one in self.all() if one.number == number)

    def fade_heat(self, now: float) -> None:
        """Bring the heat of every replica up to date."""
        for one in self.all():
            one.heat = faded(one.heat, now - self._faded_at)
        self._faded_at = now

    # --- leases -----------------------------------------------------------------------------------

    def take(self, resident: Resident) -> Lease:
        """Take a lease on a ready replica."""
        now = self.clock()
        if now - self._faded_at > _FADE_EVERY_S:  # else this use would fade as the earlier ones do
            self.fade_heat(now)
        resident.leases += 1
        resident.last_used = now
        resident.heat += 1
        return Lease(resident, self._released)

    def _released(self, resident: Resident) -> None:
        resident.leases -= 1
        resident.last_used = self.clock()
        if resident.leases:
            return
        if not resident.closed_to_new:
            self.owner.replica_idle()
        elif resident.replica.state is ReplicaState.STOPPED:
            pass  # it died with that request inside; `_stopped` follows
        elif resident.end_reason:  # before `wrong`: a drained replica gets no successor
            self.end(resident, resident.end_reason)
        else:
            resident.replica.stop(resident.wrong)  # counts as a death, so it gets a successor

    # --- load -------------------------------------------------------------------------------------

    def start(self, key: ArtifactRef, expected_bytes: int) -> None:
        """Start to load a replica; the owner receives the outcome."""
        now = self.clock()
        self._count += 1
        resident = Resident(
            key=key,
            number=self._count,
            bytes=expected_bytes,
            last_used=now,
            started_at=now,
            heat=self.load_history.take_heat(key),
            replica=self._new_replica(key, lambda replica: self._stopped(resident, replica)),
        )
        task = asyncio.get_running_loop().create_task(self._load(resident))
        self._by_key.setdefault(key, []).append(resident)
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    async def _load(self, resident: Resident) -> None:
        started = self.clock()
        try:
            await self._load_in_tries(resident)
            self._ready(resident, self.clock() - started)
        except LoadError as error:
            self._failed(resident, error)
        except Exception as error:  # noqa: BLE001  # every waiter gets an answer
            _log.exception("load.failed", replica=str(resident.key))
            self._failed(resident, LoadError("internal_error", f"internal error: {error!r}"))

    async def _load_in_tries(self, resident: Resident) -> None:
        """Load a replica, and again if its worker dies meanwhile, without failing its waiters.

        If the worker died in a proof, the next order leaves that proof out. Only a worker that
        crashes in every try has crashed for its bytes: ``worker_crashed`` rejects the version.
        """
        ends: list[str] = []
        while True:
            load = await self._prepare(resident.key)
            try:
                await resident.replica.start(load)
            except LoadError as error:
                if error.failure not in _ENDS:
                    raise
                ends.append(error.failure)
                if len(ends) == _LOAD_TRIES or resident.ending or self._closed:
                    crashed = ends == ["worker_crashed"] * _LOAD_TRIES
                    failure = "worker_crashed" if crashed else "worker_died"
                    raise LoadError(failure, error.message) from error
                await resident.replica.wait_stopped()
                if resident.ending:  # it was ended while this task waited
                    raise
                resident.replica = self._new_replica(
                    resident.key, lambda replica: self._stopped(resident, replica)
                )
            else:
                return

    def _ready(self, resident: Resident, seconds: float) -> None:
        replica = resident.replica
        resident.bytes = resident.ready_bytes = replica.private_bytes
        peak_bytes = replica.loaded.peak_bytes if replica.loaded else 0
        self.load_history.loaded(resident.key, seconds, resident.bytes, peak_bytes)
        release_all(partial(self._observer.loaded, resident.key, seconds, resident.bytes))
        self.owner.became_ready(resident)

    def _failed(self, resident: Resident, error: LoadError) -> None:
        if resident.ending:  # it was ended while it loaded: no fault of the version
            return
        pause_s = self.load_history.load_failed(resident.key, error)
        release_all(
            partial(self._observer.load_failed, resident.key, error.failure, error.message),
            partial(self.owner.load_failed, resident, error, pause_s),
            partial(self.end, resident, f"its load failed: {error.message}"),
        )

    # --- end --------------------------------------------------------------------------------------

    def drain(self, resident: Resident, reason: str, *, evicted: bool = False) -> None:
        """Let a replica answer its requests, then end it. ``evicted``: to make room."""
        if resident.ending:
            return
        resident.close_to_new(self.clock())
        resident.end_reason, resident.evicted = reason, evicted
        if not resident.leases:
            self.end(resident, reason)

    def end(self, resident: Resident, reason: str) -> None:
        """End a replica now; requests in flight inside it are lost."""
        if resident.ending:
            return
        resident.ending = True
        if resident.replica.state is ReplicaState.STOPPED:
            self._ended(resident, reason, died=False)
        elif resident.leases:
            resident.replica.kill(reason)
        else:
            resident.replica.stop(reason)

    def replace(self, resident: Resident, reason: str) -> None:
        """Drain a ready replica that is wrong. This counts as a death, so it gets a successor."""
        resident.close_to_new(self.clock())
        resident.wrong = reason
        self._record_death(resident, reason)
        if not resident.leases:
            resident.replica.stop(reason)

    def _record_death(self, resident: Resident, reason: str) -> None:
        had_answered = resident.replica.answered > 0
        lived_s = self.clock() - resident.started_at
        self.load_history.died(resident.key, reason, had_answered=had_answered, lived_s=lived_s)

    def close(self) -> None:
        """End every replica, and every load under way."""
        self._closed = True
        release_all(
            *(task.cancel for task in self._loads),
            *(partial(self.end, one, "the gateway is shutting down") for one in self.all()),
        )

    def _stopped(self, resident: Resident, replica: Replica) -> None:
        """Handle the end of a replica's process."""
        if resident.replica is not replica:
            return
        if replica.loaded is None and not resident.ending:
            return  # `_load` handles it
        died = not resident.ending
        if died and not resident.wrong:
            self._record_death(resident, replica.end_reason)
        self._ended(resident, replica.end_reason, died=died)

    def _ended(self, resident: Resident, reason: str, *, died: bool) -> None:
        resident.ending = True
        group = self.of(resident.key)
        if resident not in group:
            return  # reported before
        group.remove(resident)
        if not group:
            del self._by_key[resident.key]
        self.load_history.keep_heat(resident.key, resident.heat)
        evicted = resident.evicted and not died
        report = partial(self._observer.ended, resident.key, reason, evicted=evicted, died=died)
        release_all(
            *([report] if resident.replica.loaded is not None else []),
            partial(self.owner.replica_ended, resident, died=died),
        )
