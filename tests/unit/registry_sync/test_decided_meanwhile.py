"""What operators decide is in force once it is answered, whatever is under way meanwhile."""

import asyncio
from pathlib import Path

import httpx
import pytest

from registry_sync.errors import LedgerError
from registry_sync.records import LedgerView
from tests.fakes.gateway import becomes
from tests.unit.registry_sync.nodes import A, M, NodeInMemory, idle
from tests.unit.registry_sync.operating import asking


@pytest.fixture
async def node(tmp_path: Path) -> NodeInMemory:
    return NodeInMemory.with_versions(tmp_path, 3)


async def pinned(client: httpx.AsyncClient, version: int) -> dict[str, str]:
    body = {"model": M, "alias": A, "version": version}
    return dict((await client.post("/pin", json=body)).json())


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


async def test_a_pin_that_cannot_serve_leaves_the_one_that_another_operator_made_meanwhile(
    node: NodeInMemory,
) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        await node.serves(1)
        node.gateway.stages_wait = True
        node.gateway.fails[M, 3] = ("load_failed", "a library is missing")
        first = asyncio.create_task(pinned(client, 3))
        await becomes(lambda: node.gateway.stages[-1].version == 3, "version 3 is staged")
        assert (await pinned(client, 1))["outcome"] == "active"
        answer = await first  # at once, and not when its stage has ended
        assert answer["outcome"] == "refused"
        assert "pinned at version 1 by operator" in answer["reason"]
        node.gateway.end_stage(node.gateway.stages[-1])
        await idle(spine)
        node.registry.point(M, A, 2)
        await spine.poll()
        await idle(spine)
        assert node.gateway.points(M, A) == 1


async def test_what_was_refused_meanwhile_does_not_come_back(node: NodeInMemory) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        await node.serves(1)
        node.gateway.stages_wait = True
        node.gateway.fails[M, 3] = ("load_failed", "a library is missing")
        first = asyncio.create_task(pinned(client, 2))
        await becomes(lambda: node.gateway.stages[-1].version == 2, "version 2 is staged")
        second = asyncio.create_task(pinned(client, 3))
        await becomes(lambda: node.gateway.stages[-1].version == 3, "version 3 is staged")
        assert (await first)["outcome"] == "refused"
        node.gateway.end_stage(node.gateway.stages[-1])
        assert "a library is missing" in (await second)["reason"]
        await idle(spine)
        assert (node.gateway.points(M, A), spine.journal.view.holds) == (1, {})
