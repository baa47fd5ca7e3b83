"""Who comes up next, and who goes for it: one load per version, oldest demand first.

What waits is a demand (callers, stages) or a wish (nobody waits, and nobody is evicted for it).
What is decided about room (`gateway.room`) and about the order (`gateway.turns`) is carried out
here. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

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
from gateway.serving.residency.capacity import Occupancy, Versions
from gateway.serving.residency.eviction import (
    ResidentView,
    Room,
    how_many_fit,
    plan_eviction,
    without,
    without_freshness,
)
from gateway.serving.residency.fairness import Turns
from gateway.serving.residency.lease import Lease
from gateway.serving.residency.load_history import TrackRecord
from gateway.serving.residency.replica_pool import Resident, Workers
from gateway.serving.residency.standbys import Stage, Stages
from gateway.serving.residency.waiters import Demand
from gateway.system import release_all

LEAST_LOADS_AT_ONCE = 2
SLOW_LOAD_S = 5.0
"""A load that takes longer holds up no other, so that three big models do not make the callers of a
small one wait; but in all there are never more than twice as many as may be under way at a time."""
_SOON_S = 0.005
_MIB = 1024 * 1024


class LoadQueue:
    """Starts and ends workers, and tells whoever waits for them."""

    def __init__(
        self,
        workers: Workers,
        stages: Stages,
        *,
        versions: Versions,
        track_record: TrackRecord,
        occupancy: Occupancy,
        turns: Turns,
        loads_at_once: int,
        load_budget_s: float,
        clock: Callable[[], float],
        take: Callable[[Resident], Lease],
        on_change: Callable[[], None],
    ) -> None:
        """Store.

        Args:
            workers: The workers; whose owner this is.
            stages: Whom to spare, and who may make room for whom.
            versions: Knows what is asked of each version.
            track_record: What loads have cost, and which versions are left alone.
            occupancy: What is held, and what there is.
            turns: Whose turn it is.
            loads_at_once: How many may be under way, slow ones left out; at least 2.
            load_budget_s: How long a load may wait for room before its waiters are told.
            clock: Monotonic seconds.
            take: Takes a lease on a worker, for a waiter.
            on_change: Told whenever a worker came up or has gone.
        """
        self._workers = workers
        self._stages = stages
        self._versions = versions
        self._track_record = track_record
        self._occupancy = occupancy
        self._turns = turns
        self._loads_at_once = loads_at_once
        self._load_budget_s = load_budget_s
        self._clock = clock
        self._take = take
        self._on_change = on_change
        self._demands: dict[ReplicaKey, Demand] = {}
        # True: it was asked for by name; False: it is wished for only as long as it goes last.
        self._wishes: dict[ReplicaKey, bool] = {}
        self._let_go: dict[int, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._closed = False

    def __len__(self) -> int:
        """Count the versions that somebody waits for."""
        return len(self._demands)

    def keys(self) -> list[ReplicaKey]:
        """Return the versions that are to have a worker, and have none yet."""
        return [*self._demands, *self.wishes()]

    def wishes(self) -> list[ReplicaKey]:
        """Return the versions that are to have a worker as soon as there is room."""
        goes_last = self._versions.goes_last
        return [key for key, is_named in self._wishes.items() if is_named or goes_last(key)]

    def _wish_back(self, key: ReplicaKey) -> None:
        """Bring a version that goes last up again, as long as it does.

        Once its alias has moved, it would come up beside its successor, and some may not run twice.
        """
        if self._versions.goes_last(key):
            self._wishes.setdefault(key, False)

    def forget(self, key: ReplicaKey) -> None:
        """Bring a version up no more, unless somebody waits for it."""
        self._wishes.pop(key, None)
        demand = self._demands.get(key)
        if demand is not None and not demand.is_awaited:
            self.drop(demand)

    def close(self) -> None:
        """Start nothing more, and tell everybody who waits."""
        self._closed = True
        self._wishes.clear()
        if self._timer is not None:
            self._timer.cancel()
        error = DrainingError("the gateway is shutting down")
        release_all(*(partial(self.drop, one, error) for one in list(self._demands.values())))

    # --- one load per version ---------------------------------------------------------------------

    def join(self, key: ReplicaKey) -> Demand:
        """Return the demand for a version; a new one, if nobody has waited for it until now.

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
        if not self._is_coming_up(key):
            self._pause(demand)
        self._demands[key] = demand
        loop = asyncio.get_running_loop()
        wait_s = min(self._turns.wait_s, self._load_budget_s)
        demand.timer = loop.call_later(wait_s, self._turn, demand)
        # In the next turn: whoever joins here has still to add its waiter, to be told a refusal.
        loop.call_soon(self.pump)
        return demand

    def _is_coming_up(self, key: ReplicaKey) -> bool:
        return any(one.coming_up for one in self._workers.of(key))

    def _pause(self, demand: Demand) -> None:
        """Have a load wait, if its version is left alone for now.

        Raises:
            ModelLoadFailedError: Waiting would be in vain.
        """
        pause_s = self._track_record.pause_s(demand.key)
        if pause_s > 0:
            demand.pausing = True
            asyncio.get_running_loop().call_later(pause_s, self._end_pause, demand)

    def _end_pause(self, demand: Demand) -> None:
        demand.pausing = False
        self.pump()

    def pump(self) -> None:
        """Start whom there is room for, or will be once those that are idle have made it."""
        self._end_surplus()
        while not self._closed and self._loading() < self._loads_at_once:
            # Whose predecessor is still ending, or who pauses, waits for that; others need not.
            waiting = list(self._startable())
            if not waiting:
                self._fill()
                return
            if not self._start_one_of(waiting):
                return

    def _start_one_of(self, waiting: Sequence[Demand]) -> bool:
        """Start the oldest that may start now, or make room for it. False: each has to wait."""
        views = self._occupancy.views()
        turn: Demand | None = None
        staying: list[ResidentView] = []
        for demand in waiting:
            may_try = turn is None or self._turns.leaves_room(turn, staying, demand)
            if may_try and self._start_or_drop(demand):
                return True
            if not self._turns.has_waited_long(demand):
                return False
            if turn is None and self._turns.has_turn(demand, views):
                staying = self._turns.staying(demand, views, started_after=demand.since)
                turn = demand
        return False

    def pump_soon(self) -> None:
        """Look again in a moment: once for all requests that end until then."""
        self._pump_later(_SOON_S)

    def _pump_later(self, wait_s: float) -> None:
        """Look again after a while, unless a look is due before."""
        loop = asyncio.get_running_loop()
        due = loop.time() + wait_s
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due, self._timer = due, loop.call_later(wait_s, self._look)

    def _look(self) -> None:
        """Look again; a timer that comes a moment before its time, as uvloop's may, is over too."""
        self._timer = None
        self.pump()

    def _startable(self) -> Iterator[Demand]:
        return (demand for demand in self._demands.values() if self._may_start(demand))

    def _may_start(self, demand: Demand) -> bool:
        group = [one for one in self._workers.of(demand.key) if not one.wrong]
        if demand.pausing or demand.key in self._stages.displaced():
            return False
        if len(group) >= demand.replicas:
            return False
        if any(one.ending or one.closed_to_new for one in group):
            return False
        return not any(
            one.displaces and one.replaces and self._workers.of(one.replaces)
            for one in self._stages.of(demand.key)
        )

    def _start_or_drop(self, demand: Demand) -> bool:
        """Start a worker, make room for it, or tell why there will be none. False: it has to wait.

        True: others may have changed meanwhile, so look at everybody anew.
        """
        needed, room = self._occupancy.needed(demand.key), self._occupancy.room()
        if how_many_fit(needed, room) < demand.replicas:
            self.drop(demand, self._too_big(demand.key, demand.replicas, needed))
            return True
        if self._displace_first(demand):
            return True
        views = self._occupancy.views_for(demand.key)
        plan = plan_eviction(views, needed, room)
        for number in plan.victims:
            victim = self._workers.numbered(number)
            self._workers.end(victim, "evicted: room was needed", evicted=True)
        if plan.victims:
            return True
        if plan.room is Room.FITS:
            self._start(demand.key, needed)
            return True
        if plan.room is Room.WAIT and self._displace_for_room(demand, views, needed):
            return False
        if plan.room is Room.WAIT and demand.stages:
            spared = [view for view in views if view.spared and not view.ending]
            if plan_eviction(spared, needed, room).room is Room.WAIT:
                self._fail_stages(demand, self._no_room_beside_spared(demand))
                return True
        now = self._clock()
        if fresh := [one.fresh_until for one in self._workers.all() if one.is_fresh(now)]:
            self._pump_later(min(fresh) - now)
        return False

    def _start(self, key: ReplicaKey, needed: int) -> None:
        self._wishes.pop(key, None)
        self._workers.start(key, needed)

    def _loading(self) -> int:
        """Count the loads under way.

        Slow ones hold up nobody, but no more of them are left out than may be under way at a time.
        """
        slow, began = self._clock() - SLOW_LOAD_S, self._loads_began()
        return max(sum(at > slow for at in began), len(began) - self._loads_at_once)

    def _loads_began(self) -> list[float]:
        workers = self._workers.all()
        return [one.started_at for one in workers if one.replica.loaded is None and not one.ending]

    def _look_at_the_next_slow_load(self) -> None:
        """Look again as soon as one load more takes so long that it holds up no other."""
        now = self._clock()
        left_s = [at + SLOW_LOAD_S - now for at in self._loads_began() if at > now - SLOW_LOAD_S]
        if left_s:
            self._pump_later(min(left_s))

    # --- giving the place of the old version to the new one ---------------------------------------

    def _displace_first(self, demand: Demand) -> bool:
        """End the version that is to be replaced, where that comes first. True: there was one."""
        found = False
        for stage in self._stages.of(demand.key):
            if stage.swap == "unload_first" and not stage.displaces:
                found = self._displace(stage) or found
        return found

    def _displace_for_room(
        self, demand: Demand, views: Sequence[ResidentView], needed: int
    ) -> bool:
        """End the version that is to be replaced, if only that makes the room, and may be done."""
        stages = self._stages.of(demand.key)
        may = [stage for stage in stages if stage.swap == "auto" and not stage.displaces]
        if not may:
            return False
        room = self._occupancy.room()
        staying = without_freshness(view for view in views if not view.ending)
        if plan_eviction(staying, needed, room).room in (Room.FITS, Room.EVICT):
            return False  # others are about to go, or may go in a moment
        for stage in may:
            others = without_freshness(without(views, stage.replaces))
            if plan_eviction(others, needed, room).room in (Room.FITS, Room.EVICT):
                return self._displace(stage)
        return False

    def _displace(self, stage: Stage) -> bool:
        """Let the old version's workers finish what they have, and take no more."""
        if stage.replaces is None:
            return False
        stage.displaces = True
        self._wishes.pop(stage.replaces, None)  # it comes back if its successor fails
        self.retire(stage.replaces, "unloaded first: its successor needs the room")
        return True

    def retire(self, key: ReplicaKey, reason: str) -> None:
        """Drain and end a version: no new leases; each worker ends with its last one."""
        for one in list(self._workers.of(key)):
            self._end_drained(one, reason)

    def _end_drained(self, resident: Resident, reason: str) -> None:
        """End a worker with its last lease, for nobody's sake."""
        resident.close_to_new(self._clock())
        if resident.leases:
            self._let_go[resident.number] = reason
        else:
            self._workers.end(resident, reason)

    def drained(self, resident: Resident) -> None:
        """End a worker that takes no new leases, and has given its last one back."""
        if resident.replica.state is ReplicaState.STOPPED:
            return  # it died with that one inside: `gone` is told next, as of any death
        reason = self._let_go.get(resident.number)
        if reason is not None:  # whether it is wrong or not: nobody is to take its place
            self._workers.end(resident, reason)
        elif resident.wrong:
            resident.replica.stop(resident.wrong)  # it dies, as far as anybody else is concerned
        else:
            self._workers.end(resident, "evicted: it had its turn", evicted=True)

    def end_stage(self, stage: Stage) -> None:
        """Let a version that made room come back, or its callers go to its successor.

        Whoever waits for it asks anew whom it means.
        """
        old = stage.replaces
        if stage.displaces and old is not None and old not in self._stages.displaced():
            if (demand := self._demands.get(old)) is not None:
                demand.tell_callers(DisplacedError())
                if not demand.stages:  # another stage may want it back: it goes on
                    self.drop(demand)
            self._wish_back(old)  # if it still goes last, the successor has failed
        self.pump()

    # --- a turn for who waits long ----------------------------------------------------------------

    def _turn(self, demand: Demand) -> None:
        """A load has waited long: somebody busy must go, or the load is given up."""
        if self._demands.get(demand.key) is not demand:
            return
        # First of all: whatever becomes of this turn, the next one comes. Its end cancels it.
        demand.timer = asyncio.get_running_loop().call_later(self._turns.wait_s, self._turn, demand)
        if not self._is_coming_up(demand.key):
            if demand.stages and self._clock() >= demand.staged_at + self._load_budget_s:
                self._fail_stages(demand, self.too_late(demand.key))
            if not demand.is_awaited:  # callers give up by themselves, each in its own time
                self.drop(demand)
                return
        if self._loading() < self._loads_at_once:
            busy = self._turns.in_the_way_of(demand, self._startable())
            if busy is not None:
                busy.close_to_new(self._clock())
        self.pump()

    # --- filling free room ------------------------------------------------------------------------

    def bring_up(self, keys: Sequence[ReplicaKey]) -> None:
        """Load versions that nobody waits for, in this order, as far as there is free room."""
        self._wishes.update(dict.fromkeys(keys, True))
        self.pump()

    def _fill(self) -> None:
        """Start what nobody waits for where there is free room: nobody is evicted for it."""
        self._wishes = {key: self._wishes[key] for key in self.wishes()}
        for key in self._lacking():
            if self._loading() >= self._loads_at_once - 1:  # one is kept for who will be waited for
                self._look_at_the_next_slow_load()
                return
            rest_s = self._track_record.rest_s(key)
            if rest_s > 0:
                self._pump_later(rest_s)
                continue
            needed = self._occupancy.needed(key)
            room, views = self._occupancy.room(), self._occupancy.views()
            if plan_eviction(views, needed, room).room is Room.FITS:
                self._start(key, needed)

    def _end_surplus(self) -> None:
        """End the least used workers of versions that have more than they are to have now.

        Not while one of them comes up or goes, nor while the version is staged or replaced.
        """
        if self._closed:
            return
        spared, keys = self._stages.spared(), self._workers.keys()
        for key in keys:
            group = self._workers.of(key)
            surplus = len(group) - self._versions.replicas(key) if len(group) > 1 else 0
            if surplus > 0 and key not in spared and all(one.ready for one in group):
                for one in sorted(group, key=lambda one: one.heat)[:surplus]:
                    self._end_drained(one, "its version is to have fewer workers")

    def _lacking(self) -> list[ReplicaKey]:
        """Return the versions that ought to have a worker more, the most wanted first."""
        lacking = [key for key in self.wishes() if not self._workers.of(key)]
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
        displaced = self._stages.displaced()
        return [key for key in dict.fromkeys(lacking) if key not in displaced]

    # --- what became of a worker ------------------------------------------------------------------

    def came_up(self, resident: Resident) -> None:
        """Give every waiter its lease; called by `Workers`."""
        self._track_record.guessed(resident.key, self._versions.estimate(resident.key))
        demand = self._demands.get(resident.key)
        if resident.bytes > self._occupancy.room().bytes:
            if demand is not None:
                self.drop(demand, self._too_big(resident.key, 1, resident.bytes))
            self._workers.end(resident, "too big for this gateway")
            return
        if demand is not None and resident.ready:
            demand.serve(lambda: self._take(resident))
            if self._workers.count_ready(resident.key) >= demand.replicas:
                self.drop(demand)
        self._on_change()
        self._trim()
        self.pump()

    def failed(self, resident: Resident, error: LoadError, pause_s: float) -> None:
        """Tell every waiter; called by `Workers`."""
        self._wishes.pop(resident.key, None)
        self._wish_back(resident.key)  # when its rest is over
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
        self._let_go.pop(resident.number, None)
        release_all(self._on_change, partial(self._follow_end, resident.key, died=died), self.pump)

    def _follow_end(self, key: ReplicaKey, *, died: bool) -> None:
        demand = self._demands.get(key)
        if demand is not None and not demand.is_awaited:
            self.drop(demand)
        elif died and demand is not None:
            self._wait_out(demand)
        if died and not self._closed:
            self._wish_back(key)

    def _wait_out(self, demand: Demand) -> None:
        """Leave a version alone that dies too often, whoever waits for it."""
        try:
            self._pause(demand)
        except ModelLoadFailedError as error:
            self.drop(demand, error)

    def measured(self, resident: Resident, private_bytes: int) -> None:
        """Take what a worker has measured of itself since; some go if it is too much.

        What it has grown to is no measure of the next load: that begins with what the last one
        held when it was ready.
        """
        resident.bytes = private_bytes
        if private_bytes > self._occupancy.room().bytes:
            self._end_drained(resident, "it holds more than this gateway may have")
            return  # nobody makes room for it in vain
        self._trim()

    def _trim(self) -> None:
        """End idle residents while more bytes are held than allowed; else the biggest busy one.

        An estimate was too low, or a worker grows.
        """
        room = self._occupancy.room()
        views = without_freshness(self._occupancy.views())
        plan = plan_eviction(views, 0, replace(room, count=self._occupancy.limits.count + 1))
        for number in plan.victims:
            victim = self._workers.numbered(number)
            self._workers.end(victim, "evicted: too many bytes are held", evicted=True)
        if plan.room is not Room.WAIT:
            return
        spared = {view.number for view in views if view.spared}
        staying = [one for one in self._workers.all() if not one.ending and not one.closed_to_new]
        busy = [one for one in staying if one.leases and one.ready and one.number not in spared]
        if busy and sum(one.bytes for one in staying) > room.bytes:
            max(busy, key=self._blame).close_to_new(self._clock())

    def _blame(self, resident: Resident) -> tuple[bool, int]:
        """Order by who is to go when too much is held: who has grown, and serves no alias."""
        grown = resident.bytes - (self._track_record.bytes_of(resident.key) or 0)
        return not self._versions.goes_last(resident.key), grown

    # --- refusals ---------------------------------------------------------------------------------

    def drop(self, demand: Demand, error: Exception | None = None) -> None:
        """End a demand: it was met, or its waiters are told why not."""
        if self._demands.get(demand.key) is demand:
            del self._demands[demand.key]
        demand.tell(error)

    def _fail_stages(self, demand: Demand, error: Exception) -> None:
        """Tell the stages that wait that it is over; callers may go on waiting."""
        demand.tell_stages(error)
        demand.replicas = 1
        if not demand.is_awaited:
            self.drop(demand)

    def too_late(self, key: ReplicaKey) -> ModelLoadingError:
        """Return what somebody is told who has waited for the whole load budget."""
        what = f"{key} is still loading after"
        if not self._is_coming_up(key):
            what = f"no worker could make room for {key} within"
        return ModelLoadingError(
            f"{what} {self._load_budget_s:g} s",
            retry_after_s=self._track_record.expected_load_s(key),
        )

    def _too_big(self, key: ReplicaKey, replicas: int, needed: int) -> InsufficientMemoryError:
        who = f"{key} needs" if replicas == 1 else f"{replicas} workers of {key} need"
        return InsufficientMemoryError(
            f"{who} about {replicas * needed // _MIB} MiB; this gateway may have {self._occupancy}"
        )

    def _no_room_beside_spared(self, demand: Demand) -> ModelLoadingError:
        replacing = [one.swap for one in self._stages.of(demand.key) if one.replaces is not None]
        advice = "; tag it with gateway.swap=auto to end the old version first"
        return ModelLoadingError(
            f"no room for {demand.key} beside versions that are being replaced or staged: this "
            f"gateway may have {self._occupancy}{advice if 'blue_green' in replacing else ''}",
            retry_after_s=self._track_record.expected_load_s(demand.key),
        )
