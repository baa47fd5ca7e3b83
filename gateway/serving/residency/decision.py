"""Decides which replicas start, end and take no new requests: a pure function of a snapshot.

`decide` looks at every replica, every load that is waited for and every standby of the node, and
returns the next actions. `LoadQueue` applies them and decides again, until nothing is left to do.

The oldest demand goes first; idle replicas are evicted for it, the least valuable first (`value`;
the tag ``gateway.keep_resident`` is the only rank above it). A demand that has waited for
``TURN_WAIT_S`` has its *turn*: busy replicas are closed to new requests, one at a time, and younger
demands start only if they do not delay it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.contract import ArtifactRef

LEAST_LOADS_AT_ONCE = 2
TURN_WAIT_S = 1.0
"""Bounds how long steady traffic on the residents keeps a new version out."""
SLOW_LOAD_S = 5.0
"""A slower load no longer counts against ``loads_at_once``, so that big models do not delay a small
one. All loads together never exceed twice that number."""
HALF_LIFE_S = 60.0
"""A use of a minute ago counts half."""
_SLOW_END_TURNS = 5
"""After so many turns, a closed replica that is still busy no longer delays others."""
ROOM, TURN = "evicted: room was needed", "evicted: it had its turn"
EXCESS = "evicted: too many bytes are held"
SURPLUS = "its version is to have fewer workers"


@dataclass(frozen=True, slots=True)
class ResidentLimits:
    """The most replicas of every state, bytes, the forkserver's included, and quick loads."""

    count: int
    bytes: int
    loads_at_once: int = LEAST_LOADS_AT_ONCE


@dataclass(frozen=True, slots=True)
class Standby:
    """A staged version, and the version that it will replace.

    Attributes:
        swap: ``blue_green``, ``unload_first`` or ``auto``.
        displaces: The old version ends before the standby is ready; its callers wait.
    """

    stage_id: str
    key: ArtifactRef
    replaces: ArtifactRef | None
    swap: str
    displaces: bool = False


def spared(standbys: Collection[Standby]) -> set[ArtifactRef]:
    """Return the versions that eviction spares: standbys, and what they will replace."""
    kept = {one.replaces for one in standbys if not one.displaces and one.replaces is not None}
    return kept | {one.key for one in standbys}


def displaced(standbys: Iterable[Standby]) -> set[ArtifactRef]:
    """Return the versions that ended, or are ending, before their successors are ready."""
    return {one.replaces for one in standbys if one.displaces and one.replaces is not None}


class State(StrEnum):
    """The state of a replica: ``READY`` takes new requests, ``CLOSED`` ends with its last one.

    The process and the memory of an ``ENDING`` replica are still there.
    """

    LOADING = "loading"
    READY = "ready"
    CLOSED = "closed"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """A replica, as the decision sees it.

    Attributes:
        number: Identifies the replica.
        bytes: Measured size; while the replica loads, its expected peak.
        grown: Growth since it was ready, in bytes.
        value: See `value`.
        started_at: Monotonic seconds, as ``closed_at``.
        is_wrong: It will be replaced; its successor may start beside it.
    """

    number: int
    key: ArtifactRef
    bytes: int
    state: State = State.READY
    leases: int = 0
    value: float = 0.0
    keep_resident: bool = False
    grown: int = 0
    started_at: float = 0.0
    closed_at: float = 0.0
    is_wrong: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it could end without affecting a request."""
        return self.state is State.READY and self.leases == 0


@dataclass(frozen=True, slots=True)
class DemandView:
    """A version that callers or stages wait for.

    Attributes:
        since: Monotonic seconds when the first waiter joined.
        bytes: Expected peak of one replica.
        replicas: Number of replicas that are needed.
        is_staged: A stage waits for it.
        stage_deadline: When its stages stop waiting for room; infinite without a stage.
    """

    key: ArtifactRef
    since: float
    bytes: int
    replicas: int = 1
    keep_resident: bool = False
    is_staged: bool = False
    stage_deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class Start:
    """Begin to load a replica."""

    key: ArtifactRef
    bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the decision may see.

    Attributes:
        now: Monotonic seconds.
        limits: As of the resident set, but without the forkserver's bytes.
        demands: Oldest first, without those that pause after a failure.
        background: Loads without a waiter, for free room, by descending priority.
        wanted: The number of replicas that each resident version should have.
    """

    now: float
    limits: ResidentLimits
    replicas: Sequence[ReplicaView] = ()
    demands: Sequence[DemandView] = ()
    standbys: Sequence[Standby] = ()
    background: Sequence[Start] = ()
    wanted: Mapping[ArtifactRef, int] = field(default_factory=dict)

    def of(self, key: ArtifactRef) -> Iterator[ReplicaView]:
        """Return the replicas of a version."""
        return (one for one in self.replicas if one.key == key)


