"""A migration on SQLite that is killed at any statement leaves what was there before, whole."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from registry_sync.domain import Activation
from registry_sync.ledger.database import LedgerSetupError
from registry_sync.ledger.ledger import Ledger
from tests.fakes.migrations import go
from tests.servers import clean_environ

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "1" * 64
MOVE = Activation("m", "champion", 1, DIGEST, None, None, "poll", 10.0, 3)
LIMIT_S = 120.0


# Copies a ledger, migrates the copy, and ends itself by SIGKILL after its nth statement that
# changes something; once for each n, until a migration ends well. Says how often it was killed.
KILL = """
import itertools, json, os, shutil, signal, sys
from sqlalchemy import Engine, event
from registry_sync.ledger import Ledger

before, folder = sys.argv[1:]
CHANGES = ("CREATE", "ALTER", "INSERT", "UPDATE", "DROP", "DELETE")

def migrate(path, last):
    numbers = itertools.count(1)
    @event.listens_for(Engine, "after_cursor_execute")
    def executed(connection, cursor, statement, *rest):
        if statement.strip().upper().startswith(CHANGES) and next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    Ledger(f"sqlite:///{path}", node_id="a", clock=lambda: 1.0).ensure()

for last in itertools.count(1):
    path = f"{folder}/{last}.db"
    if os.path.exists(before):
        shutil.copy(before, path)
    child = os.fork()
    if not child:
        try:
            migrate(path, last)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
print(json.dumps(last - 1))
"""


def killed(before: Path, folder: Path) -> list[Path]:
    """Return copies of a ledger, each left by a migration that was killed a statement later."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(before), str(folder)],
        env=clean_environ({"PYTHONPATH": str(ROOT)}),
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
        check=True,
    )
    return [folder / f"{number}.db" for number in range(1, json.loads(done.stdout) + 1)]


def migrated(path: Path, revision: str) -> Path:
    """Make a ledger as the release with this revision has it, with a row in it."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    go(engine, command.upgrade, revision)
    engine.dispose()
    return path


def ask(path: Path, *statements: str) -> list[Any]:
    """Execute statements, as an older release would: each is kept at once."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [connection.execute(statement).fetchall() for statement in statements]
    finally:
        connection.close()


def content(path: Path) -> list[Any]:
    tables, revision = "SELECT sql FROM sqlite_master ORDER BY name", "SELECT * FROM activations"
    found = ask(path, tables)
    return [*found, *(ask(path, revision, "SELECT * FROM alembic_version") if found[0] else [])]


def ledger_at(path: Path) -> Ledger:
    return Ledger(f"sqlite:///{path}", node_id="a", clock=lambda: 100.0)


def is_used(path: Path) -> bool:
    """Whether a ledger can be opened and written to."""
    ledger = ledger_at(path)
    try:
        ledger.ensure()
        ledger.activated(MOVE)
        return MOVE in ledger.activations_of("m")
    finally:
        ledger.close()


def test_the_first_one_leaves_nothing(tmp_path: Path) -> None:
    left = killed(tmp_path / "none.db", tmp_path / "killed")
    assert len(left) > 20
    for path in left:
        assert content(path) == [[]], path
        assert is_used(path)


def test_the_next_one_leaves_the_ledger_of_the_release_before(tmp_path: Path) -> None:
    before = migrated(tmp_path / "before.db", "0001")
    ask(
        before,
        "INSERT INTO activations (node_id, model, alias, version, digest, asked_by, at, generation)"
        f" VALUES ('a', 'm', 'champion', 1, '{DIGEST}', 'poll', 10.0, 3)",
    )
    left = killed(before, tmp_path / "killed")
    assert len(left) > 5
    for path in left:
        assert content(path) == content(before), path
        assert is_used(path)


def test_what_an_older_release_left_half_migrated_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = migrated(tmp_path / "ledger.db", "0001")
    ask(path, "ALTER TABLE activations ADD COLUMN durations_s JSON")
    ledger = ledger_at(path)
    with pytest.raises(LedgerSetupError, match=r"half migrated.*move it away"):
        ledger.ensure()
    shutil.move(path, tmp_path / "away.db")
    ledger.ensure()
    ledger.activated(MOVE)
    ledger.close()


def test_an_unmigrated_ledger_with_rows_is_left_alone(tmp_path: Path) -> None:
    path = migrated(tmp_path / "ledger.db", "0001")
    row = "INSERT INTO pins VALUES ('a', 'm', 1, 'd', NULL, 0, NULL, 1.0)"
    ask(path, row, "DELETE FROM alembic_version")
    ledger = ledger_at(path)
    with pytest.raises(LedgerSetupError, match="move it away"):
        ledger.ensure()
    ledger.close()
    assert ask(path, "SELECT count(*) FROM pins") == [[(1,)]]
