"""The decision who goes when a worker needs room. Pure: snapshots in, a plan out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class ReplicaKey:
    """What a replica serves: one version and exactly these bytes of it."""

    model: str
    version: int
    digest: str

    def __str__(self) -> str:
        """Return ``model/version``."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class ResidentLimits:
    """Both cover workers of every state; ``bytes`` includes the forkserver's own."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ResidentView:
    """What a decision may see of a resident.

    Attributes:
        spared: A standby in its time, or a version whose successor is not ready yet.
        ending: Told to end, but its process and memory are still there.
    """

    key: ReplicaKey
    bytes: int
    leases: int
    last_used: float
    spared: bool = False
    ending: bool = False


class Room(StrEnum):
    """Whether there is room for one more worker."""

    FITS = "fits"
    EVICT = "evict"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """The decision; ``victims`` (for ``EVICT``) in the order in which they go."""

    room: Room
    victims: tuple[ReplicaKey, ...] = ()


def plan_eviction(
    residents: Sequence[ResidentView], needed_bytes: int, limits: ResidentLimits
) -> RoomPlan:
    """Decide how one more worker of ``needed_bytes`` gets its room.

    All victims are chosen here, before the first is touched: if idle residents do not suffice,
    none is evicted. ``NEVER``: it would not fit in an empty set.
    """
    if needed_bytes > limits.bytes:
        return RoomPlan(Room.NEVER)
    staying = [view for view in residents if not view.ending]
    count, held = len(staying), sum(view.bytes for view in staying)
    if count < limits.count and held + needed_bytes <= limits.bytes:
        all_bytes = sum(view.bytes for view in residents)
        fits_now = len(residents) < limits.count and all_bytes + needed_bytes <= limits.bytes
        return RoomPlan(Room.FITS if fits_now else Room.WAIT)
    idle = [view for view in staying if view.leases == 0 and not view.spared]
    victims: list[ReplicaKey] = []
    for view in sorted(idle, key=lambda one: one.last_used):
        victims.append(view.key)
        count, held = count - 1, held - view.bytes
        if count < limits.count and held + needed_bytes <= limits.bytes:
            return RoomPlan(Room.EVICT, tuple(victims))
    return RoomPlan(Room.WAIT)
