"""The loop that has `decision.decide` applied, and tells callers and stages what became of it.

It looks whenever something has changed that the decision may see: a demand came or left, a worker
came up, was released or has gone, a pause is over. While something waits, it looks once in
``TURN_WAIT_S`` too. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Protocol, assert_never

import structlog

from gateway.contract import ReplicaKey
from gateway.errors import (
    DisplacedError,
    DrainingError,
    InsufficientMemoryError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
)
from gateway.serving.replica import ReplicaState
from gateway.serving.residency import decision
from gateway.serving.residency.decision import (
    Action,
    BackgroundLoad,
    CloseToNew,
    DemandView,
    Displace,
    Drain,
    Evict,
    Fail,
    ResidentLimits,
    Snapshot,
    Start,
    Why,
    decide,
)
from gateway.serving.residency.lease import Lease
from gateway.serving.residency.load_history import TrackRecord
from gateway.serving.residency.replica_pool import Resident, Workers
from gateway.serving.residency.standbys import Standby, Standbys, displaced
from gateway.serving.residency.waiters import Demand
from gateway.system import release_all

LEAST_LOADS_AT_ONCE = 2
_SOON_S = 0.005
_SHORTEST_WAIT_S = 0.001
_DEMANDS_SEEN = 64
"""The oldest; a look costs the same however many versions are waited for."""
_MIB = 1024 * 1024
_log = structlog.get_logger("gateway.serving.residency.load_queue")


class Versions(Protocol):
    """Answers that the resident set needs about a version."""

    def estimate(self, key: ReplicaKey) -> int:
        """Guess the bytes of a version that was never measured."""
        ...

    def replicas(self, key: ReplicaKey) -> int:
        """Return how many workers it ought to have when it has any."""
        ...

    def returns(self, key: ReplicaKey) -> bool:
        """Whether a worker that died is replaced before a caller asks for it."""
        ...

    def keep_resident(self, key: ReplicaKey) -> bool:
        """Whether its tag says that its workers are the last to make room."""
        ...


class LoadQueue:
    """Starts and ends workers, and answers whoever waits for them."""

    def __init__(
        self,
        workers: Workers,
        standbys: Standbys,
        *,
        limits: ResidentLimits,
        versions: Versions,
        track_record: TrackRecord,
        loads_at_once: int,
        load_budget_s: float,
        clock: Callable[[], float],
        take: Callable[[Resident], Lease],
        on_change: Callable[[], None],
    ) -> None:
        """Store.

        Args:
            workers: The workers; whose owner this is.
            standbys: Whom to spare, and who may make room for whom.
            limits: The most workers, and the most bytes, the forkserver's among them.
            versions: Knows what is asked of each version.
            track_record: What loads have cost, and which versions are left alone.
            loads_at_once: How many may be under way, slow ones left out; at least 2.
            load_budget_s: How long a load may wait for room before its waiters are told.
            clock: Monotonic seconds.
            take: Takes a lease on a worker, for a waiter.
            on_change: Called whenever a worker came up or has gone.
        """
        self._workers = workers
        self._standbys = standbys
        self._limits = limits
        self._versions = versions
        self._track_record = track_record
        self._loads_at_once = loads_at_once
        self._load_budget_s = load_budget_s
        self._clock = clock
        self._take = take
        self._on_change = on_change
        self._demands: dict[ReplicaKey, Demand] = {}
        self._named: dict[ReplicaKey, None] = {}
        self._returning: dict[ReplicaKey, None] = {}
        self._drains: dict[int, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._is_looking = False
        self._closed = False

    def __len__(self) -> int:
        """Return how many versions are waited for."""
        return len(self._demands)

    def keys(self) -> list[ReplicaKey]:
        """Return the versions that are to have a worker, and have none yet."""
        return [*self._demands, *self.background()]

    def background(self) -> list[ReplicaKey]:
        """Return the versions that are to have a worker as soon as there is room.

        One whose worker died or made room returns only as long as its alias means it: once that has
        moved, it would come up beside its successor, and some may not run twice.
        """
        self._returning = {key: None for key in self._returning if self._versions.returns(key)}
        return list({**self._named, **self._returning})

    def forget(self, key: ReplicaKey) -> None:
        """Bring a version up no more, unless it is waited for."""
        self._named.pop(key, None)
        self._returning.pop(key, None)
        self.drop_unless_awaited(key)

    def close(self) -> None:
        """Start nothing more, and refuse everybody who waits."""
        self._closed = True
        self._named.clear()
        self._returning.clear()
        if self._timer is not None:
            self._timer.cancel()
        error = DrainingError("the gateway is shutting down")
        release_all(*(partial(self.drop, one, error) for one in list(self._demands.values())))

    # --- one load per version ---------------------------------------------------------------------

    def join(self, key: ReplicaKey) -> Demand:
        """Return the demand for a version; a new one, unless the version is waited for already.

        Raises:
            ModelLoadFailedError: Its load failed a moment ago.
            DrainingError: The gateway is shutting down.
        """
        if self._closed:
            raise DrainingError("the gateway is shutting down")
        demand = self._demands.get(key)
        if demand is not None:
            return demand
        demand = Demand(key, since=self._clock())
        if not self._is_loading(key):
            self._pause(demand)
        self._demands[key] = demand
        # In the next turn: whoever joins here has still to add its waiter, to be told a refusal.
        asyncio.get_running_loop().call_soon(self.look)
        return demand

    def _is_loading(self, key: ReplicaKey) -> bool:
        return any(one.coming_up for one in self._workers.of(key))

    def _pause(self, demand: Demand) -> None:
        """Have a load wait, if its version is left alone for now.

        Raises:
            ModelLoadFailedError: Waiting would be in vain.
        """
        demand.paused_until = self._clock() + self._track_record.pause_s(demand.key)

    def bring_up(self, keys: Sequence[ReplicaKey]) -> None:
        """Load versions without a caller, in this order, as far as there is free room."""
        self._named.update(dict.fromkeys(keys))
        self.look()

    def _bring_back(self, key: ReplicaKey) -> None:
        if self._versions.returns(key):
            self._returning.setdefault(key)

    # --- the loop ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Apply what is decided until nothing is left to do."""
        if self._closed or self._is_looking:
            return  # what is being applied has called back: the loop looks again anyway
        self._is_looking = True
        try:
            while actions := decide(self._snapshot()):
                for action in actions:
                    self._apply(action)
        except Exception:  # noqa: BLE001  # the next look must come, whatever raises below
            _log.exception("residency.failed")
            self._look_within(decision.TURN_WAIT_S)
        finally:
            self._is_looking = False
        self._look_when_due()

    def look_soon(self) -> None:
        """Look in a moment: once for all requests that end until then."""
        self._look_within(_SOON_S)

    def _look_when_due(self) -> None:
        """Look again while something waits: for its turn, for a slow load or for a pause."""
        waits = [decision.TURN_WAIT_S] if self._demands or self._lacking() else []
        now = self._clock()
        paused = (one.paused_until - now for one in self._demands.values())
        resting = (self._track_record.pause_left_s(key) for key in self.background())
        waits += [left_s for left_s in (*paused, *resting) if left_s > 0]
        if waits:
            self._look_within(max(_SHORTEST_WAIT_S, min(waits)))

    def _look_within(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + wait_s
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due, self._timer = due, loop.call_later(wait_s, self._timed_look)

    def _timed_look(self) -> None:
        self._timer = None
        self.look()

    def _snapshot(self) -> Snapshot:
        now = self._clock()
        self._workers.cool(now)
        limits = self._room()
        ready = (one for one in self._demands.values() if one.paused_until <= now)
        keys = self._workers.keys()
        return Snapshot(
            now=now,
            limits=limits,
            loads_at_once=self._loads_at_once,
            replicas=[
                one.view(now, keep_resident=self._versions.keep_resident(one.key))
                for one in self._workers.all()
            ],
            demands=[self._view(one, limits) for one in islice(ready, _DEMANDS_SEEN)],
            standbys=self._standbys.all(),
            background=[
                BackgroundLoad(key, self._needed(key, limits))
                for key in self._lacking()
                if self._track_record.pause_left_s(key) == 0
            ],
            wanted={key: self._versions.replicas(key) for key in keys},
        )

    def _view(self, demand: Demand, limits: ResidentLimits) -> DemandView:
        return DemandView(
            key=demand.key,
            since=demand.since,
            bytes=self._needed(demand.key, limits),
            replicas=demand.replicas,
            keep_resident=self._versions.keep_resident(demand.key),
            is_staged=bool(demand.stages),
            stage_deadline=(
                demand.staged_at + self._load_budget_s if demand.stages else float("inf")
            ),
        )

    def _room(self) -> ResidentLimits:
        """Return what there is for workers: the forkserver holds the rest."""
        return replace(self._limits, bytes=self._limits.bytes - self._workers.shared)

    def _needed(self, key: ReplicaKey, limits: ResidentLimits) -> int:
        """Return the bytes that the next load takes at most, as far as is known.

        Neither a guess nor a peak, which is over when the worker is ready, is ever so many that the
        load is not even tried.
        """
        known = self._track_record.bytes_of(key)
        if known is None:
            of_model = self._track_record.bytes_of_model(key.model)
            return min(max(of_model, self._versions.estimate(key)), limits.bytes)
        return max(known, min(self._track_record.peak_bytes_of(key), limits.bytes))

    def _lacking(self) -> list[ReplicaKey]:
        """Return the versions that ought to have a worker more, the most wanted first."""
        lacking = [key for key in self.background() if not self._workers.of(key)]
        for one in reversed(self._workers.by_use()):
            group = [other for other in self._workers.of(one.key) if not other.wrong]
            steady = all(other.ready for other in group)  # not while one comes up, or goes
            if (
                steady
                and not one.cold
                and not one.wrong
                and len(group) < self._versions.replicas(one.key)
            ):
                lacking.append(one.key)
        gone = displaced(self._standbys.all())
        return [key for key in dict.fromkeys(lacking) if key not in gone]

    def _apply(self, action: Action) -> None:
        match action:
            case Start():
                self._named.pop(action.key, None)
                self._returning.pop(action.key, None)
                self._workers.start(action.key, action.bytes)
            case Evict():
                victim = self._workers.numbered(action.number)
                self._workers.end(victim, action.reason, evicted=True)
            case CloseToNew():
                self._workers.numbered(action.number).close_to_new(self._clock())
            case Drain():
                surplus = self._workers.numbered(action.number)
                self._drain(surplus, "its version is to have fewer workers")
            case Displace():
                self._displace(action.standby)
            case Fail():
                self._fail(action)
            case _:
                assert_never(action)

    def _displace(self, standby: Standby) -> None:
        """Let the old version's workers finish what they have, and take no more."""
        self._standbys.displace(standby)
        if standby.replaces is not None:
            self._named.pop(standby.replaces, None)
            self._returning.pop(standby.replaces, None)  # it comes back if its successor fails
            self.retire(standby.replaces, "unloaded first: its successor needs the room")

    def _fail(self, action: Fail) -> None:
        demand = self._demands[action.key]
        match action.why:
            case Why.TOO_BIG:
                self.drop(demand, self._too_big(action.key, demand.replicas, action.bytes))
            case Why.NO_ROOM_BESIDE_STANDBYS:
                self._fail_stages(demand, self._no_room_beside_standbys(demand))
            case Why.STAGE_TOO_LATE:
                self._fail_stages(demand, self.too_late(action.key))
            case _:
                assert_never(action.why)

    # --- ends -------------------------------------------------------------------------------------

    def retire(self, key: ReplicaKey, reason: str) -> None:
        """Drain and end a version: no new leases; each worker ends with its last one."""
        for one in list(self._workers.of(key)):
            self._drain(one, reason)

    def _drain(self, resident: Resident, reason: str) -> None:
        resident.close_to_new(self._clock())
        if resident.leases:
            self._drains[resident.number] = reason
        else:
            self._workers.end(resident, reason)

    def drained(self, resident: Resident) -> None:
        """End a worker that takes no new leases, and has given its last one back."""
        if resident.replica.state is ReplicaState.STOPPED:
            return  # it died with that one inside: `gone` is told next, as of any death
        reason = self._drains.get(resident.number)
        if reason is not None:  # whether it is wrong or not: no other is to take its place
            self._workers.end(resident, reason)
        elif resident.wrong:
            resident.replica.stop(resident.wrong)  # it dies, as far as anybody else is concerned
        else:
            self._workers.end(resident, "evicted: it had its turn", evicted=True)

    def end_stage(self, standby: Standby) -> None:
        """Let a version that made room come back, or its callers go to its successor.

        Whoever waits for it asks anew whom it means.
        """
        old = standby.replaces
        if standby.displaces and old is not None and old not in displaced(self._standbys.all()):
            if (demand := self._demands.get(old)) is not None:
                demand.refuse_callers(DisplacedError())
                if not demand.stages:  # another stage may want it back: it goes on
                    self.drop(demand)
            self._bring_back(old)  # if its alias means it still, the successor has failed
        self.look()

    # --- what became of a worker ------------------------------------------------------------------

    def came_up(self, resident: Resident) -> None:
        """Give every waiter its lease; called by `Workers`."""
        demand = self._demands.get(resident.key)
        if resident.bytes > self._room().bytes:
            if demand is not None:
                self.drop(demand, self._too_big(resident.key, 1, resident.bytes))
            self._workers.end(resident, "too big for this gateway")
            return
        if demand is not None and resident.ready:
            demand.serve(lambda: self._take(resident))
            if self._workers.count_ready(resident.key) >= demand.replicas:
                self.drop(demand)
        self._on_change()
        self.look()

    def failed(self, resident: Resident, error: LoadError, pause_s: float) -> None:
        """Refuse every waiter; called by `Workers`."""
        self._named.pop(resident.key, None)
        self._bring_back(resident.key)  # when its pause is over
        demand = self._demands.get(resident.key)
        if demand is None:
            return
        told = ModelLoadFailedError(
            f"{resident.key} could not be loaded: {error.message}", retry_after_s=pause_s
        )
        told.__cause__ = error
        self.drop(demand, told)

    def gone(self, resident: Resident, *, died: bool) -> None:
        """Let others have the room; called by `Workers`.

        Callers who joined the worker in the moment of its death wait for the next one.
        """
        self._drains.pop(resident.number, None)
        release_all(self._on_change, partial(self._follow_end, resident.key, died=died), self.look)

    def _follow_end(self, key: ReplicaKey, *, died: bool) -> None:
        self.drop_unless_awaited(key)
        if not died:
            return
        if (demand := self._demands.get(key)) is not None:
            try:
                self._pause(demand)
            except ModelLoadFailedError as error:  # it dies too often
                self.drop(demand, error)
        if not self._closed:
            self._bring_back(key)

    def measured(self, resident: Resident, private_bytes: int) -> None:
        """Take what a worker has measured of itself since; some go if it is too much.

        What it has grown to is no measure of the next load: that begins with what the last one
        held when it was ready.
        """
        resident.bytes = private_bytes
        if private_bytes > self._room().bytes:
            self._drain(resident, "it holds more than this gateway may have")
            return  # no other makes room for it in vain
        self.look()

    # --- refusals ---------------------------------------------------------------------------------

    def drop(self, demand: Demand, error: Exception | None = None) -> None:
        """End a demand: it was met, or its waiters are told why not."""
        if self._demands.get(demand.key) is demand:
            del self._demands[demand.key]
        demand.end(error)

    def drop_unless_awaited(self, key: ReplicaKey) -> None:
        """End a demand whose last waiter has left."""
        demand = self._demands.get(key)
        if demand is not None and not demand.is_awaited:
            self.drop(demand)

    def _fail_stages(self, demand: Demand, error: Exception) -> None:
        """Fail the stages that wait; callers may go on waiting."""
        demand.end_stages(error)
        self.drop_unless_awaited(demand.key)

    def too_late(self, key: ReplicaKey) -> ModelLoadingError:
        """Return what a caller is told who has waited for the whole load budget."""
        what = f"{key} is still loading after"
        if not self._is_loading(key):
            what = f"no worker could make room for {key} within"
        return ModelLoadingError(
            f"{what} {self._load_budget_s:g} s",
            retry_after_s=self._track_record.expected_load_s(key),
        )

    def _too_big(self, key: ReplicaKey, replicas: int, needed: int) -> InsufficientMemoryError:
        who = f"{key} needs" if replicas == 1 else f"{replicas} workers of {key} need"
        return InsufficientMemoryError(
            f"{who} about {replicas * needed // _MIB} MiB; {self._allowed()}"
        )

    def _no_room_beside_standbys(self, demand: Demand) -> ModelLoadingError:
        standbys = [one for one in self._standbys.all() if one.key == demand.key]
        replacing = any(one.replaces and one.swap == "blue_green" for one in standbys)
        advice = "; tag it with gateway.swap=auto to end the old version first"
        return ModelLoadingError(
            f"no room for {demand.key} beside versions that are being replaced or staged: "
            f"{self._allowed()}{advice if replacing else ''}",
            retry_after_s=self._track_record.expected_load_s(demand.key),
        )

    def _allowed(self) -> str:
        limits = self._limits
        return f"this gateway may have {limits.count} workers and {limits.bytes // _MIB} MiB"
