"""The decision who goes when a worker needs room. Pure: snapshots in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.contract import ReplicaKey


@dataclass(frozen=True, slots=True)
class ResidentLimits:
    """Both cover workers of every state; ``bytes`` includes the forkserver's own."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ResidentView:
    """What a decision may see of a resident.

    Attributes:
        number: Which worker: a version may have several.
        bytes: What it holds; of one that is coming up, the most that its load is expected to need.
        last_used: Monotonic seconds.
        cold: It was warmed once, and no caller has used it: the first to go.
        pinned: Its tag says that it is the last to go.
        goes_last: It serves an active alias, or is pinned: while it is busy, it is closed to new
            callers for its like only.
        fresh: It was loaded moments ago: where it is the next to go, a load waits a moment, or two
            versions that take turns in one place would do nothing but load.
        one_shot: It has had no more calls than the one for which it was loaded.
        spared: A standby in its time, or a version whose successor is not ready yet.
        ending: Told to end, but its process and memory are still there.
    """

    number: int
    key: ReplicaKey
    bytes: int
    leases: int
    last_used: float
    cold: bool = False
    pinned: bool = False
    goes_last: bool = False
    fresh: bool = False
    one_shot: bool = False
    spared: bool = False
    ending: bool = False


class Room(StrEnum):
    """Whether there is room for one more worker.

    ``WAIT``: somebody is ending, or is fresh, or whoever could go is in use. ``NEVER``: it would
    not fit in an empty set.
    """

    FITS = "fits"
    EVICT = "evict"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """The decision; ``victims`` (for ``EVICT``) are numbers, in the order in which they go."""

    room: Room
    victims: tuple[int, ...] = ()


def plan_eviction(
    residents: Sequence[ResidentView], needed_bytes: int, limits: ResidentLimits
) -> RoomPlan:
    """Decide how one more worker of ``needed_bytes`` gets its room.

    All victims are chosen here, before the first is touched: if those who may go do not suffice,
    none is evicted; and none is whose going is not needed.
    """
    if needed_bytes > limits.bytes or limits.count < 1:
        return RoomPlan(Room.NEVER)
    staying = [view for view in residents if not view.ending]
    count, held = len(staying), sum(view.bytes for view in staying)
    if count < limits.count and held + needed_bytes <= limits.bytes:
        all_bytes = sum(view.bytes for view in residents)
        fits_now = len(residents) < limits.count and all_bytes + needed_bytes <= limits.bytes
        return RoomPlan(Room.FITS if fits_now else Room.WAIT)
    idle = [view for view in staying if view.leases == 0 and not view.spared]
    lacking = count - limits.count + 1, held + needed_bytes - limits.bytes
    victims = _enough(sorted(idle, key=_order), *lacking)
    if not victims or any(victim.fresh for victim in victims):
        return RoomPlan(Room.WAIT)
    return RoomPlan(Room.EVICT, tuple(victim.number for victim in victims))


def _enough(idle: Sequence[ResidentView], places: int, size: int) -> list[ResidentView]:
    """Return who is to go for so many places and bytes; nobody, if all of them are not enough.

    In the order given, and none whose place and bytes turn out not to be needed, the last ones
    being spared first.
    """
    victims: list[ResidentView] = []
    for view in idle:
        if places <= 0 and size <= 0:
            break
        victims.append(view)
        places, size = places - 1, size - view.bytes
    if places > 0 or size > 0:
        return []
    for view in reversed(victims.copy()):
        if places < 0 and size + view.bytes <= 0:
            victims.remove(view)
            places, size = places + 1, size + view.bytes
    return victims


def _order(view: ResidentView) -> tuple[int, float]:
    """Cold before ordinary before pinned; among equals the least recently used."""
    rank = 0 if view.cold else 2 if view.pinned else 1
    return rank, view.last_used


def without_freshness(residents: Iterable[ResidentView]) -> list[ResidentView]:
    """Return the residents as they will be in a moment, if nothing else happens."""
    return [replace(view, fresh=False) for view in residents]


def before_one_in_use(residents: Iterable[ResidentView]) -> list[ResidentView]:
    """Return the residents as a version in use meets them: it does not wait for one-shots."""
    return [replace(view, fresh=view.fresh and not view.one_shot) for view in residents]


def without(residents: Iterable[ResidentView], key: ReplicaKey | None) -> list[ResidentView]:
    """Return the residents as they would be if a version had no worker."""
    return [view for view in residents if view.key != key]


def how_many_fit(needed_bytes: int, limits: ResidentLimits) -> int:
    """Return how many workers of ``needed_bytes`` each an empty set has room for."""
    return min(limits.count, limits.bytes // max(1, needed_bytes))