class Refusal(StrEnum):
    """Why a demand fails."""

    TOO_BIG = "too_big"
    NO_ROOM_BESIDE_STANDBYS = "no_room_beside_standbys"
    STAGE_TOO_LATE = "stage_too_late"


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a replica answer its requests, then end it: an idle one ends at once."""

    number: int
    reason: str
    evicted: bool = True


@dataclass(frozen=True, slots=True)
class Displace:
    """End the version that a standby replaces before the standby loads."""

    standby: Standby


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail a demand, or only its stages."""

    key: ArtifactRef
    why: Refusal
    bytes: int = 0


Action = Start | Drain | Displace | Fail


def faded(heat: float, seconds: float) -> float:
    """Return the weight, after so many seconds, of a number of uses."""
    return heat * math.exp2(-seconds / HALF_LIFE_S)


def value(heat: float, idle_s: float) -> float:
    """Return what keeping a replica is worth: how lately it was used, weighed by how often.

    The logarithm of its uses (``heat``) lets a replica that was hot an hour ago go soon; the
    half-life beside the idle time keeps one request from outweighing many. A replica that was never
    used is worth nothing.
    """
    return math.log2(1.0 + heat) / (HALF_LIFE_S + max(0.0, idle_s))


def decide(seen: Snapshot) -> tuple[Action, ...]:
    """Return the next actions; empty if everything has to wait.

    The caller applies them and decides again on a new snapshot.
    """
    return (
        _give_up_late_stages(seen)
        or _release_excess(seen)
        or _drain_surplus(seen)
        or _serve_demands(seen)
    )


def _give_up_late_stages(seen: Snapshot) -> tuple[Action, ...]:
    """Fail stages that have waited for room as long as callers may."""
    return tuple(
        Fail(one.key, Refusal.STAGE_TOO_LATE)
        for one in seen.demands
        if seen.now >= one.stage_deadline
        and not any(replica.state is State.LOADING for replica in seen.of(one.key))
    )


def _release_excess(seen: Snapshot) -> tuple[Action, ...]:
    """End replicas if more bytes are held than allowed: an estimate was low, or one grew."""
    staying = [one for one in seen.replicas if one.state is not State.ENDING]
    excess = sum(one.bytes for one in staying) - seen.limits.bytes
    if excess <= 0:
        return ()
    kept = spared(seen.standbys)
    idle = [one for one in staying if one.is_idle and one.key not in kept]
    if victims := _enough(sorted(idle, key=_order), 0, excess):
        return tuple(Drain(one.number, EXCESS) for one in victims)
    opened = [one for one in staying if one.state is not State.CLOSED]
    busy = [
        one for one in opened if one.state is State.READY and one.leases and one.key not in kept
    ]
    if not busy or sum(one.bytes for one in opened) <= seen.limits.bytes:
        return ()
    return (Drain(max(busy, key=lambda one: (not one.keep_resident, one.grown)).number, EXCESS),)


def _drain_surplus(seen: Snapshot) -> tuple[Action, ...]:
    """Drain surplus replicas of versions whose replicas are all ready and not spared."""
    groups: dict[ArtifactRef, list[ReplicaView]] = {}
    for one in seen.replicas:
        groups.setdefault(one.key, []).append(one)
    kept = spared(seen.standbys)
    return tuple(
        Drain(one.number, SURPLUS, evicted=False)
        for key, group in groups.items()
        if len(group) > seen.wanted.get(key, 1)
        and key not in kept
        and all(one.state is State.READY for one in group)
        for one in sorted(group, key=_order)[: len(group) - seen.wanted.get(key, 1)]
    )


