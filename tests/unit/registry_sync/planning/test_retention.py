"""What may go: only what nothing needs; and what goes: no more of it than there has to."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.contract import AliasRef
from gateway.contract.node_state import ActiveAlias, AwaitedVersion, NodeState
from registry_sync.artifacts.store import StoredArtifact
from registry_sync.domain import AcceptedDigest, Activation, Hold, LedgerView
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.planning.retention import choose_removed, what_stays

REASONS = (
    "active",
    "staged or waited for",
    "resident on the gateway",
    "left by an alias within the rollback window",
    "last known good",
    "meant by an alias of the registry",
    "held or pinned",
)
NOW = 1_000_000.0
WINDOW_S = 10.0


def active(digest: str, *, since: float, left: str | None = None) -> ActiveAlias:
    return ActiveAlias(
        model="m", alias="a", version=3, digest=digest, since=since, previous_digest=left
    )


@pytest.mark.parametrize(
    ("moved_at", "stays"), [([5.0], False), ([5.1], True), ([1.0, 9.0], True), ([9.0, 1.0], True)]
)
def test_what_an_alias_left_stays_for_the_rollback_window(moved_at, stays):
    digests = [f"sha256:{number:064x}" for number in range(2)]
    moves = [active(digests[0], since=at, left=digests[1]) for at in moved_at]
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=moves)
    kept = what_stays(node, Aspired({}, 0.0), LedgerView(), since=5.0)
    assert kept["left by an alias within the rollback window"] == ({digests[1]} if stays else set())


def test_what_is_held_was_active_or_is_wanted_stays():
    digests = {name: f"sha256:{number:064x}" for number, name in enumerate(REASONS)}
    versions = {
        number: AspiredVersion("m", number, "s3://b/m", expected_digest=digests[name])
        for number, name in ((1, REASONS[5]), (2, REASONS[1]))
    }
    node = NodeState(
        node_id="n", boot_id="b", seq=1, generation=1, resident=[digests[REASONS[2]]],
        active=[active(digests["active"], since=4.0, left=digests[REASONS[3]])],
        wanted=[AwaitedVersion(model="m", version=2, since=1.0)],
    )  # fmt: skip
    ledger = LedgerView(
        accepted={
            ("m", number): AcceptedDigest(
                "m", number, str(one.expected_digest), None, stamped=True, listing=None
            )
            for number, one in versions.items()
        },
        holds={
            AliasRef("m", "held"): Hold(
                "m", "held", 1, 4, digests["held or pinned"], "operator", 1.0
            )
        },
        last_active={
            AliasRef("m", name): Activation(
                "m", name, 5, digest, None, None, "poll", 1.0, 1, retired_at=retired_at
            )
            for name, digest, retired_at in (
                ("served", digests["last known good"], None),
                ("retired lately", "sha256:" + "f" * 64, 3.1),
                ("gone", "sha256:" + "e" * 64, 3.0),
            )
        },
    )
    aspired = Aspired({"m": AspiredModel("m", versions, aliases={"a": 1})}, 0.0)
    kept = what_stays(node, aspired, ledger, since=3.0)
    expected = {name: {digest} for name, digest in digests.items()}
    expected["last known good"].add("sha256:" + "f" * 64)
    assert kept == expected


# --- any world ------------------------------------------------------------------------------------

DIGESTS = [f"d{number:02}" for number in range(12)]
ages = st.sampled_from([0.0, 5.0, WINDOW_S, 20.0, 300.0])
worlds = st.fixed_dictionaries(
    {
        "stored": st.dictionaries(
            st.sampled_from(DIGESTS),
            st.tuples(st.integers(0, 100), ages, ages, st.booleans()),
        ),
        "kept": st.lists(st.frozensets(st.sampled_from(DIGESTS), max_size=3), max_size=7),
        "disk_bytes": st.integers(-50, 800),
        "budget_bytes": st.integers(-50, 800),
    }
)


class World:
    """What is stored, what of it nothing needs, in the order in which it goes, and what goes."""

    def __init__(self, world: dict[str, Any], **pressure: int) -> None:
        pressure = {name: world[name] for name in ("disk_bytes", "budget_bytes")} | pressure
        self.size, self.late, self.listed, needed_at = {}, {}, {}, {}
        artifacts = {}
        for digest, (size, came_s, needed_s, listed) in world["stored"].items():
            artifacts[digest] = StoredArtifact(digest, Path(), size, {}, (), NOW - came_s)
            self.size[digest], self.listed[digest] = size, listed
            self.late[digest] = came_s < WINDOW_S
            needed_at[digest] = NOW - min(came_s, needed_s)
        self.kept = frozenset().union(*world["kept"])
        self.free = sorted(
            artifacts.keys() - self.kept, key=lambda d: (self.listed[d], needed_at[d], d)
        )
        self.in_any_case = {d for d in self.free if not (self.listed[d] or self.late[d])}
        self.going = choose_removed(
            artifacts,
            world["kept"],
            listed={digest for digest, listed in self.listed.items() if listed},
            needed_at=needed_at,
            since=NOW - WINDOW_S,
            **pressure,
        )
        self.asked_for = [d for d in self.going if d not in self.in_any_case]


@given(worlds)
def test_what_goes_is_free_goes_in_order_and_no_more_of_it_than_there_has_to(world):
    found = World(world)
    assert found.going == [d for d in found.free if d in set(found.going)]
    for digest in found.asked_for:  # each for a pressure that those before it left
        before = found.going[: found.going.index(digest)]
        freed = sum(found.size[one] for one in before)
        over_budget = world["budget_bytes"] > freed
        assert over_budget or (world["disk_bytes"] > freed and not found.late[digest])


@given(worlds)
def test_without_pressure_goes_what_is_neither_listed_nor_new_and_no_more(world):
    found = World(world, disk_bytes=0, budget_bytes=0)
    assert set(found.going) == found.in_any_case


@given(worlds)
def test_under_a_budget_everything_before_the_last_one_in_the_order_goes(world):
    """And with no other pressure, what stays would have gone only later."""
    found = World(world, disk_bytes=0)
    if found.asked_for:
        reached = found.free[: found.free.index(found.asked_for[-1]) + 1]
        assert found.going[: len(reached)] == reached


@given(worlds)
def test_if_nothing_suffices_everything_that_nothing_needs_goes(world):
    found = World(world)
    freed = sum(found.size[d] for d in found.going)
    assert freed >= world["budget_bytes"] or found.going == found.free
    assert freed >= world["disk_bytes"] or {d for d in found.free if not found.late[d]} <= set(
        found.going
    )
