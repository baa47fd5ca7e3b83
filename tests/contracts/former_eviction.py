"""Who made room before `decide` was one function, to be played beside it.

The order of victims has changed since, so it is taken from the snapshot. Whether there is room, how
many go, and that none goes needlessly, are meant to be the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.serving.residency.decision import (
    ROOM,
    Action,
    DemandView,
    Drain,
    Fail,
    Refusal,
    ReplicaView,
    Snapshot,
    Start,
    State,
    spared,
)


@dataclass(frozen=True)
class Plan:
    """``room``: ``fits``, ``evict``, ``wait`` or ``never``; ``victims``: numbers."""

    room: str
    victims: tuple[int, ...] = ()


def former_plan(seen: Snapshot, needed: int) -> Plan:
    """Return how one more replica got its room."""
    limits, kept = seen.limits, spared(seen.standbys)
    if needed > limits.bytes or limits.count < 1:
        return Plan("never")
    staying = [one for one in seen.replicas if one.state is not State.ENDING]
    count, held = len(staying), sum(one.bytes for one in staying)
    if count < limits.count and held + needed <= limits.bytes:
        everything = sum(one.bytes for one in seen.replicas)
        fits = len(seen.replicas) < limits.count and everything + needed <= limits.bytes
        return Plan("fits" if fits else "wait")
    idle = [one for one in staying if not one.leases and one.state is State.READY]
    idle = sorted(
        (one for one in idle if one.key not in kept),
        key=lambda one: (one.keep_resident, one.value, one.number),
    )
    victims = _enough(idle, count - limits.count + 1, held + needed - limits.bytes)
    return Plan("evict", victims) if victims else Plan("wait")


def _enough(idle: Sequence[ReplicaView], slots: int, size: int) -> tuple[int, ...]:
    chosen: list[ReplicaView] = []
    while idle and (slots > len(chosen) or size > sum(one.bytes for one in chosen)):
        chosen, idle = [*chosen, idle[0]], idle[1:]
    if slots > len(chosen) or size > sum(one.bytes for one in chosen):
        return ()
    for one in reversed(chosen.copy()):
        left = [other for other in chosen if other is not one]
        if len(left) >= slots and sum(other.bytes for other in left) >= size:
            chosen = left
    return tuple(one.number for one in chosen)


def check(seen: Snapshot, actions: Sequence[Action]) -> str:
    """Compare what is decided with what was; return which decision that was.

    Nothing is compared where a load is displaced for, drained, closed or given up: these decisions
    have changed.
    """
    starts = [one for one in actions if isinstance(one, Start)]
    if starts:
        assert former_plan(seen, starts[0].bytes) == Plan("fits"), (seen, actions)
        return "start"
    evicted = tuple(one.number for one in actions if isinstance(one, Drain) and one.reason == ROOM)
    if evicted:
        plans = [former_plan(seen, one.bytes) for one in seen.demands]
        assert Plan("evict", evicted) in plans, (seen, actions, plans)
        return "evict"
    if any(isinstance(one, Fail) and one.why is Refusal.TOO_BIG for one in actions):
        sizes = [one.bytes * one.replicas for one in seen.demands]
        assert max(sizes) > seen.limits.bytes or any(
            one.replicas > seen.limits.count for one in seen.demands
        )
        return "too big"
    if not actions and len(seen.demands) == 1 and _is_free_to_start(seen, seen.demands[0]):
        plan = former_plan(seen, seen.demands[0].bytes)
        assert plan.room == "wait", (seen, plan)
        return "wait"
    return "other"


def _is_free_to_start(seen: Snapshot, demand: DemandView) -> bool:
    """Whether only room keeps the load from its start, and no load is under way."""
    loading = any(one.state is State.LOADING for one in seen.replicas)
    return not loading and not seen.standbys and not any(seen.of(demand.key))
