"""The resident set: replicas in memory, bounded by count and by measured bytes.

The bounds cover replicas of every state. A version has one load, however many callers wait for it.
A lease is taken in the step that chooses the replica, and given to a waiter in the step in which
the replica becomes ready, so nothing evicts the replica in between.

Everything here runs on the event loop: a method without ``await`` is a critical section.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from gateway.contract import ArtifactRef
from gateway.errors import (
    GatewayError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
)
from gateway.serving.residency.decision import ResidentLimits, Standby, spared
from gateway.serving.residency.demand import Demand
from gateway.serving.residency.load_queue import LoadQueue, Requirements
from gateway.serving.residency.replica_choice import choose
from gateway.serving.residency.replica_pool import Lease, ReplicaPool, Resident
from gateway.system import release_all
from gateway.worker.protocol import messages

_ENDS_WITHIN_S = 10.0
_LOOK_S = 0.01


class ResidentSet:
    """Leases, stages and ends of replicas; the replicas are in a `ReplicaPool`.

    ``max_waiting`` requests may wait for one version, for ``load_budget_s`` seconds each.
    ``shared_bytes`` returns the forkserver's size, which counts once.
    """

    def __init__(
        self,
        pool: ReplicaPool,
        *,
        limits: ResidentLimits,
        load_budget_s: float,
        max_waiting: int,
        requirements: Requirements,
        shared_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.load_history = pool.load_history
        self._load_budget_s = load_budget_s
        self._max_waiting = max_waiting
        self._clock = pool.clock
        self._pool = pool
        self._queue = LoadQueue(
            pool,
            limits=limits,
            requirements=requirements,
            load_budget_s=load_budget_s,
            shared_bytes=shared_bytes,
        )
        self.limits = limits
        self.eviction_costs = self._queue.eviction_costs

    # --- leases -----------------------------------------------------------------------------------

    def try_lease(self, key: ArtifactRef, body_bytes: int = 0) -> Lease | None:
        """Take a lease now, or return None if no replica is ready. Used by nearly every request.

        ``body_bytes`` is the size of the body; a replica with room for it is preferred.
        """
        group = self._pool.of(key)
        if len(group) == 1:
            return self._pool.take(group[0]) if group[0].ready else None
        ready = [one for one in group if one.ready]
        return self._pool.take(choose(ready, body_bytes, self._clock())) if ready else None

    async def lease(self, key: ArtifactRef) -> Lease:
        """Take a lease; start or join the version's load if need be.

        Cancelling a caller does not cancel the load.

        Raises:
            ModelLoadingError: The version was not ready within the load budget.
            ModelOverloadedError: Too many requests wait for it.
            ModelLoadFailedError: The load failed, or the version pauses after a failure.
            InsufficientMemoryError: The version would not fit in an empty set.
            DisplacedError: Its successor has replaced it: resolve the alias again.
            DrainingError: The gateway is shutting down.
        """
        lease = self.try_lease(key)
        return lease or await self._wait(self._queue.join(key))

    async def _wait(self, demand: Demand) -> Lease:
        if len(demand.waiters) >= self._max_waiting:
            raise ModelOverloadedError(
                f"{len(demand.waiters)} requests already wait for {demand.key}",
                retry_after_s=self.load_history.expected_load_s(demand.key),
            )
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        demand.waiters.append(waiter)
        try:
            async with asyncio.timeout(self._load_budget_s):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            demand.leave(waiter)
            self._queue.end_unless_awaited(demand.key)
            if isinstance(error, TimeoutError):
                if demand.evicted_by is not None:
                    self.eviction_costs.add(demand.evicted_by, 1, self._load_budget_s)
                raise self._queue.too_late(demand.key) from error
            raise

    # --- stages -----------------------------------------------------------------------------------

    async def stage(
        self,
        key: ArtifactRef,
        stage_id: str,
        *,
        replaces: ArtifactRef | None,
        swap: str,
        replicas: int,
        wait_s: float,
    ) -> messages.Loaded:
        """Load a standby; spare it, and the version that it replaces, until ``unstage``.

        If there is no room for both, ``swap`` decides: ``blue_green`` fails the stage, ``auto``
        ends the old version first. ``unload_first`` always ends it first.

        Raises:
            LoadError: A load failed, or not all replicas were ready within ``wait_s`` seconds.
        """
        self._queue.standbys[stage_id] = Standby(stage_id, key, replaces, swap)
        self.load_history.forgive(key)
        try:
            if self._pool.count_ready(key) < replicas:
                demand = self._queue.join(key)
                demand.replicas = max(demand.replicas, replicas)
                demand.staged_at = self._clock()
                await self._until_staged(demand, wait_s)
        except BaseException as error:
            self.unstage(stage_id)
            if isinstance(error, GatewayError):
                failed = isinstance(error, ModelLoadFailedError) and error.failure
                raise LoadError(failed or "no_room", error.message) from error
            raise
        ready = next((one for one in self._pool.of(key) if one.ready), None)
        loaded = ready.replica.loaded if ready else None
        if ready is None or loaded is None:
            self.unstage(stage_id)
            raise LoadError("worker_died", "the worker died as it became ready")
        if replaces is not None:  # its callers come here after the activation
            ready.heat = max(ready.heat, sum(one.heat for one in self._pool.of(replaces)))
        return loaded

    async def _until_staged(self, demand: Demand, wait_s: float) -> None:
        """Wait until all replicas of a demand are ready."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        demand.stages.append(done)
        try:
            async with asyncio.timeout(wait_s):
                await done
        except TimeoutError as error:
            ready = self._pool.count_ready(demand.key)
            raise ModelLoadingError(
                f"{demand.key} was not up after {wait_s:g} s: {ready} of {demand.replicas} workers "
                "are ready"
            ) from error
        finally:
            if done in demand.stages:
                demand.stages.remove(done)
                demand.replicas = 1 if not demand.stages else demand.replicas
                self._queue.end_unless_awaited(demand.key)

    def unstage(self, stage_id: str) -> None:
        """End a stage that was activated, has failed or ran out of time."""
        if (standby := self._queue.standbys.pop(stage_id, None)) is not None:
            self._queue.end_stage(standby)

    # --- questions --------------------------------------------------------------------------------

    def is_ready(self, key: ArtifactRef) -> bool:
        """Whether a version has a ready replica."""
        return self._pool.count_ready(key) > 0

    def residents(self) -> list[Resident]:
        """Return every replica, the least recently used first."""
        return self._pool.by_use()

    def versions(self) -> set[ArtifactRef]:
        """Return the versions that have a replica, or wait for one."""
        return {*self._pool.keys(), *self._queue.keys()}

    def digests(self) -> set[str]:
        """Return the artifacts of those versions."""
        return {key.digest for key in self.versions()}

    def hottest(self) -> list[ArtifactRef]:
        """Return the ready versions, the most used first, then the background loads."""
        self._pool.fade_heat(self._clock())
        heat: dict[ArtifactRef, float] = {}
        for one in self._pool.all():
            if one.ready:
                heat[one.key] = heat.get(one.key, 0.0) + one.heat
        hot = sorted(heat, key=lambda key: -heat[key])
        return [*hot, *(key for key in self._queue.background() if key not in heat)]

    def measured(self, resident: Resident, private_bytes: int) -> None:
        """Take the measured size of a replica, and end replicas if that is too much."""
        self._queue.measured(resident, private_bytes)

    # --- ends -------------------------------------------------------------------------------------

    def replace(self, resident: Resident, reason: str) -> None:
        """Drain a ready replica that is wrong, and load another one."""
        self._pool.replace(resident, reason)
        self._queue.rebalance_soon()

    def retire(self, key: ArtifactRef, reason: str) -> None:
        """Drain every replica of a version: each ends with its last lease."""
        self._queue.retire(key, reason)

    def load_in_background(self, keys: Sequence[ArtifactRef]) -> None:
        """Load versions without a caller, in this order, as far as there is free room."""
        self._queue.load_in_background(keys)

    def rebalance(self) -> None:
        """Start and drain replicas as the present table requires."""
        self._queue.rebalance()

    def renew(self, key: ArtifactRef) -> None:
        """End the pause of a version whose artifact was fetched again."""
        self.load_history.forgive(key)
        self._queue.rebalance()

    def end_idle(self, idle_s: float, ends: Callable[[ArtifactRef], bool]) -> None:
        """End the replicas of versions that ``ends`` selects and that were idle for ``idle_s``."""
        before, kept = self._clock() - idle_s, spared(self._queue.standbys.values())
        idle = [one for one in self._pool.all() if one.ready and not one.leases]
        for one in idle:
            if one.last_used < before and one.key not in kept and ends(one.key):
                self._pool.end(one, "idle: it was not called lately, and is loaded on demand")

    async def close(self, drain_s: float) -> None:
        """Refuse new leases, wait up to ``drain_s`` seconds for the others, end every replica."""
        release_all(self._queue.close)
        await _until(lambda: not any(one.leases for one in self._pool.all()), drain_s)
        self._pool.close()
        await _until(lambda: not self._pool.all(), _ENDS_WITHIN_S)


async def _until(condition: Callable[[], bool], within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110  # only as the gateway ends: no event is worth it
                await asyncio.sleep(_LOOK_S)
