"""A damaged ledger in the node's folder is set aside; one that is only busy is left alone."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from gateway.system.files.damaged_files import DamagedFiles
from registry_sync.domain import AcceptedDigest, Hold, Initiator
from registry_sync.ledger.damaged_ledger import set_aside_damaged
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from tests.contracts.damage import DAMAGES, Damage

DIGEST = "sha256:" + "a" * 64
HOLD = Hold("churn", "champion", 2, 1, DIGEST, Initiator.OPERATOR, 5.0)


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.db"


def opened(folder: Path) -> Ledger:
    ledger = Ledger(
        url(folder), node_id="n", clock=lambda: 7.0, holds_file=HoldsFile(folder / "holds.json")
    )
    ledger.ensure()
    return ledger


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The folder of a ledger with a hold, and with accepted digests on several pages."""
    ledger = opened(tmp_path)
    ledger.hold(HOLD)
    for version in range(1, 200):
        ledger.accept(
            AcceptedDigest("churn", version, DIGEST, None, stamped=False, listing="x" * 200)
        )
    ledger.close()
    return tmp_path


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:-4096] = os.urandom(len(content) - 8192)
    path.write_bytes(content)


HARMLESS = {"altered", "linked to a copy"}
"""Of a database: a bit may be of no page in use, and a link to one is one."""


@pytest.mark.parametrize(
    "damage",
    [*(one for one in DAMAGES if one.name not in HARMLESS), Damage("scribbled over", scribble)],
    ids=str,
)
def test_what_is_no_database_is_set_aside_and_made_anew(written: Path, damage: Damage) -> None:
    damage.apply(written / "ledger.db")
    damaged = DamagedFiles()
    set_aside_damaged(url(written), written, damaged)
    (told,) = damaged.all()
    assert (told.name, told.set_aside) == ("ledger.db", "ledger.db.damaged-1")
    ledger = opened(written)
    assert ledger.view().holds == {("churn", "champion"): HOLD}
    assert ledger.view().accepted == {}
    ledger.close()


def test_a_link_to_a_database_is_left_alone(written: Path) -> None:
    (damage,) = [one for one in DAMAGES if one.name == "linked to a copy"]
    damage.apply(written / "ledger.db")
    damaged = DamagedFiles()
    set_aside_damaged(url(written), written, damaged)
    assert damaged.all() == []
    opened(written).close()


@pytest.mark.parametrize(
    "known", [None, "holds.json", "table.json", "table.previous.json", "artifacts/ab.json"]
)
def test_an_empty_ledger_is_new_on_a_new_node_only(tmp_path: Path, known: str | None) -> None:
    (tmp_path / "ledger.db").touch()
    if known:
        (tmp_path / known).parent.mkdir(exist_ok=True)
        (tmp_path / known).touch()
    damaged = DamagedFiles()
    set_aside_damaged(url(tmp_path), tmp_path, damaged)
    told = [(one.name, one.reason, one.set_aside) for one in damaged.all()]
    assert told == ([("ledger.db", "is empty", "ledger.db.damaged-1")] if known else [])


def test_a_ledger_that_is_there_in_use_or_elsewhere_is_left_alone(written: Path) -> None:
    damaged = DamagedFiles()
    set_aside_damaged(url(written), written, damaged)
    with contextlib.closing(sqlite3.connect(written / "ledger.db")) as busy:
        busy.execute("BEGIN EXCLUSIVE")
        set_aside_damaged(url(written), written, damaged)
    set_aside_damaged(url(written / "none"), written, damaged)
    set_aside_damaged("sqlite://", written, damaged)
    set_aside_damaged("postgresql+psycopg://nobody@nowhere/ledger", written, damaged)
    assert damaged.all() == []


def test_what_belongs_to_it_goes_with_it(written: Path) -> None:
    (written / "ledger.db").write_text("no database")
    (written / "ledger.db-journal").write_text("its journal")
    set_aside_damaged(url(written), written, DamagedFiles())
    assert not (written / "ledger.db-journal").exists()
    assert (written / "ledger.db-journal.damaged-1").read_text() == "its journal"


IN_THE_WAY = {"a pipe", "a folder", "a socket", "endless", "linked to nowhere", "linked to itself"}


def a_hold(folder: Path) -> Path:
    """Write a ledger with a hold; return its file."""
    ledger = opened(folder)
    ledger.hold(HOLD)
    ledger.close()
    return folder / "ledger.db"


def works(folder: Path) -> bool:
    """Whether a ledger has its hold, and takes a pin."""
    ledger = opened(folder)
    ledger.accept(AcceptedDigest("churn", 1, DIGEST, None, stamped=False, listing="x"))
    view = ledger.view()
    ledger.close()
    return view.holds == {("churn", "champion"): HOLD} and len(view.accepted) == 1


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("damage", [one for one in DAMAGES if one.name in IN_THE_WAY], ids=str)
def test_what_lies_in_a_journals_place_keeps_no_ledger_from_its_work(
    tmp_path: Path, damage: Damage, end: str
) -> None:
    ledger = a_hold(tmp_path)
    damage.apply(ledger.with_name(f"ledger.db{end}"))
    damaged = DamagedFiles()
    set_aside_damaged(url(tmp_path), tmp_path, damaged)
    (told,) = damaged.all()
    assert (told.name, told.set_aside) == (f"ledger.db{end}", f"ledger.db{end}.damaged-1")
    assert works(tmp_path)


def test_the_journals_of_a_linked_ledger_lie_where_the_ledger_does(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    elsewhere = a_hold(tmp_path).rename(tmp_path / "room" / "elsewhere.db")
    (tmp_path / "ledger.db").symlink_to(elsewhere)
    elsewhere.with_name("elsewhere.db-journal").mkdir()
    damaged = DamagedFiles()
    set_aside_damaged(url(tmp_path), tmp_path, damaged)
    assert [one.name for one in damaged.all()] == ["elsewhere.db-journal"]
    assert works(tmp_path)
