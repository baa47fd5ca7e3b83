"""The connections of the ledger's database on SQLite: how they are opened, locked and left."""

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from registry_sync.errors import LedgerError
from registry_sync.ledger.database import Database, _Sockets, begin_immediate


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/ledger.db")
    yield made
    made.close()


def nothing() -> None:
    """Nothing is to be done before others use it."""


def test_it_is_opened_once_and_others_use_it_only_after_that(database: Database) -> None:
    seen: list[int] = []

    def then() -> None:
        with database.transaction() as connection:
            count = connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one()
            seen.append(count)

    assert database.ensure(then) is True
    assert database.ensure(then) is False
    assert seen == [1]


def test_what_fails_on_the_way_leaves_nothing_open_and_is_told_by_the_next(
    database: Database,
) -> None:
    def fail() -> None:
        raise LedgerError("no room")

    with pytest.raises(LedgerError, match="no room"):
        database.ensure(fail)
    with pytest.raises(LedgerError, match="not open"), database.transaction():
        pass
    assert database.ensure(nothing) is True


def test_after_an_error_it_is_opened_anew(database: Database) -> None:
    opened: list[str] = []
    database.ensure(lambda: opened.append("first"))
    why = r"does not answer: .*no such table: no_such_table$"
    with pytest.raises(LedgerError, match=why), database.transaction() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))
    assert database.ensure(lambda: opened.append("again")) is False
    assert opened == ["first", "again"]


def test_a_connection_that_is_closed_already_keeps_no_other_from_being_cut() -> None:
    class Closed:
        def fileno(self) -> int:
            raise OSError("the connection is closed")

    own, others = socket.socketpair()
    with own, others:
        others.settimeout(10)
        sockets = _Sockets()
        for connection in (Closed(), own):
            sockets.opened(connection, None)
        sockets.cut()
        assert others.recv(1) == b"", "its thread gets an error, and so does the other end"


def test_a_closed_one_is_not_used(database: Database) -> None:
    database.ensure(nothing)
    database.close()
    with pytest.raises(LedgerError, match="not open"), database.transaction():
        pass


def test_a_connection_waits_for_locks_and_keeps_references_whole(database: Database) -> None:
    database.ensure(nothing)
    with database.transaction() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar_one() == 5000
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def test_a_transaction_that_begins_at_once_lets_nobody_else_write(
    database: Database, tmp_path: Path
) -> None:
    database.ensure(nothing)
    other = sqlite3.connect(tmp_path / "ledger.db", timeout=0)
    with database.transaction() as connection:
        begin_immediate(connection)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()
