"""What operators decide is in force once it is answered, whatever is under way meanwhile."""

from pathlib import Path

import pytest

from registry_sync.errors import LedgerError
from registry_sync.records import LedgerView
from tests.unit.registry_sync.nodes import A, M, NodeInMemory, idle
from tests.unit.registry_sync.operating import asking


@pytest.fixture
async def node(tmp_path: Path) -> NodeInMemory:
    return NodeInMemory.with_versions(tmp_path, 3)


def unreadable() -> LedgerView:
    """A database that failed over right after it took what was written."""
    raise LedgerError("the ledger does not answer")


async def test_what_was_answered_counts_though_the_ledger_cannot_be_read_after_it(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.registry.point(M, "staging", 2)
    async with node.control_plane() as spine, asking(node, spine) as client:
        await node.serves(1)
        await node.serves(2, "staging")
        await idle(spine)
        with monkeypatch.context() as broken:
            broken.setattr(spine.ledger, "view", unreadable)
            assert (await client.post("/freeze")).status_code == 200
            pinned = {"model": M, "alias": "staging", "version": 1}
            assert (await client.post("/pin", json=pinned)).json()["outcome"] == "active"
            node.registry.point(M, A, 2)
            await spine.poll()
            await idle(spine)
            assert (node.gateway.points(M, A), node.gateway.points(M, "staging")) == (1, 1)
            assert (await client.post("/unfreeze")).json()["changed"] is True
            await node.serves(2)
        await client.post("/unpin", json={"model": M, "alias": "staging"})
        await node.serves(2, "staging")
        assert spine.journal.view.holds == {}
