"""What the tests of the control plane share."""

from pathlib import Path

import pytest

from tests.unit.registry_sync.nodes import NodeInMemory


@pytest.fixture
async def node(tmp_path: Path) -> NodeInMemory:
    """A node whose registry has two versions of a model, @champion at the first."""
    return NodeInMemory.with_versions(tmp_path, 2)
