"""Whose turn it is when the residents are busy, and whom that closes to new callers.

Who waits longest is served first, and for `TURN_WAIT_S` nobody starts in its place. After that it
has a *turn* if there would be room once everybody whom it may have closed had gone: those are
closed one by one, and who waits behind it starts only where it will find its room all the same,
whoever has started since it waits staying. Without that it holds up nobody. Event loop only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from gateway.serving.residency.capacity import Occupancy, Versions
from gateway.serving.residency.eviction import ResidentView, Room, plan_eviction, without_freshness
from gateway.serving.residency.replica_pool import Resident, Workers
from gateway.serving.residency.waiters import Demand

TURN_WAIT_S = 1.0
"""After so long without an idle victim, the least recently used replica takes no new leases, so
that steady traffic on the residents cannot keep a newcomer out for ever."""
_LONG_TURNS = 5


class Turns:
    """Decides; `gateway.load_queue` carries it out."""

    def __init__(
        self,
        workers: Workers,
        occupancy: Occupancy,
        versions: Versions,
        clock: Callable[[], float],
    ) -> None:
        """Store; ``clock``: monotonic seconds."""
        self._workers = workers
        self._occupancy = occupancy
        self._versions = versions
        self._clock = clock

    @property
    def wait_s(self) -> float:
        """After how many seconds a demand is looked at, again and again."""
        return TURN_WAIT_S

    def has_waited_long(self, demand: Demand) -> bool:
        """Whether others may start in its place from now on, and it may have its turn."""
        return self._clock() >= demand.since + TURN_WAIT_S

    def has_turn(self, demand: Demand, views: Sequence[ResidentView]) -> bool:
        """Whether there would be room, were everybody gone whom it may have closed."""
        return self._fits_beside(self.staying(demand, views), demand)

    def leaves_room(self, first: Demand, staying: Sequence[ResidentView], newcomer: Demand) -> bool:
        """Whether another load may start although it is somebody's turn."""
        needed = self._occupancy.needed(newcomer.key)
        place = ResidentView(0, newcomer.key, needed, leases=1, last_used=self._clock())
        return self._fits_beside([*staying, place], first)

    def in_the_way_of(self, demand: Demand, waiting: Iterable[Demand]) -> Resident | None:
        """Return whom to close to new callers, so that the next load has its turn; mostly nobody.

        Who serves an active alias makes way for its like only.

        Args:
            demand: Who asks.
            waiting: Everybody who could start, were there room; oldest first.
        """
        views = self._occupancy.views()
        if demand is not next((one for one in waiting if self.has_turn(one, views)), None):
            return None
        residents = self._workers.by_use()
        # One at a time; but one that goes on for long with what it has is not waited for.
        if any(one.ending or (one.closed_to_new and not self._is_slow(one)) for one in residents):
            return None
        needed, room = self._occupancy.needed(demand.key), self._occupancy.room()
        if plan_eviction(without_freshness(views), needed, room).room is not Room.WAIT:
            return None
        stay = {view.number for view in self.staying(demand, views)}
        busy = [one for one in residents if one.leases and one.ready and one.number not in stay]
        return busy[0] if busy else None

    def staying(
        self, demand: Demand, views: Sequence[ResidentView], started_after: float = math.inf
    ) -> list[ResidentView]:
        """Return who stays although a demand waits: who neither is idle nor may be closed for it.

        Who comes up may be closed soon. Who started after ``started_after`` stays too.
        """
        stay = {
            one.number
            for one in self._workers.all()
            if one.started_at > started_after or self._is_slow(one)
        }
        is_like = self._versions.goes_last(demand.key)
        return [
            view
            for view in views
            if not view.ending
            and (
                view.number in stay
                or view.spared
                or (view.goes_last and view.leases and not is_like)
            )
        ]

    def _fits_beside(self, staying: Sequence[ResidentView], demand: Demand) -> bool:
        needed, room = self._occupancy.needed(demand.key), self._occupancy.room()
        return plan_eviction(staying, needed, room).room is Room.FITS

    def _is_slow(self, resident: Resident) -> bool:
        """Whether a worker was told to go long ago, and still has something to finish."""
        long_ago = self._clock() - _LONG_TURNS * TURN_WAIT_S
        return resident.closed_to_new and resident.closed_at <= long_ago
