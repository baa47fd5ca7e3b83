"""Where nobody knows what a registry's aliases say, each goes on as it is."""

import time

from gateway.control_contract import ActiveAlias, NodeState
from registry_sync.actions import RetireAlias
from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.ledger import Ledger
from registry_sync.plan import plan
from registry_sync.records import LedgerView
from registry_sync.settle import Settled, settle
from registry_sync.world import World

DIGEST = "sha256:" + "1" * 64


def listing(aliases, *, known=True):
    version = AspiredVersion("m", 1, "there", DIGEST)
    model = AspiredModel("m", {1: version}, aliases=aliases, aliases_known=known)
    return Aspired({"m": model}, 0.0)


def test_an_alias_is_retired_only_by_a_listing_that_knows_the_aliases():
    serving = ActiveAlias(model="m", alias="champion", version=1, digest=DIGEST, since=0.0)
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=[serving])
    settled = Settled(listing({"champion": 1}))
    for known, expected in ((False, ()), (True, (RetireAlias("m", "champion"),))):
        now = settled
        for _ in range(3):
            now = settle(now, listing({}, known=known))
        world = World(
            aspired=now.aspired, listings=9, node=node, ledger=LedgerView(), stored={DIGEST}
        )
        assert plan(world) == expected


def test_a_listing_that_does_not_know_them_is_remembered_as_one(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="n", clock=time.time)
    ledger.ensure()
    said = listing({}, known=False)
    ledger.remember_listing(said)
    assert ledger.last_listing() == said
    ledger.close()