def _serve_demands(seen: Snapshot) -> tuple[Action, ...]:
    """Start the oldest demand that may start, or make room for it."""
    loads = _loads_under_way(seen)
    if loads >= seen.limits.loads_at_once:
        return ()
    waiting = [one for one in seen.demands if _may_start(seen, one)]
    if not waiting:
        return _use_free_room(seen, loads)
    first: DemandView | None = None
    for demand in waiting:
        if first is None or _leaves_room(seen, first, demand):
            actions = _make_room(seen, demand)
            if actions:
                return actions
        if seen.now < demand.since + TURN_WAIT_S:
            break
        if first is None and _fits(seen, _staying(seen, demand), demand.bytes):
            first = demand
    return _close_one_for(seen, first) if first is not None else ()


def _loads_under_way(seen: Snapshot) -> int:
    """Count the loads; slow ones count only beyond ``loads_at_once``."""
    loading = [one for one in seen.replicas if one.state is State.LOADING]
    quick = sum(one.started_at > seen.now - SLOW_LOAD_S for one in loading)
    return max(quick, len(loading) - seen.limits.loads_at_once)


def _may_start(seen: Snapshot, demand: DemandView) -> bool:
    """Whether a replica may start once there is room: its predecessors have ended."""
    if demand.key in displaced(seen.standbys):
        return False
    group = [one for one in seen.of(demand.key) if not one.is_wrong]
    if len(group) >= demand.replicas:
        return False
    if any(one.state in (State.CLOSED, State.ENDING) for one in group):
        return False
    return not any(
        one.key == demand.key and one.displaces and one.replaces and any(seen.of(one.replaces))
        for one in seen.standbys
    )


def _use_free_room(seen: Snapshot, loads: int) -> tuple[Action, ...]:
    """Start a background load; one load under way stays reserved for callers."""
    if loads >= seen.limits.loads_at_once - 1:
        return ()
    fitting = (one for one in seen.background if _fits(seen, seen.replicas, one.bytes))
    return tuple(Start(one.key, one.bytes) for one in fitting)[:1]


# --- room for one more ----------------------------------------------------------------------------


