"""Absent models and aliases are removed by a second listing; unreadable ones stay."""

import time

import pytest

from gateway.contract.node_state import ActiveAlias, NodeState
from registry_sync.domain import LedgerView
from registry_sync.domain.applied_listing import AppliedListing, apply_listing
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.ledger.ledger import Ledger
from registry_sync.planning.actions import RetireAlias
from registry_sync.planning.plan import plan
from registry_sync.planning.snapshot import Snapshot

DIGEST = "sha256:" + "1" * 64


SERVING = ActiveAlias(model="m", alias="champion", version=1, digest=DIGEST, since=0.0)
NODE = NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=[SERVING])


def listing(aliases, *, known=True, unfollowed=frozenset()):
    version = AspiredVersion("m", 1, "there", DIGEST)
    model = AspiredModel(
        "m", {1: version}, aliases=aliases, aliases_known=known, unfollowed=unfollowed
    )
    return Aspired({"m": model}, 0.0)


def decided(applied):
    return plan(
        Snapshot(
            aspired=applied.aspired, listings=9, node=NODE, ledger=LedgerView(), stored={DIGEST}
        )
    )


def test_an_alias_is_retired_only_by_a_listing_that_knows_the_aliases():
    applied = AppliedListing(listing({"champion": 1}))
    for known, expected in ((False, ()), (True, (RetireAlias("m", "champion"),))):
        now = applied
        for _ in range(3):
            now = apply_listing(now, listing({}, known=known))
        assert decided(now) == expected


@pytest.mark.parametrize(
    "between",
    [{"known": False}, {"unfollowed": frozenset({"champion"})}],
    ids=["unknown", "unready"],
)
@pytest.mark.parametrize("times", [1, 3])
def test_two_listings_in_a_row_lack_an_alias_before_it_is_taken_away(between, times):
    now = AppliedListing(listing({"champion": 1}))
    for _ in range(times):
        now = apply_listing(now, listing({}, **between))
    for expected in ((), (RetireAlias("m", "champion"),), (RetireAlias("m", "champion"),)):
        now = apply_listing(now, listing({}))
        assert decided(now) == expected


def test_an_alias_that_comes_back_between_counts_anew():
    now = AppliedListing(listing({"champion": 1}))
    for said in (listing({}, known=False), listing({}), listing({}, known=False), listing({})):
        now = apply_listing(now, said)
        assert decided(now) == ()


def test_a_listing_that_does_not_know_them_is_remembered_as_one(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=time.time)
    ledger.ensure()
    said = listing({}, known=False)
    ledger.remember_listing(said)
    assert ledger.last_listing() == said
    ledger.close()


M = "m"


def after(*listings: Aspired) -> AppliedListing:
    applied = AppliedListing(Aspired({}, 0.0))
    for one in listings:
        applied = apply_listing(applied, one)
    return applied


def of_three(aliases: dict[str, int], model: str = M) -> Aspired:
    versions = {n: AspiredVersion(model, n, location="") for n in (1, 2, 3)}
    return Aspired({model: AspiredModel(model, versions, aliases)}, listed_at=1.0)


FULL = of_three({"champion": 1, "b": 2})
WITHOUT_B = of_three({"champion": 1})
EMPTY = Aspired({}, 2.0)
OTHERS = of_three({"x": 1}, model="other")
BESIDE = {"other": {"x": 1}}


def both(one: Aspired, other: Aspired) -> Aspired:
    return Aspired({**one.models, **other.models}, listed_at=3.0)


@pytest.mark.parametrize(
    ("listings", "aliases"),
    [
        # An alias goes when two listings agree, not before.
        ((FULL, WITHOUT_B), {M: {"champion": 1, "b": 2}}),
        ((FULL, WITHOUT_B, WITHOUT_B), {M: {"champion": 1}}),
        # An alias that comes back is counted anew.
        ((FULL, WITHOUT_B, FULL, WITHOUT_B), {M: {"champion": 1, "b": 2}}),
        # So does a model.
        ((both(FULL, OTHERS), OTHERS), {M: {"champion": 1, "b": 2}, "other": {"x": 1}}),
        ((both(FULL, OTHERS), OTHERS, OTHERS), {"other": {"x": 1}}),
        # An alias that the listing before lacked goes with its model, which has one more.
        ((both(FULL, OTHERS), both(WITHOUT_B, OTHERS), OTHERS), {M: {"champion": 1}, **BESIDE}),
        # So does one of a model that was missing and comes back without it.
        ((both(FULL, OTHERS), OTHERS, both(WITHOUT_B, OTHERS)), {M: {"champion": 1}, **BESIDE}),
        # An empty listing after one with models changes nothing.
        ((FULL, EMPTY, EMPTY, EMPTY), {M: {"champion": 1, "b": 2}}),
        # A moved alias counts at once.
        ((FULL, of_three({"champion": 2, "b": 2})), {M: {"champion": 2, "b": 2}}),
    ],
)
def test_aliases_after_listings(
    listings: tuple[Aspired, ...], aliases: dict[str, dict[str, int]]
) -> None:
    applied = after(*listings)
    found = {model.name: dict(model.aliases) for model in applied.aspired.models.values()}
    assert found == aliases


def test_empty_listing_is_ignored_with_a_reason() -> None:
    applied = after(FULL, EMPTY)
    assert applied.ignored is not None
    assert "the listing is ignored" in applied.ignored
    assert applied.aspired.listed_at == EMPTY.listed_at


def test_a_first_listing_may_be_empty() -> None:
    assert after(EMPTY).ignored is None


def test_an_alias_kept_for_one_listing_keeps_its_version() -> None:
    shorter = Aspired(
        {M: AspiredModel(M, {1: FULL.models[M].versions[1]}, {"champion": 1})}, listed_at=2.0
    )
    applied = after(FULL, shorter)
    assert set(applied.aspired.models[M].versions) == {1, 2}
