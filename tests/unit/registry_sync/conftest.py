"""What the tests of the control plane share."""

import sys
from pathlib import Path

import pytest
import structlog

from tests.unit.registry_sync.nodes import NodeInMemory


@pytest.fixture(autouse=True)
def _logs_on_stderr() -> None:
    """Log where the control plane logs: stdout is a command's, and both run in one process here."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


@pytest.fixture
async def node(tmp_path: Path) -> NodeInMemory:
    """A node whose registry has two versions of a model, @champion at the first."""
    return NodeInMemory.with_versions(tmp_path, 2)