def _make_room(seen: Snapshot, demand: DemandView) -> tuple[Action, ...]:
    """Return the start of a replica, or what makes room for it; empty if it has to wait."""
    limits = seen.limits
    if min(limits.count, limits.bytes // max(1, demand.bytes)) < demand.replicas:
        return (Fail(demand.key, Refusal.TOO_BIG, demand.bytes),)
    if first := [one for one in _replacing(seen, demand) if one.swap == "unload_first"]:
        return (Displace(first[0]),)
    kept = spared(seen.standbys)
    if _fits(seen, seen.replicas, demand.bytes):
        return (Start(demand.key, demand.bytes),)
    if _has_room_soon(seen, seen.replicas, demand.bytes):
        return ()
    if victims := _victims(seen, seen.replicas, demand.bytes, kept):
        return tuple(Drain(one.number, ROOM) for one in victims)
    return _displace_for_room(seen, demand, kept)


def _displace_for_room(
    seen: Snapshot, demand: DemandView, kept: AbstractSet[ArtifactRef]
) -> tuple[Action, ...]:
    """Displace the old version, if its tag allows that and it makes enough room."""
    for standby in _replacing(seen, demand):
        others = [one for one in seen.replicas if one.key != standby.replaces]
        if standby.swap == "auto" and (
            _has_room_soon(seen, others, demand.bytes) or _victims(seen, others, demand.bytes, kept)
        ):
            return (Displace(standby),)
    beside = [one for one in seen.replicas if one.key in kept and one.state is not State.CLOSED]
    if demand.is_staged and not _has_room_soon(seen, beside, demand.bytes):
        return (Fail(demand.key, Refusal.NO_ROOM_BESIDE_STANDBYS),)
    return ()


def _replacing(seen: Snapshot, demand: DemandView) -> list[Standby]:
    """Return the standbys of a version whose predecessor has not been displaced."""
    return [
        one for one in seen.standbys if one.key == demand.key and one.replaces and not one.displaces
    ]


def _fits(seen: Snapshot, replicas: Sequence[ReplicaView], needed_bytes: int) -> bool:
    """Whether there is room now."""
    held = sum(one.bytes for one in replicas)
    return len(replicas) < seen.limits.count and held + needed_bytes <= seen.limits.bytes


def _has_room_soon(seen: Snapshot, replicas: Sequence[ReplicaView], needed_bytes: int) -> bool:
    """Whether there will be room once the ending replicas are gone."""
    staying = [one for one in replicas if one.state is not State.ENDING]
    return _fits(seen, staying, needed_bytes)


def _victims(
    seen: Snapshot,
    replicas: Iterable[ReplicaView],
    needed_bytes: int,
    kept: AbstractSet[ArtifactRef],
) -> list[ReplicaView]:
    """Return the replicas to evict; empty if all idle ones together are not enough."""
    staying = [one for one in replicas if one.state is not State.ENDING]
    idle = [one for one in staying if one.is_idle and one.key not in kept]
    missing_bytes = sum(one.bytes for one in staying) + needed_bytes - seen.limits.bytes
    return _enough(sorted(idle, key=_order), len(staying) - seen.limits.count + 1, missing_bytes)


def _enough(idle: Sequence[ReplicaView], slots: int, size: int) -> list[ReplicaView]:
    """Return the first replicas that together free so many slots and bytes, none needlessly."""
    victims: list[ReplicaView] = []
    for one in idle:
        if slots <= 0 and size <= 0:
            break
        victims.append(one)
        slots, size = slots - 1, size - one.bytes
    if slots > 0 or size > 0:
        return []
    for one in reversed(victims.copy()):
        if slots < 0 and size + one.bytes <= 0:
            victims.remove(one)
            slots, size = slots + 1, size + one.bytes
    return victims


def _order(one: ReplicaView) -> tuple[bool, float, int]:
    """Sort the least valuable first; of two that were never used, the older."""
    return one.keep_resident, one.value, one.number


# --- the turn of a demand -------------------------------------------------------------------------


def _staying(
    seen: Snapshot, demand: DemandView, started_after: float = math.inf
) -> list[ReplicaView]:
    """Return the replicas that a demand's turn will not end: it may neither evict nor close them.

    Replicas that started after ``started_after`` count as such too.
    """
    kept = spared(seen.standbys)
    return [
        one
        for one in seen.replicas
        if one.state is not State.ENDING
        and (
            one.started_at > started_after
            or _is_slow_to_end(seen, one)
            or (one.key in kept and one.state is not State.CLOSED)
            or (one.keep_resident and one.leases > 0 and not demand.keep_resident)
        )
    ]


def _leaves_room(seen: Snapshot, first: DemandView, newcomer: DemandView) -> bool:
    """Whether a younger demand may start without delaying the one whose turn it is."""
    started = ReplicaView(0, newcomer.key, newcomer.bytes)
    return _fits(seen, [*_staying(seen, first, first.since), started], first.bytes)


def _close_one_for(seen: Snapshot, demand: DemandView) -> tuple[Action, ...]:
    """Close the least valuable busy replica, one at a time."""
    for one in seen.replicas:
        if one.state is State.ENDING:
            return ()
        if one.state is State.CLOSED and not _is_slow_to_end(seen, one):
            return ()
    staying = {one.number for one in _staying(seen, demand)}
    busy = [
        one
        for one in seen.replicas
        if one.state is State.READY and one.leases and one.number not in staying
    ]
    return (Drain(min(busy, key=_order).number, TURN),) if busy else ()


def _is_slow_to_end(seen: Snapshot, one: ReplicaView) -> bool:
    return one.state is State.CLOSED and one.closed_at <= seen.now - _SLOW_END_TURNS * TURN_WAIT_S
