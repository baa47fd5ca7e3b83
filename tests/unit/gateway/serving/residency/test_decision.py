"""Decisions: a table of snapshots and actions, and invariants of any snapshot."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.contract.references import ArtifactRef
from gateway.serving.residency.decision import (
    EXCESS,
    ROOM,
    SLOW_LOAD_S,
    SURPLUS,
    TURN,
    TURN_WAIT_S,
    Action,
    DemandView,
    Displace,
    Drain,
    Fail,
    Refusal,
    ReplicaView,
    ResidentLimits,
    Snapshot,
    Standby,
    Start,
    State,
    decide,
    faded,
    value,
)
from tests.fakes.resident_set import key

NOW = 1000.0
LONG_AGO, JUST_NOW = NOW - 60, NOW - TURN_WAIT_S / 2


def view(name: str, **more: Any) -> ReplicaView:
    """A replica of 10 bytes, idle and ready, that is worth one."""
    given = {"number": ord(name), "key": key(name), "bytes": 10, "value": 1.0}
    return ReplicaView(**{**given, **more})


def busy(name: str, **more: Any) -> ReplicaView:
    return view(name, leases=1, **more)


def demand(name: str, **more: Any) -> DemandView:
    """A demand for a replica of 10 bytes, too young for a turn."""
    return DemandView(**{"key": key(name), "since": JUST_NOW, "bytes": 10, **more})


def seen(replicas: Sequence[ReplicaView], *demands: DemandView, **more: Any) -> Snapshot:
    """A node of two replicas and 100 bytes."""
    limits = more.pop("limits", ResidentLimits(count=2, bytes=100))
    return Snapshot(now=NOW, limits=limits, replicas=replicas, demands=demands, **more)


def standby(name: str, replaces: str | None, swap: str, **more: Any) -> Standby:
    return Standby("s", key(name), key(replaces) if replaces else None, swap, **more)


def start(name: str) -> Action:
    return Start(key(name), 10)


def evict(*names: str) -> tuple[Action, ...]:
    return tuple(Drain(ord(name), ROOM) for name in names)


def close(name: str) -> Action:
    return Drain(ord(name), TURN)


ENDING, CLOSED, LOADING = State.ENDING, State.CLOSED, State.LOADING
MANY = ResidentLimits(count=9, bytes=100)

TABLE: dict[str, tuple[Snapshot, tuple[Action, ...]]] = {
    "nothing waits": (seen([view("a")]), ()),
    "an empty slot": (seen([view("a")], demand("x")), (start("x"),)),
    # who is evicted
    "the least valuable goes": (
        seen([view("a", value=2), view("b", value=1)], demand("x")),
        evict("b"),
    ),
    "never a leased one": (
        seen([view("a", value=2), busy("b")], demand("x")),
        evict("a"),
    ),
    "what is kept resident goes last": (
        seen([view("a", value=2), view("b", keep_resident=True)], demand("x")),
        evict("a"),
    ),
    "what is kept resident goes if all others are busy": (
        seen([busy("a"), view("b", keep_resident=True)], demand("x")),
        evict("b"),
    ),
    "what was never used goes before what was": (
        seen([view("a", value=value(0, 0)), view("b", value=value(1, 3600))], demand("x")),
        evict("a"),
    ),
    "a standby is spared": (
        seen([view("a", value=2), view("b")], demand("x"), standbys=[standby("b", None, "auto")]),
        evict("a"),
    ),
    "what a standby replaces is spared": (
        seen(
            [view("a", value=2), view("b")],
            demand("x"),
            standbys=[standby("c", "b", "blue_green")],
        ),
        evict("a"),
    ),
    "a slot that is about to come needs no second victim": (
        seen([view("a"), view("b", state=ENDING)], demand("x")),
        (),
    ),
    "as many as it takes": (
        seen(
            [view("a", bytes=50), view("b", bytes=40, value=2), view("c", bytes=5, value=3)],
            demand("x", bytes=60),
            limits=MANY,
        ),
        evict("a", "b"),
    ),
    "none of two whose ends are not needed": (
        seen(
            [view("a", bytes=3), view("b", bytes=3, value=2), view("c", bytes=94, value=3)],
            demand("x"),
            limits=ResidentLimits(count=3, bytes=100),
        ),
        evict("c"),
    ),
    "none whose end is not needed": (
        seen(
            [view("a", bytes=3), view("b", bytes=95, value=2)], demand("x", bytes=10), limits=MANY
        ),
        evict("b"),
    ),
    "of the small ones no more than there are slots to free": (
        seen(
            [view("a", bytes=1), view("b", bytes=1, value=2), view("c", bytes=90, value=3)],
            demand("x", bytes=95),
            limits=ResidentLimits(count=3, bytes=100),
        ),
        evict("c"),
    ),
    "none if all that are idle are not enough": (
        seen([view("a"), busy("b", bytes=80)], demand("x", bytes=60), limits=MANY),
        (),
    ),
    "what would not fit in an empty set evicts none": (
        seen([view("a")], demand("x", bytes=101)),
        (Fail(key("x"), Refusal.TOO_BIG, 101),),
    ),
    "nor what would not fit as often as it is to": (
        seen([view("a")], demand("x", replicas=3)),
        (Fail(key("x"), Refusal.TOO_BIG, 10),),
    ),
    # who may start
    "no more loads than may be under way": (
        seen(
            [view(name, state=LOADING, started_at=NOW) for name in "ab"], demand("x"), limits=MANY
        ),
        (),
    ),
    "a slow load holds up no other": (
        seen(
            [view(name, state=LOADING, started_at=NOW - SLOW_LOAD_S) for name in "ab"],
            demand("x"),
            limits=MANY,
        ),
        (start("x"),),
    ),
    "but there are never twice as many": (
        seen(
            [view(name, state=LOADING, started_at=LONG_AGO) for name in "abcd"],
            demand("x"),
            limits=MANY,
        ),
        (),
    ),
    "a version that loads already is waited for": (
        seen([view("x", state=LOADING, started_at=NOW)], demand("x")),
        (),
    ),
    "the next one waits until the last one has gone": (
        seen([view("x", state=CLOSED, leases=1)], demand("x")),
        (),
    ),
    "but not for one that is wrong": (
        seen([view("x", state=CLOSED, leases=1, is_wrong=True)], demand("x")),
        (start("x"),),
    ),
    "the oldest first": (seen([view("a")], demand("x"), demand("y")), (start("x"),)),
    "a younger one does not pass a young one": (
        seen([busy("a", bytes=60)], demand("x", bytes=50), demand("y"), limits=MANY),
        (),
    ),
    # turns
    "after its wait the least valuable busy one is closed": (
        seen([busy("a", value=2), busy("b")], demand("x", since=LONG_AGO)),
        (close("b"),),
    ),
    "one at a time": (
        seen([busy("a"), busy("b", state=CLOSED, closed_at=NOW)], demand("x", since=LONG_AGO)),
        (),
    ),
    "one that takes long to end is not waited for": (
        seen([busy("a"), busy("b", state=CLOSED, closed_at=LONG_AGO)], demand("x", since=LONG_AGO)),
        (close("a"),),
    ),
    "what is kept resident is closed for its like only": (
        seen([busy(name, keep_resident=True) for name in "ab"], demand("x", since=LONG_AGO)),
        (),
    ),
    "its like": (
        seen(
            [busy("a", keep_resident=True), busy("b", keep_resident=True, value=0.5)],
            demand("x", since=LONG_AGO, keep_resident=True),
        ),
        (close("b"),),
    ),
    "a demand that closing does not help holds up no other": (
        seen(
            [busy("a", bytes=60, keep_resident=True)],
            demand("x", since=LONG_AGO, bytes=50),
            demand("y"),
            limits=MANY,
        ),
        (start("y"),),
    ),
    "nor keeps it from an eviction": (
        seen(
            [busy("a", bytes=60, keep_resident=True), view("b", bytes=20), view("c", bytes=20)],
            demand("x", since=LONG_AGO, bytes=50),
            demand("y"),
            limits=MANY,
        ),
        evict("b"),
    ),
    "nor takes a turn from one that it helps": (
        seen(
            [busy("a", bytes=60, keep_resident=True), busy("b", bytes=20), busy("c", bytes=20)],
            demand("x", since=LONG_AGO, bytes=50),
            demand("y", since=LONG_AGO),
            limits=MANY,
        ),
        (close("b"),),
    ),
    "beside a turn a younger one starts where the turn does not need the room": (
        seen(
            [busy("a", bytes=60, started_at=LONG_AGO - 1)],
            demand("x", since=LONG_AGO, bytes=50),
            demand("y"),
            limits=MANY,
        ),
        (start("y"),),
    ),
    "and not where it does": (
        seen(
            [busy("a", bytes=60, started_at=LONG_AGO - 1)],
            demand("x", since=LONG_AGO, bytes=95),
            demand("y"),
            limits=MANY,
        ),
        (close("a"),),
    ),
    "nor beside those that started since": (
        seen(
            [busy("a", bytes=60, started_at=LONG_AGO - 1), busy("b", bytes=35, started_at=NOW)],
            demand("x", since=LONG_AGO, bytes=65),
            demand("y", bytes=5),
            limits=MANY,
        ),
        (close("a"),),
    ),
    # swaps
    "unload_first ends the old version although there is room": (
        seen(
            [view("a")],
            demand("b", is_staged=True),
            standbys=[standby("b", "a", "unload_first")],
            limits=MANY,
        ),
        (Displace(standby("b", "a", "unload_first")),),
    ),
    "it does not where the successor would not fit alone": (
        seen(
            [view("a")],
            demand("b", bytes=101, is_staged=True),
            standbys=[standby("b", "a", "unload_first")],
        ),
        (Fail(key("b"), Refusal.TOO_BIG, 101),),
    ),
    "its successor waits until it has gone": (
        seen(
            [view("a", state=ENDING)],
            demand("b", is_staged=True),
            standbys=[standby("b", "a", "unload_first", displaces=True)],
            limits=MANY,
        ),
        (),
    ),
    "what has made room does not come back beside its successor": (
        seen([], demand("a"), standbys=[standby("b", "a", "unload_first", displaces=True)]),
        (),
    ),
    "what is to be replaced beside its successor comes up": (
        seen([], demand("a"), standbys=[standby("b", "a", "blue_green")]),
        (start("a"),),
    ),
    "auto keeps the old version where there is room": (
        seen([view("a")], demand("b", is_staged=True), standbys=[standby("b", "a", "auto")]),
        (start("b"),),
    ),
    "auto evicts others first": (
        seen(
            [view("a"), view("c")],
            demand("b", is_staged=True),
            standbys=[standby("b", "a", "auto")],
        ),
        evict("c"),
    ),
    "auto waits for one that ends": (
        seen(
            [view("a"), view("c", state=ENDING)],
            demand("b", is_staged=True),
            standbys=[standby("b", "a", "auto")],
        ),
        (),
    ),
    "auto ends the old version where only that makes room": (
        seen(
            [view("a"), busy("c")],
            demand("b", is_staged=True),
            standbys=[standby("b", "a", "auto")],
        ),
        (Displace(standby("b", "a", "auto")),),
    ),
    "auto does not, where that makes no room": (
        seen(
            [view("a"), busy("c", bytes=80)],
            demand("b", bytes=50, is_staged=True),
            standbys=[standby("b", "a", "auto")],
        ),
        (),
    ),
    "blue_green fails where standbys and their predecessors fill the node": (
        seen(
            [view("a"), view("c")],
            demand("b", is_staged=True),
            standbys=[standby("b", "a", "blue_green"), standby("c", None, "blue_green")],
        ),
        (Fail(key("b"), Refusal.NO_ROOM_BESIDE_STANDBYS),),
    ),
    "callers have the time to wait for the end of a stage": (
        seen(
            [view("a"), view("c")],
            demand("x"),
            standbys=[standby("c", "a", "blue_green")],
        ),
        (),
    ),
    "a stage looks for room no longer than its time": (
        seen([busy("a"), busy("c")], demand("b", is_staged=True, stage_deadline=NOW)),
        (Fail(key("b"), Refusal.STAGE_TOO_LATE),),
    ),
    "one whose load is under way goes on": (
        seen(
            [view("b", state=LOADING, started_at=NOW)],
            demand("b", is_staged=True, stage_deadline=NOW),
        ),
        (),
    ),
    # too much is held
    "too many bytes end idle ones": (
        seen([view("a", bytes=60), busy("b", bytes=60)]),
        (Drain(ord("a"), EXCESS),),
    ),
    "else the one that has grown most is closed": (
        seen([busy("a", bytes=60), busy("b", bytes=50, grown=40)]),
        (Drain(ord("b"), EXCESS),),
    ),
    "what is kept resident only if it is alone": (
        seen([busy("a", bytes=60), busy("b", bytes=50, grown=40, keep_resident=True)]),
        (Drain(ord("a"), EXCESS),),
    ),
    "one that is closed already is enough": (
        seen([busy("a", bytes=60, state=CLOSED, closed_at=NOW), busy("b", bytes=60)]),
        (),
    ),
    "what is spared stays": (
        seen([busy("a", bytes=120)], standbys=[standby("a", None, "auto")]),
        (),
    ),
    # more replicas than asked for
    "the least used of too many drains": (
        seen([view("a", number=1, value=2), view("a", number=2)], wanted={key("a"): 1}),
        (Drain(2, SURPLUS, evicted=False),),
    ),
    "not while one of them loads": (
        seen([view("a", number=1), view("a", number=2, state=LOADING)], wanted={key("a"): 1}),
        (),
    ),
    "nor while the version is staged": (
        seen(
            [view("a", number=1), view("a", number=2)],
            wanted={key("a"): 1},
            standbys=[standby("a", None, "auto")],
        ),
        (),
    ),
    # free room
    "free room is used": (
        seen([view("a")], background=[Start(key("x"), 10)]),
        (start("x"),),
    ),
    "and none is evicted for that": (
        seen([view("a"), view("b")], background=[Start(key("x"), 10)]),
        (),
    ),
    "one that is too big keeps no other from it": (
        seen([view("a")], background=[Start(key("y"), 95), Start(key("x"), 10)]),
        (start("x"),),
    ),
    "one load is kept for the next caller": (
        seen(
            [view("a", state=LOADING, started_at=NOW)],
            background=[Start(key("x"), 10)],
        ),
        (),
    ),
    "a slow load keeps none from it": (
        seen(
            [view("a", state=LOADING, started_at=LONG_AGO)],
            background=[Start(key("x"), 10)],
        ),
        (start("x"),),
    ),
    "callers go first": (
        seen([view("a")], demand("y"), background=[Start(key("x"), 10)]),
        (start("y"),),
    ),
}


@pytest.mark.parametrize(("snapshot", "actions"), TABLE.values(), ids=TABLE)
def test_what_is_decided(snapshot: Snapshot, actions: tuple[Action, ...]) -> None:
    assert decide(snapshot) == actions


def test_what_is_hot_outweighs_what_was_used_a_moment_ago() -> None:
    once_now, often_a_minute_ago = value(1, 0), value(faded(100, 60), 60)
    assert often_a_minute_ago > once_now
    assert value(faded(100, 600), 600) < once_now, "and is forgotten in minutes"


def test_of_two_used_as_often_the_one_used_last_is_worth_more() -> None:
    assert value(3, 1) > value(3, 2) > value(2, 2) > value(0, 0) == 0


# --- any snapshot ---------------------------------------------------------------------------------

keys = st.builds(key, st.sampled_from("abc"))
replicas = st.lists(
    st.builds(
        ReplicaView,
        number=st.integers(0, 99),
        key=keys,
        bytes=st.integers(1, 60),
        state=st.sampled_from(State),
        leases=st.integers(0, 2),
        value=st.floats(0, 9),
        keep_resident=st.booleans(),
        grown=st.integers(0, 9),
        started_at=st.sampled_from([LONG_AGO, JUST_NOW, NOW]),
        closed_at=st.sampled_from([LONG_AGO, NOW]),
        is_wrong=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.number,
)
demands = st.lists(
    st.builds(
        DemandView,
        key=keys,
        since=st.sampled_from([LONG_AGO, JUST_NOW]),
        bytes=st.integers(1, 120),
        replicas=st.integers(1, 2),
        keep_resident=st.booleans(),
        is_staged=st.booleans(),
        stage_deadline=st.sampled_from([NOW, NOW + 9]),
    ),
    max_size=3,
    unique_by=lambda one: one.key,
)
standbys = st.lists(
    st.builds(
        Standby,
        stage_id=st.sampled_from("st"),
        key=keys,
        replaces=st.none() | keys,
        swap=st.sampled_from(["blue_green", "auto", "unload_first"]),
        displaces=st.booleans(),
    ),
    max_size=2,
)
snapshots = st.builds(
    Snapshot,
    now=st.just(NOW),
    limits=st.builds(
        ResidentLimits, st.integers(1, 6), st.just(100), loads_at_once=st.integers(2, 3)
    ),
    replicas=replicas,
    demands=demands,
    standbys=standbys,
    background=st.lists(st.builds(Start, keys, st.integers(1, 60)), max_size=2),
    wanted=st.dictionaries(keys, st.integers(1, 3)),
)


def spared(snapshot: Snapshot) -> set[ArtifactRef]:
    standbys = {one.key for one in snapshot.standbys}
    return standbys | {
        one.replaces for one in snapshot.standbys if one.replaces and not one.displaces
    }


@given(snapshots)
def test_actions_are_always_lawful(snapshot: Snapshot) -> None:
    by_number = {one.number: one for one in snapshot.replicas}
    for action in decide(snapshot):
        if isinstance(action, Drain):
            victim = by_number[action.number]
            assert victim.state is State.READY
            assert victim.key not in spared(snapshot)
            assert action.reason not in {ROOM, TURN} or (victim.leases > 0) is (
                action.reason == TURN
            )
        elif isinstance(action, Start):
            assert len(snapshot.replicas) < snapshot.limits.count
            held = sum(one.bytes for one in snapshot.replicas)
            assert held + action.bytes <= snapshot.limits.bytes


@given(replicas, st.integers(1, 6), st.integers(1, 100))
def test_no_demand_waits_where_idle_replicas_are_enough(
    replicas: list[ReplicaView], count: int, size: int
) -> None:
    limits = ResidentLimits(count, 100)
    others = [one for one in replicas if one.state is not State.LOADING]
    taken = [one for one in others if one.state is not State.ENDING and not one.is_idle]
    if len(taken) < count and sum(one.bytes for one in taken) + size <= 100:
        actions = decide(seen(others, demand("x", bytes=size), limits=limits))
        assert actions or any(one.state is State.ENDING for one in others)


@given(snapshots)
def test_evictions_make_the_room_and_none_is_needless(snapshot: Snapshot) -> None:
    actions = decide(snapshot)
    by_number = {one.number: one for one in snapshot.replicas}
    drained = [by_number[one.number] for one in actions if isinstance(one, Drain) and one.evicted]
    victims = {one.number for one in drained if not one.leases}
    staying = [one for one in snapshot.replicas if one.state is not State.ENDING]
    if not victims:
        return

    def is_enough(gone: set[int]) -> bool:
        """Whether some load that waits would fit, or no more is held than allowed."""
        left = [one for one in staying if one.number not in gone]
        held = sum(one.bytes for one in left)
        limits = snapshot.limits
        if sum(one.bytes for one in staying) > limits.bytes:
            return held <= limits.bytes
        return len(left) < limits.count and any(
            held + one.bytes <= limits.bytes for one in snapshot.demands
        )

    assert is_enough(victims)
    if len(snapshot.demands) <= 1:
        assert not any(is_enough(victims - {number}) for number in victims)
