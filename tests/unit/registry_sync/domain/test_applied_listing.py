"""Where nobody knows what a registry's aliases say, each goes on as it is."""

import time

import pytest

from gateway.contract.node_state import ActiveAlias, NodeState
from registry_sync.domain import LedgerView
from registry_sync.domain.applied_listing import AppliedListing, apply_listing
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.ledger.ledger import Ledger
from registry_sync.planning.actions import RetireAlias
from registry_sync.planning.plan import plan
from registry_sync.planning.snapshot import World

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
        World(aspired=applied.aspired, listings=9, node=NODE, ledger=LedgerView(), stored={DIGEST})
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
