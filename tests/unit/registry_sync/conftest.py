"""What the tests of the control plane share."""

import sys
from pathlib import Path

import pytest
import structlog

from registry_sync import bootstrap
from tests.fakes.nodes import NodeInMemory


@pytest.fixture(autouse=True)
def _logs_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log where the control plane logs: stdout is a command's, and both run in one process here."""
    # A command that logs sets this up for its process, which is the tests'.
    monkeypatch.setattr(bootstrap, "begin_log", lambda _: None)
    # The default shows every local variable of a traceback, which takes gigabytes of a whole spine.
    shown = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    *processors, _ = structlog.get_config()["processors"]
    structlog.configure(
        processors=[*processors, shown],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@pytest.fixture
async def node(tmp_path: Path, request: pytest.FixtureRequest) -> NodeInMemory:
    """A node whose registry has two versions of a model, or a file's VERSIONS, @champion at 1."""
    return NodeInMemory.with_versions(tmp_path, getattr(request.module, "VERSIONS", 2))
