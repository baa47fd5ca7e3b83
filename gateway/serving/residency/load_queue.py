"""The loop that applies `decision.decide`, and ends the waits of callers and stages.

It decides again whenever something has changed that the decision may see, and at least once per
``TURN_WAIT_S`` while something waits. Event loop only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Protocol, assert_never

import structlog

from gateway.contract import ArtifactRef
from gateway.errors import (
    DisplacedError,
    DrainingError,
    InsufficientMemoryError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
)
from gateway.serving.residency import decision
from gateway.serving.residency.decision import (
    Action,
    DemandView,
    Displace,
    Drain,
    Fail,
    Refusal,
    ResidentLimits,
    Snapshot,
    Standby,
    Start,
    State,
    decide,
    displaced,
)
from gateway.serving.residency.demand import Demand
from gateway.serving.residency.eviction_costs import BYTES, COUNT, EvictionCosts
from gateway.serving.residency.replica_pool import ReplicaPool, Resident
from gateway.system import release_all

_SOON_S = 0.005
_SHORTEST_WAIT_S = 0.001
_DEMANDS_SEEN = 64
"""The oldest; a decision costs the same however many versions are waited for."""
_MIB = 1024 * 1024
_log = structlog.get_logger("gateway.serving.residency.load_queue")


class Requirements(Protocol):
    """Answers the resident set's questions about a version."""

    def estimate_bytes(self, key: ArtifactRef) -> int:
        """Estimate the size of a version that was never loaded."""

    def replicas(self, key: ArtifactRef) -> int:
        """Return the number of replicas that a resident version should have."""

    def restarts(self, key: ArtifactRef) -> bool:
        """Whether a replica that died is replaced without a caller."""

    def is_reachable(self, key: ArtifactRef) -> bool:
        """Whether a caller can mean the version."""

    def keep_resident(self, key: ArtifactRef) -> bool:
        """Whether the version's replicas are evicted last, by its tag."""


