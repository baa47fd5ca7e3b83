"""What may go: only what nothing needs; and what goes: no more of it than there has to."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.contract.node_state import ActiveAlias, AwaitedVersion, NodeState
from registry_sync.domain import AcceptedDigest, Activation, Hold, LedgerView
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.planning.retention import (
    Candidate,
    Pressure,
    RetainedDigests,
    choose_removed,
    removable,
    what_stays,
)

STAYING = ("active", "aspired", "held", "last_known_good", "resident", "standby")
NOW = 1_000_000.0
WINDOW_S = 10.0


@pytest.mark.parametrize(
    "reason", [field.name for field in fields(RetainedDigests) if field.name != "previous"]
)
def test_every_reason_keeps_its_digest(reason):
    reasons: dict[str, Any] = {reason: frozenset({"a"})}
    kept = RetainedDigests(**reasons)
    assert removable(["a", "b"], kept, now=NOW, rollback_retention_s=10) == {"b"}


@pytest.mark.parametrize(("left_ago_s", "goes"), [(0, False), (9.9, False), (10, True), (11, True)])
def test_previous_stays_for_the_rollback_window(left_ago_s, goes):
    kept = RetainedDigests(previous={"a": NOW - left_ago_s})
    assert ("a" in removable(["a"], kept, now=NOW, rollback_retention_s=10)) is goes


def test_previous_that_is_needed_for_another_reason_stays():
    kept = RetainedDigests(previous={"a": 0}, active=frozenset({"a"}))
    assert removable(["a"], kept, now=NOW, rollback_retention_s=10) == frozenset()


@pytest.mark.parametrize("order", [(5.0, 8.0), (8.0, 5.0)])
def test_of_two_aliases_that_left_a_version_the_later_one_counts(order):
    digests = [f"sha256:{number:064x}" for number in range(3)]
    active = [
        ActiveAlias(
            model="m", alias=f"a{n}", version=1, digest=digests[n], since=since,
            previous_digest=digests[2],
        )
        for n, since in enumerate(order)
    ]  # fmt: skip
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=active)
    kept = what_stays(node, Aspired({}, 0.0), LedgerView(), recent_since=0.0)
    assert kept.previous == {digests[2]: 8.0}


def test_what_is_held_was_active_or_is_wanted_stays():
    digests = {name: f"sha256:{number:064x}" for number, name in enumerate(STAYING)}
    versions = {
        number: AspiredVersion("m", number, "s3://b/m", expected_digest=digests[name])
        for number, name in ((1, "aspired"), (2, "standby"))
    }
    node = NodeState(
        node_id="n", boot_id="b", seq=1, generation=1, resident=[digests["resident"]],
        active=[ActiveAlias(model="m", alias="a", version=3, digest=digests["active"], since=1.0)],
        wanted=[AwaitedVersion(model="m", version=2, since=1.0)],
    )  # fmt: skip
    ledger = LedgerView(
        accepted={
            ("m", number): AcceptedDigest(
                "m", number, str(one.expected_digest), None, stamped=True, listing=None
            )
            for number, one in versions.items()
        },
        holds={("m", "held"): Hold("m", "held", 1, 4, digests["held"], "operator", 1.0)},
        last_active={
            ("m", name): Activation(
                "m", name, 5, digest, None, None, "poll", 1.0, 1, retired_at=retired_at
            )
            for name, digest, retired_at in (
                ("served", digests["last_known_good"], None),
                ("gone", "sha256:" + "e" * 64, 2.0),
            )
        },
    )
    aspired = Aspired({"m": AspiredModel("m", versions, aliases={"a": 1})}, 0.0)
    kept = what_stays(node, aspired, ledger, recent_since=3.0)
    assert {name: set(getattr(kept, name)) for name in STAYING} == {
        name: {digest} for name, digest in digests.items()
    }
    reasons = kept.by_reason(now=NOW, rollback_retention_s=WINDOW_S)
    assert {name: set(reasons[name]) for name in STAYING} == {
        name: {digest} for name, digest in digests.items()
    }


# --- any world ------------------------------------------------------------------------------------

DIGESTS = [f"d{number:02}" for number in range(12)]
some = st.frozensets(st.sampled_from(DIGESTS), max_size=3)
ages = st.sampled_from([0.0, 5.0, WINDOW_S, 20.0, 300.0])
worlds = st.fixed_dictionaries(
    {
        "stored": st.dictionaries(
            st.sampled_from(DIGESTS),
            st.tuples(st.integers(0, 100), ages, ages, st.booleans()),
        ),
        "kept": st.builds(
            RetainedDigests,
            active=some,
            standby=some,
            resident=some,
            previous=st.dictionaries(
                st.sampled_from(DIGESTS), ages.map(lambda age_s: NOW - age_s), max_size=3
            ),
            last_known_good=some,
            aspired=some,
            held=some,
        ),
        "disk_bytes": st.integers(-50, 800),
        "budget_bytes": st.integers(-50, 800),
    }
)


def play(world: dict[str, Any]) -> tuple[dict[str, Candidate], frozenset[str], list[str]]:
    """Return what is stored, what nothing needs, and what goes."""
    stored = {
        digest: Candidate(digest, size, NOW - came, NOW - min(came, needed), listed)
        for digest, (size, came, needed, listed) in world["stored"].items()
    }
    pressure = Pressure(world["disk_bytes"], world["budget_bytes"])
    options: dict[str, Any] = {"now": NOW, "rollback_retention_s": WINDOW_S}
    free = removable(stored, world["kept"], **options)
    return (
        stored,
        free,
        choose_removed(stored.values(), world["kept"], **options, pressure=pressure),
    )


def late(one: Candidate) -> bool:
    return NOW - one.stored_at < WINDOW_S


@given(worlds)
def test_nothing_protected_goes_and_nothing_twice(world):
    stored, _, going = play(world)
    kept: RetainedDigests = world["kept"]
    recent = {d for d, left_at in kept.previous.items() if NOW - left_at < WINDOW_S}
    for protected in (kept.active, kept.standby, kept.resident, recent, kept.last_known_good,
                      kept.aspired, kept.held):  # fmt: skip
        assert not protected & set(going)
    assert len(set(going)) == len(going)
    assert set(going) <= stored.keys()


@given(worlds)
def test_without_pressure_goes_what_is_neither_listed_nor_new_and_no_more(world):
    stored, free, going = play(world | {"disk_bytes": 0, "budget_bytes": 0})
    assert set(going) == {d for d in free if not stored[d].listed and not late(stored[d])}


@given(worlds)
def test_what_goes_goes_in_order_and_no_more_of_it_than_there_has_to(world):
    stored, free, going = play(world)
    order = sorted(free, key=lambda d: (stored[d].listed, stored[d].needed_at, d))
    assert going == [d for d in order if d in set(going)]
    in_any_case = {d for d in free if not stored[d].listed and not late(stored[d])}
    asked_for = [d for d in going if d not in in_any_case]
    freed = {d: sum(stored[one].size_bytes for one in going[: going.index(d)]) for d in going}
    for digest in asked_for:  # each for a pressure that those before it left
        over_budget = world["budget_bytes"] > freed[digest]
        assert over_budget or (world["disk_bytes"] > freed[digest] and not late(stored[digest]))


@given(worlds)
def test_under_a_budget_everything_before_the_last_one_in_the_order_goes(world):
    """And with no other pressure, what stays would have gone only later."""
    stored, free, going = play(world | {"disk_bytes": 0})
    order = sorted(free, key=lambda d: (stored[d].listed, stored[d].needed_at, d))
    in_any_case = {d for d in free if not stored[d].listed and not late(stored[d])}
    if asked_for := [d for d in going if d not in in_any_case]:
        reached = order[: order.index(asked_for[-1]) + 1]
        assert going[: len(reached)] == reached


@given(worlds)
def test_if_nothing_suffices_everything_that_nothing_needs_goes(world):
    stored, free, going = play(world)
    too_much = sum(stored[d].size_bytes for d in free) < world["budget_bytes"]
    enough = sum(stored[d].size_bytes for d in going) >= world["budget_bytes"]
    assert set(going) == set(free) if too_much else enough
