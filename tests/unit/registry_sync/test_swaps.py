"""What ends the old version before the new one is up is not begun in vain."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.control_contract import VersionState
from tests.fakes.gateway import becomes
from tests.unit.registry_sync.nodes import A, M, NodeInMemory, idle


@pytest.mark.parametrize("swap", ["unload_first", "auto"])
async def test_what_cannot_be_compared_is_not_staged(tmp_path: Path, swap: str) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    node.registry.models[M] = replace(node.registry.models[M], tags={"gateway.swap": swap})
    async with node.control_plane() as spine:
        await node.serves(1)
        node.gateway.want(M, 2)
        await node.shows(2, VersionState.AVAILABLE)
        await idle(spine)
        staged = len(node.gateway.stages)
        node.registry.lists_nothing = True
        node.registry.point(M, A, 2)
        await spine.poll()
        await idle(spine)
        assert len(node.gateway.stages) == staged
        assert node.gateway.points(M, A) == 1
        node.registry.lists_nothing = False
        await node.serves(2)
        await becomes(lambda: node.gateway.stages[-1].alias == A, "the gateway is told for whom")
