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
from collections.abc import Awaitable, Callable, Sequence

from gateway.contract import ReplicaKey
from gateway.errors import (
    GatewayError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
)
from gateway.serving.replica import Replica
from gateway.serving.residency.decision import ResidentLimits
from gateway.serving.residency.lease import Lease
from gateway.serving.residency.load_history import TrackRecord, usual_life_s
from gateway.serving.residency.load_queue import LEAST_LOADS_AT_ONCE, LoadQueue, Versions
from gateway.serving.residency.replica_pool import Observer, Resident, Workers, choose
from gateway.serving.residency.standbys import Standby, Standbys, spared
from gateway.serving.residency.waiters import Demand
from gateway.system import release_all
from gateway.worker.protocol import messages

_ENDS_WITHIN_S = 10.0


class ResidentSet:
    """Who has a worker. The workers themselves are those of `Workers`."""

    def __init__(
        self,
        *,
        limits: ResidentLimits,
        load_budget_s: float,
        max_waiting: int,
        new_replica: Callable[[ReplicaKey, Callable[[Replica], None]], Replica],
        prepare: Callable[[ReplicaKey], Awaitable[messages.Load]],
        versions: Versions,
        observer: Observer,
        loads_at_once: int = LEAST_LOADS_AT_ONCE,
        shared_bytes: Callable[[], int] = lambda: 0,
        longest_life_s: Callable[[ReplicaKey], float] = usual_life_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store.

        Args:
            limits: The most workers, and the most bytes.
            load_budget_s: How long a load may wait for room before its waiters are told.
            max_waiting: The most requests that wait for one version.
            new_replica: Builds a replica; told whom to call when it has stopped.
            prepare: Reads what the worker needs to know from the artifact store.
            versions: Knows what is asked of each version.
            observer: Told of loads and ends.
            loads_at_once: How many may be under way, slow ones left out.
            shared_bytes: What the forkserver holds; counts once.
            longest_life_s: See `TrackRecord`.
            clock: Monotonic seconds.
        """
        self.track_record = TrackRecord(clock, longest_life_s)
        self._limits = limits
        self._load_budget_s = load_budget_s
        self._max_waiting = max_waiting
        self._clock = clock
        self._changed = asyncio.Event()
        self._standbys = Standbys()
        self._workers = Workers(
            new_replica=new_replica,
            prepare=prepare,
            observer=observer,
            track_record=self.track_record,
            shared_bytes=shared_bytes,
            clock=clock,
        )
        self._queue = LoadQueue(
            self._workers,
            self._standbys,
            limits=limits,
            versions=versions,
            track_record=self.track_record,
            loads_at_once=loads_at_once,
            load_budget_s=load_budget_s,
            clock=clock,
            take=self._take,
            on_change=self._changed.set,
        )
        self._workers.owner = self._queue

    def __repr__(self) -> str:
        """Say the counters."""
        workers = self._workers.all()
        ready = sum(one.ready for one in workers)
        ending = sum(one.ending for one in workers)
        leases = sum(one.leases for one in workers)
        return (
            f"<ResidentSet {len(workers)} workers of {self._limits.count}: {ready} ready, "
            f"{ending} ending; {len(self._queue)} versions waited for; {leases} leases>"
        )

    # --- leases -----------------------------------------------------------------------------------

    def try_lease(self, key: ReplicaKey, body_bytes: int = 0) -> Lease | None:
        """Take a lease if a ready replica is there: the step of nearly every request.

        ``body_bytes``: what the request brings; it goes where there is room for it.
        """
        group = self._workers.of(key)
        if len(group) == 1:
            return self._take(group[0]) if group[0].ready else None
        ready = [one for one in group if one.ready]
        return self._take(choose(ready, body_bytes, self._clock())) if ready else None

    async def lease(self, key: ReplicaKey) -> Lease:
        """Take a lease, starting or joining the one load of this version.

        A caller that is cancelled leaves the load alone.

        Raises:
            ModelLoadingError: Not ready within the load budget.
            ModelOverloadedError: Too many wait for it already.
            ModelLoadFailedError: The load failed, or failed a moment ago.
            InsufficientMemoryError: It would not fit in an empty set.
            DisplacedError: Its successor has taken its place: ask again whom the caller means.
            DrainingError: The gateway is shutting down.
        """
        lease = self.try_lease(key)
        return lease or await self._wait(self._queue.join(key))

    async def _wait(self, demand: Demand) -> Lease:
        if len(demand.waiters) >= self._max_waiting:
            raise ModelOverloadedError(
                f"{len(demand.waiters)} requests wait for {demand.key} already",
                retry_after_s=self.track_record.expected_load_s(demand.key),
            )
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        demand.waiters.append(waiter)
        try:
            async with asyncio.timeout(self._load_budget_s):
                return await waiter
        except TimeoutError as error:
            self._leave(demand, waiter)
            raise self._queue.too_late(demand.key) from error
        except asyncio.CancelledError:
            self._leave(demand, waiter)
            raise

    def _leave(self, demand: Demand, waiter: asyncio.Future[Lease]) -> None:
        demand.leave(waiter)
        self._queue.drop_unless_awaited(demand.key)

    def _take(self, resident: Resident) -> Lease:
        resident.leases += 1
        resident.last_used = self._clock()
        resident.cold = False
        resident.heat += 1
        return Lease(resident, self._released)

    def _released(self, resident: Resident) -> None:
        """Take a lease back; the last one may make room for somebody who waits."""
        resident.leases -= 1
        resident.last_used = self._clock()
        self._changed.set()
        if resident.leases == 0:
            if resident.closed_to_new:
                self._queue.drained(resident)
            elif self._queue:
                self._queue.look_soon()

    # --- stages -----------------------------------------------------------------------------------

    async def stage(
        self,
        key: ReplicaKey,
        stage_id: str,
        *,
        replaces: ReplicaKey | None,
        swap: str,
        replicas: int,
        wait_s: float,
    ) -> messages.Loaded:
        """Bring a version up and spare it, and the one that it replaces, until ``unstage``.

        Args:
            key: The version, the standby.
            stage_id: Names the stage in ``unstage``.
            replaces: The version whose place it is to take; None: nobody's.
            swap: What happens to that one if there is no room for both: ``blue_green``: nothing,
                the stage fails; ``unload_first``: it ends before the standby is loaded, whether
                there is room or not; ``auto``: it ends if there is no room.
            replicas: How many workers the standby needs before it counts as up.
            wait_s: The longest wait for room and loads, in seconds.

        Raises:
            LoadError: It did not come up, or found no room within ``wait_s`` seconds.
        """
        self._standbys.add(Standby(stage_id, key, replaces, swap))
        self.track_record.forgive(key)
        try:
            if self._workers.count_ready(key) < replicas:
                demand = self._queue.join(key)
                demand.replicas = max(demand.replicas, replicas)
                demand.staged_at = self._clock()
                await self._come_up(demand, wait_s)
        except BaseException as error:
            self.unstage(stage_id)
            if isinstance(error, GatewayError):
                raise _as_load_error(error) from error
            raise
        ready = next((one for one in self._workers.of(key) if one.ready), None)
        loaded = ready.replica.loaded if ready else None
        if ready is None or loaded is None:
            self.unstage(stage_id)
            raise LoadError("worker_died", "the worker died as it became ready")
        if replaces is not None:  # whose callers will be its own
            ready.heat = max(ready.heat, sum(one.heat for one in self._workers.of(replaces)))
        return loaded

    async def _come_up(self, demand: Demand, wait_s: float) -> None:
        """Wait until every worker that a stage needs is ready."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        demand.stages.append(done)
        try:
            async with asyncio.timeout(wait_s):
                await done
        except TimeoutError as error:
            ready = self._workers.count_ready(demand.key)
            raise ModelLoadingError(
                f"{demand.key} was not up after {wait_s:g} s: {ready} of {demand.replicas} workers "
                "are ready"
            ) from error
        finally:
            if done in demand.stages:
                demand.stages.remove(done)
                demand.replicas = 1 if not demand.stages else demand.replicas
                self._queue.drop_unless_awaited(demand.key)

    def unstage(self, stage_id: str) -> None:
        """Stop sparing what a stage spared: it was activated, failed, or ran out of time."""
        if (standby := self._standbys.remove(stage_id)) is not None:
            self._queue.end_stage(standby)

    def demote(self, key: ReplicaKey) -> None:
        """Make a version the first to go: warmed once, it stays out of the way."""
        for one in self._workers.of(key):
            one.cold = one.heat == 0

    # --- questions --------------------------------------------------------------------------------

    def is_ready(self, key: ReplicaKey) -> bool:
        """Whether a worker serves this version now."""
        return self._workers.count_ready(key) > 0

    def residents(self) -> list[Resident]:
        """Return every member of the set, least recently used first."""
        return self._workers.by_use()

    def versions(self) -> set[ReplicaKey]:
        """Return the versions that have a worker, or are to have one."""
        return {*self._workers.keys(), *self._queue.keys()}

    def digests(self) -> set[str]:
        """Return the artifacts that a worker runs on, or is about to be started on."""
        return {key.digest for key in self.versions()}

    def hottest(self) -> list[ReplicaKey]:
        """Return the versions that have a ready worker, the most used first; then who is to."""
        self._workers.cool(self._clock())
        heat: dict[ReplicaKey, float] = {}
        for one in self._workers.all():
            if one.ready and not one.cold:
                heat[one.key] = heat.get(one.key, 0.0) + one.heat
        hot = sorted(heat, key=lambda key: -heat[key])
        return [*hot, *(key for key in self._queue.background() if key not in heat)]

    def measured(self, resident: Resident, private_bytes: int) -> None:
        """Take what a worker has measured of itself since; some go if it is too much."""
        self._queue.measured(resident, private_bytes)

    # --- ends -------------------------------------------------------------------------------------

    def replace(self, resident: Resident, reason: str) -> None:
        """Let a ready worker that is wrong answer what it has, and another one take its place."""
        self._workers.replace(resident, reason)
        self._queue.look_soon()

    def retire(self, key: ReplicaKey, reason: str) -> None:
        """Drain and end a version: no new leases; each worker ends with its last one."""
        self._queue.forget(key)
        self._queue.retire(key, reason)

    def bring_up(self, keys: Sequence[ReplicaKey]) -> None:
        """Load versions that nobody waits for, in this order, as far as there is free room."""
        self._queue.bring_up(keys)

    def look_again(self) -> None:
        """Begin to have what versions are to have by now: more workers, or fewer."""
        self._queue.look()

    def renew(self, key: ReplicaKey) -> None:
        """Forget why a version was left alone: its bytes have come anew. Whoever waits is next."""
        self.track_record.forgive(key)
        self._queue.look()

    def end_idle(self, idle_s: float, ends: Callable[[ReplicaKey], bool]) -> None:
        """End the workers of versions that ``ends`` names and nobody has used for ``idle_s``."""
        before, kept = self._clock() - idle_s, spared(self._standbys.all())
        idle = [one for one in self._workers.all() if one.ready and not one.leases]
        for one in idle:
            if one.last_used < before and one.key not in kept and ends(one.key):
                self._workers.end(one, "idle: it was not called lately, and is not to stay")

    async def close(self, drain_s: float) -> None:
        """Take no new leases, wait for those there are, end every worker.

        Args:
            drain_s: How long to wait for leases, in seconds.
        """
        release_all(self._queue.close)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._until(lambda: not any(one.leases for one in self._workers.all()))
        self._workers.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._until(lambda: not self._workers.all())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def _as_load_error(error: GatewayError) -> LoadError:
    """Say in the words of a stage's outcome why a version did not come up."""
    if isinstance(error, ModelLoadFailedError):
        cause = error.__cause__
        return cause if isinstance(cause, LoadError) else LoadError("load_failed", error.message)
    return LoadError("no_room", error.message)