class LoadQueue:
    """Starts and ends replicas, and answers the callers and stages that wait for them.

    For its arguments, see `ResidentSet`.
    """

    def __init__(
        self,
        pool: ReplicaPool,
        *,
        limits: ResidentLimits,
        requirements: Requirements,
        load_budget_s: float,
        shared_bytes: Callable[[], int],
    ) -> None:
        self.standbys: dict[str, Standby] = {}
        self.eviction_costs = EvictionCosts(pool.clock)
        self._pool = pool
        self._pool.owner = self
        self._limits = limits
        self._requirements = requirements
        self._load_history = pool.load_history
        self._load_budget_s = load_budget_s
        self._shared_bytes = shared_bytes
        self._clock = pool.clock
        self._demands: dict[ArtifactRef, Demand] = {}
        self._background: dict[ArtifactRef, bool] = {}
        """Versions to be loaded in free room, and whether it is a restart."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._is_rebalancing = False
        self._closed = False

    def keys(self) -> list[ArtifactRef]:
        """Return the versions that wait for a replica."""
        return [*self._demands, *self.background()]

    def background(self) -> list[ArtifactRef]:
        """Return the versions to be loaded as soon as there is room.

        A restart ends once no alias means the version any more: its replica would start beside its
        successor, and some models may not run twice. Any other ends once no caller can mean it.
        """
        needed = self._requirements
        self._background = {
            key: is_restart
            for key, is_restart in self._background.items()
            if (needed.restarts(key) if is_restart else needed.is_reachable(key))
        }
        return list(self._background)

    def close(self) -> None:
        """Start no more replicas, and refuse every waiter."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        error = DrainingError("the gateway is shutting down")
        demands = list(self._demands.values())
        release_all(*(partial(self._end_demand, one, error) for one in demands))

    # --- one load per version ---------------------------------------------------------------------

    def join(self, key: ArtifactRef) -> Demand:
        """Return the demand for a version, new or already waiting.

        Raises:
            ModelLoadFailedError: The version pauses after a failed load.
            DrainingError: The gateway is shutting down.
        """
        if self._closed:
            raise DrainingError("the gateway is shutting down")
        demand = self._demands.get(key)
        if demand is not None:
            return demand
        demand = Demand(key, since=self._clock(), evicted_by=self._load_history.take_eviction(key))
        if not self._is_loading(key):
            self._pause(demand)
        self._demands[key] = demand
        # Not now: the caller has not added its waiter yet, and would miss a refusal.
        asyncio.get_running_loop().call_soon(self.rebalance)
        return demand

    def _is_loading(self, key: ArtifactRef) -> bool:
        return any(one.state is State.LOADING for one in self._pool.of(key))

    def _pause(self, demand: Demand) -> None:
        """Delay a demand until its version's pause is over.

        Raises:
            ModelLoadFailedError: Callers are refused during this pause.
        """
        demand.paused_until = self._clock() + self._load_history.pause_s(demand.key)

    def load_in_background(self, keys: Sequence[ArtifactRef]) -> None:
        """Load versions in this order, as far as there is free room."""
        self._background.update(dict.fromkeys(keys, False))
        self.rebalance()

    def _restart(self, key: ArtifactRef) -> None:
        if self._requirements.restarts(key):
            self._background.setdefault(key, True)

    # --- the loop ---------------------------------------------------------------------------------

    def rebalance(self) -> None:
        """Decide and apply, until nothing is left to do."""
        if self._closed or self._is_rebalancing:
            return  # an action has called back: the loop below decides again anyway
        self._is_rebalancing = True
        try:
            while actions := decide(self._snapshot()):
                for action in actions:
                    self._apply(action)
        except Exception:  # noqa: BLE001  # an error must not end the loop
            _log.exception("residency.failed")
            self._rebalance_within(decision.TURN_WAIT_S)
        finally:
            self._is_rebalancing = False
        self._schedule_next()

    def rebalance_soon(self) -> None:
        """Rebalance in a moment: once for all requests that end until then."""
        self._rebalance_within(_SOON_S)

    def replica_idle(self) -> None:
        """Let an idle replica make room, if a demand waits."""
        if self._demands:
            self.rebalance_soon()

    def _schedule_next(self) -> None:
        """Rebalance again for a turn, a slow load or the end of a pause."""
        waits = [decision.TURN_WAIT_S] if self._demands or self._lacking() else []
        now = self._clock()
        waits += [one.paused_until - now for one in self._demands.values()]
        if waits := [wait_s for wait_s in waits if wait_s > 0]:
            self._rebalance_within(max(_SHORTEST_WAIT_S, min(waits)))

    def _rebalance_within(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + wait_s
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due, self._timer = due, loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.rebalance()

    def _snapshot(self) -> Snapshot:
        now = self._clock()
        self._pool.fade_heat(now)
        limits = self._replica_limits()
        ready = (one for one in self._demands.values() if one.paused_until <= now)
        keys = self._pool.keys()
        return Snapshot(
            now=now,
            limits=limits,
            replicas=[
                one.view(now, keep_resident=self._requirements.keep_resident(one.key))
                for one in self._pool.all()
            ],
            demands=[self._view(one, limits) for one in islice(ready, _DEMANDS_SEEN)],
            standbys=tuple(self.standbys.values()),
            background=[
                Start(key, self._needed_bytes(key, limits))
                for key in self._lacking()
                if self._load_history.pause_left_s(key) == 0
            ],
            wanted={key: self._requirements.replicas(key) for key in keys},
        )

    def _view(self, demand: Demand, limits: ResidentLimits) -> DemandView:
        return DemandView(
            key=demand.key,
            since=demand.since,
            bytes=self._needed_bytes(demand.key, limits),
            replicas=demand.replicas,
            keep_resident=self._requirements.keep_resident(demand.key),
            is_staged=bool(demand.stages),
            stage_deadline=demand.staged_at + self._load_budget_s if demand.stages else math.inf,
        )

    def _replica_limits(self) -> ResidentLimits:
        """Return the limits without the forkserver's bytes."""
        return replace(self._limits, bytes=self._limits.bytes - self._shared_bytes())

    def _needed_bytes(self, key: ArtifactRef, limits: ResidentLimits) -> int:
        estimate = self._requirements.estimate_bytes
        return self._load_history.needed_bytes(key, estimate, limits.bytes)

    def _lacking(self) -> list[ArtifactRef]:
        """Return the versions that lack a replica, by descending priority."""
        lacking = [key for key in self.background() if not self._pool.of(key)]
        for one in reversed(self._pool.by_use()):
            group = [other for other in self._pool.of(one.key) if not other.wrong]
            if (
                all(other.ready for other in group)  # not while a replica loads or ends
                and not one.wrong
                and len(group) < self._requirements.replicas(one.key)
            ):
                lacking.append(one.key)
        ended = displaced(self.standbys.values())
        return [key for key in dict.fromkeys(lacking) if key not in ended]

    def _apply(self, action: Action) -> None:
        match action:
            case Start():
                self._background.pop(action.key, None)
                self._pool.start(action.key, action.bytes)
            case Drain():
                resident = self._pool.numbered(action.number)
                if action.evicted:
                    self._load_history.evicted(resident.key, self._binding_limit())
                self._pool.drain(resident, action.reason, evicted=action.evicted)
            case Displace():
                self._displace(action.standby)
            case Fail():
                self._fail(action)
            case _:
                assert_never(action)

    def _binding_limit(self) -> str:
        """Return the setting whose limit makes a replica end."""
        return COUNT if len(list(self._pool.all())) >= self._limits.count else BYTES

    def _displace(self, standby: Standby) -> None:
        """Drain the version that a standby replaces; `end_stage` restarts it if need be."""
        self.standbys[standby.stage_id] = replace(standby, displaces=True)
        if standby.replaces is not None:
            self.retire(standby.replaces, "unloaded first: its successor needs the room")

    def _fail(self, action: Fail) -> None:
        demand = self._demands[action.key]
        match action.why:
            case Refusal.TOO_BIG:
                error = self._too_big(action.key, demand.replicas, action.bytes)
                self._end_demand(demand, error)
            case Refusal.NO_ROOM_BESIDE_STANDBYS:
                self._fail_stages(demand, self._no_room_beside_standbys(demand))
            case Refusal.STAGE_TOO_LATE:
                self._fail_stages(demand, self.too_late(action.key))
            case _:
                assert_never(action.why)

    # --- ends -------------------------------------------------------------------------------------

    def retire(self, key: ArtifactRef, reason: str) -> None:
        """Drain every replica of a version; load it no more, unless it is awaited."""
        self._background.pop(key, None)
        self.end_unless_awaited(key)
        for one in list(self._pool.of(key)):
            self._pool.drain(one, reason)

    def end_stage(self, standby: Standby) -> None:
        """Refuse the callers of a displaced version, or restart it if its successor failed.

        The refused callers resolve their alias again.
        """
        old = standby.replaces
        if standby.displaces and old is not None and old not in displaced(self.standbys.values()):
            if (demand := self._demands.get(old)) is not None:
                demand.refuse_callers(DisplacedError())
                if not demand.stages:  # else another stage waits for the same version
                    self._end_demand(demand)
            self._restart(old)  # if an alias still means it, its successor has failed
        self.rebalance()

    # --- reports of the pool ----------------------------------------------------------------------

    def became_ready(self, resident: Resident) -> None:
        """Give every waiter its lease."""
        demand = self._demands.get(resident.key)
        if resident.bytes > self._replica_limits().bytes:
            if demand is not None:
                self._end_demand(demand, self._too_big(resident.key, 1, resident.bytes))
            self._pool.end(resident, "too big for this gateway")
            return
        if demand is not None and resident.ready:
            self._count_waits(demand)
            demand.serve(lambda: self._pool.take(resident))
            if self._pool.count_ready(resident.key) >= demand.replicas:
                self._end_demand(demand)
        self.rebalance()

    def _count_waits(self, demand: Demand) -> None:
        """Count the callers of a version that had been evicted."""
        callers = sum(not waiter.done() for waiter in demand.waiters)
        if callers and demand.evicted_by is not None:
            self.eviction_costs.add(demand.evicted_by, callers, self._clock() - demand.since)

    def load_failed(self, resident: Resident, error: LoadError, pause_s: float) -> None:
        """Refuse every waiter."""
        self._background.pop(resident.key, None)
        self._restart(resident.key)  # after its pause
        demand = self._demands.get(resident.key)
        if demand is None:
            return
        refusal = ModelLoadFailedError(
            f"{resident.key} could not be loaded: {error.message}",
            retry_after_s=pause_s,
            failure=error.failure,
        )
        demand.end_stages(error)
        self._end_demand(demand, refusal)

    def replica_ended(self, resident: Resident, *, died: bool) -> None:
        """Use the room. Callers that joined as the replica died wait for the next one."""
        release_all(partial(self._follow_end, resident.key, died=died), self.rebalance)

    def _follow_end(self, key: ArtifactRef, *, died: bool) -> None:
        self.end_unless_awaited(key)
        if not died:
            return
        if (demand := self._demands.get(key)) is not None:
            try:
                self._pause(demand)
            except ModelLoadFailedError as error:  # it dies too often
                self._end_demand(demand, error)
        if not self._closed:
            self._restart(key)

    def measured(self, resident: Resident, private_bytes: int) -> None:
        """Take the measured size of a replica, and end replicas if that is too much.

        The expected size of the next load stays: that of the last replica when it became ready.
        """
        resident.bytes = private_bytes
        if private_bytes > self._replica_limits().bytes:
            # Evicting others would not help.
            self._pool.drain(resident, "it holds more than this gateway may have")
        self.rebalance()

    # --- ends of waits ----------------------------------------------------------------------------

    def _end_demand(self, demand: Demand, error: Exception | None = None) -> None:
        """End every wait, with an error or, once the callers have their leases, with success."""
        if self._demands.get(demand.key) is demand:
            del self._demands[demand.key]
        demand.end_stages(error)
        if error is not None:
            demand.refuse_callers(error)

    def end_unless_awaited(self, key: ArtifactRef) -> None:
        """End a demand whose last waiter has left."""
        demand = self._demands.get(key)
        if demand is not None and not demand.is_awaited:
            self._end_demand(demand)

    def _fail_stages(self, demand: Demand, error: Exception) -> None:
        """Fail the stages of a demand; callers may go on waiting."""
        demand.end_stages(error)
        self.end_unless_awaited(demand.key)

    def too_late(self, key: ArtifactRef) -> ModelLoadingError:
        """Return the refusal of a caller that waited for the whole load budget."""
        what = f"{key} is still loading after"
        if not self._is_loading(key):
            what = f"no worker could make room for {key} within"
        return ModelLoadingError(
            f"{what} {self._load_budget_s:g} s",
            retry_after_s=self._load_history.expected_load_s(key),
        )

    def _too_big(self, key: ArtifactRef, replicas: int, needed: int) -> InsufficientMemoryError:
        subject = f"{key} needs" if replicas == 1 else f"{replicas} workers of {key} need"
        return InsufficientMemoryError(
            f"{subject} about {replicas * needed // _MIB} MiB; {self._allowed()}"
        )

    def _no_room_beside_standbys(self, demand: Demand) -> ModelLoadingError:
        standbys = [one for one in self.standbys.values() if one.key == demand.key]
        replacing = any(one.replaces and one.swap == "blue_green" for one in standbys)
        advice = "; tag it with gateway.swap=auto to end the old version first"
        return ModelLoadingError(
            f"no room for {demand.key} beside versions that are being replaced or staged: "
            f"{self._allowed()}{advice if replacing else ''}",
            retry_after_s=self._load_history.expected_load_s(demand.key),
        )

    def _allowed(self) -> str:
        limits = self._limits
        return f"this gateway may have {limits.count} workers and {limits.bytes // _MIB} MiB"
