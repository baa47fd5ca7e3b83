"""The ledger on SQLite: what happens to a lost file."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from registry_sync.domain import Activation, Attempt, LedgerView
from registry_sync.errors import LedgerError
from registry_sync.ledger.database import LedgerSetupError
from registry_sync.ledger.ledger import Ledger

D1, D2 = ("sha256:" + digit * 64 for digit in "12")
MOVE = Activation("m", "champion", 1, D1, None, None, "poll", 10.0, 3)
TRY = Attempt("m", None, 1, "fetch", "poll", 9.0, {"fetch": 0.5}, "complete")


@pytest.fixture
def ledger(tmp_path: Path):
    made = open_at(tmp_path)
    yield made
    made.close()


def open_at(folder: Path, node_id: str = "a") -> Ledger:
    made = Ledger(f"sqlite:///{folder}/ledger.db", node_id=node_id, clock=lambda: 100.0)
    made.ensure()
    return made


def test_a_new_ledger_is_made_once_and_is_empty(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    assert [ledger.ensure(), ledger.ensure()] == [True, False]
    assert ledger.view() == LedgerView()
    ledger.close()
    assert open_at(tmp_path).ensure() is False


def test_a_deleted_file_is_noticed_and_made_anew(ledger: Ledger, tmp_path: Path) -> None:
    ledger.activated(MOVE)
    (tmp_path / "ledger.db").unlink()
    assert ledger.ensure()
    assert ledger.view() == LedgerView()


def test_a_file_deleted_between_look_and_use_is_an_error_once(
    ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(LedgerError):
        ledger.view()
    assert ledger.ensure()
    assert ledger.view() == LedgerView()


def test_a_file_that_is_no_database_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    with pytest.raises(LedgerError, match="cannot be opened"):
        ledger.ensure()
    ledger.close()


def test_a_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    open_at(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    for _ in range(2):
        with pytest.raises(LedgerSetupError, match="newer release"):
            ledger.ensure()
    with pytest.raises(LedgerError, match="not open"):
        ledger.attempted(TRY)
    ledger.close()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("revision", ["", "0X07", "0006 ", "-1", "0", "deadbeef", "9" * 5000])
def test_a_revision_that_no_release_writes_gives_a_sentence(
    tmp_path: Path, revision: str, second: bool
) -> None:
    open_at(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        change = "INSERT INTO alembic_version VALUES (?)"
        change = change if second else "UPDATE alembic_version SET version_num = ?"
        connection.execute(change, (revision,))
        connection.commit()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", node_id="a", clock=lambda: 0.0)
    with pytest.raises(LedgerSetupError, match=r"which no release writes: move it away") as refused:
        ledger.ensure()
    assert "newer" not in refused.value.reason
    ledger.close()
