"""What is logged while a command works goes to stderr: stdout is its answer."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.fakes.pythons import ended

LOGGING = """
import structlog
from registry_sync import bootstrap, cli
from registry_sync.errors import SourceError

def failing(*_, **__):
    log = structlog.get_logger("x")
    log.warning("fetch.resumed", token="Bearer c4nary")
    raise SourceError("it does not answer")

bootstrap.build_registry = failing
bootstrap.build_publisher = failing
cli.main()
"""


@pytest.mark.parametrize(
    "arguments",
    [("stamp", "models:/churn/1", "--json"), ("publish", ".", "s3://b/p/churn", "--json")],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_log_line_is_no_part_of_the_answer(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environ = {**os.environ, "REGISTRY_SYNC_LOG_FORMAT": "json"}
    done = ended([sys.executable, "-c", LOGGING, *arguments], cwd=tmp_path, env=environ)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [one["event"] for one in logged] == ["fetch.resumed"]
    assert "c4nary" not in done.stderr
    assert "it does not answer" in done.stderr
