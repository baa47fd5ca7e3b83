"""The table in two generations: no crash, and no one damaged file, loses what was acknowledged."""

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.contract.catalogue import Catalogue, CatalogueModel
from gateway.contract.node_state import ActiveAlias
from gateway.contract.references import ArtifactRef
from gateway.errors import TableFileError
from gateway.routing.route_table import RouteTable
from gateway.routing.table_file import TableFile
from gateway.routing.table_generations import TableBody, TableGenerations
from gateway.system.files.damaged_files import DamagedFiles
from gateway.system.files.sealed import seal
from tests.contracts.damage import DAMAGES, Damage
from tests.fakes.disk import Killed, nth_call

DIGEST = "sha256:" + "a" * 64
CALLS = ["open", "fsync", "replace", "rename", "unlink", "close"]
"""What a save asks of the system, by which it may be killed or refused."""


def a_table(generation: int) -> RouteTable:
    entry = ActiveAlias(model="m", alias="champion", version=generation, digest=DIGEST, since=5.0)
    return RouteTable("champion", generation=generation, active={entry.alias_ref: entry})


def save(folder: Path, generation: int, damaged: DamagedFiles | None = None) -> bool:
    """Write a table as a whole."""
    table = a_table(generation)
    body = TableBody(generation=generation, active=list(table.active.values()))
    return TableGenerations(folder, damaged or DamagedFiles()).save(body)


def generation_of(folder: Path) -> int:
    return TableFile(folder).load("champion").generation


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A node's folder with the tables 1 and 2."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    return tmp_path


# --- crashes --------------------------------------------------------------------------------------


def test_both_generations_are_there_and_the_newest_counts(saved: Path) -> None:
    assert sorted(one.name for one in saved.iterdir()) == ["table.json", "table.previous.json"]
    assert generation_of(saved) == 2
    before = (saved / "table.json").stat().st_ino
    save(saved, 3)
    assert (saved / "table.previous.json").stat().st_ino == before, "renamed, not written again"
    assert generation_of(saved) == 3


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", range(4))
@pytest.mark.parametrize("call", CALLS)
def test_kill_at_any_step_keeps_the_last_acknowledged_table(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, after: bool
) -> None:
    acknowledged = 2
    with nth_call(monkeypatch, call, nth, Killed(), after=after):
        try:
            save(saved, 3)
            acknowledged = 3
        except Killed:
            pass
    with capture_logs() as logs:
        found = TableFile(saved)
        table = found.load("champion")
    assert table in [a_table(generation) for generation in range(acknowledged, 4)]
    assert not [one for one in logs if one["log_level"] in {"warning", "error"}]
    assert found.damaged() == []
    save(saved, 9)
    assert generation_of(saved) == 9


@pytest.mark.parametrize("nth", range(4))
@pytest.mark.parametrize("call", CALLS)
def test_a_save_that_the_disk_refuses_loses_no_table(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    acknowledged = 2
    with nth_call(monkeypatch, call, nth), contextlib.suppress(TableFileError):
        save(saved, 3)
        acknowledged = 3
    assert generation_of(saved) == acknowledged, "what was refused is not there"
    assert TableFile(saved).damaged() == []
    save(saved, 4)
    assert generation_of(saved) == 4


def test_a_refused_table_that_cannot_be_taken_back_is_in_the_log(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.EIO, "Input/output error")
    original, renamed = os.replace, 0

    def only_twice(*paths: Any) -> None:
        nonlocal renamed
        renamed += 1
        if renamed > 2:
            raise error
        original(*paths)

    def refuse(*_: object) -> None:
        raise error

    with (
        capture_logs() as logs,
        nth_call(monkeypatch, "fsync", 1),
        monkeypatch.context() as patch,
    ):
        patch.setattr(os, "replace", only_twice)
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(TableFileError, match="Input/output"):
            save(saved, 3)
    events = [one["event"] for one in logs]
    assert events == ["file.restore_failed", "table.restore_failed"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"table.json": 2}, 2),
        ({"table.previous.json": 1}, 1),
        ({"table.json": 2, "table.previous.json": 1}, 2),
        ({"table.previous.json": 2, "table.json.part": 3}, 2),
        ({"table.json": 3, "table.previous.json": 1}, 3),  # only the later rename survived
        ({"table.json.part": 1}, 0),
        ({}, 0),
    ],
)
def test_whatever_a_crash_has_left_the_newest_complete_table_counts(
    tmp_path: Path, there: dict[str, int], expected: int
) -> None:
    contents = {}
    for generation in range(1, 4):
        save(tmp_path, generation)
        contents[generation] = (tmp_path / "table.json").read_bytes()
    for path in tmp_path.iterdir():
        path.unlink()
    for name, generation in there.items():
        (tmp_path / name).write_bytes(contents[generation])
    assert generation_of(tmp_path) == expected
    assert generation_of(tmp_path) == expected, "and so it does the next time"


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_the_table_before_a_damaged_one_counts(saved: Path, damage: Damage) -> None:
    damage.apply(saved / "table.json")
    file = TableFile(saved)
    with capture_logs() as logs:
        assert file.load("champion") == a_table(1)
    (told,) = file.damaged()
    assert (told.name, told.set_aside) == ("table.json", "table.json.damaged-1")
    assert "the table before it counts" in told.instead
    assert os.path.lexists(saved / "table.json.damaged-1")
    (logged,) = [one for one in logs if one["log_level"] == "error"]
    assert logged["event"] == "file.damaged"
    again = TableFile(saved)
    assert again.load("champion") == a_table(1)
    assert again.damaged() == []
    save(saved, 5)
    assert generation_of(saved) == 5


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_damaged_table_before_the_newest_costs_nothing(saved: Path, damage: Damage) -> None:
    damage.apply(saved / "table.previous.json")
    file = TableFile(saved)
    assert file.load("champion") == a_table(2)
    save(saved, 3)
    save(saved, 4)
    (saved / "table.json").unlink()
    assert generation_of(saved) == 3


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_with_both_damaged_it_starts_without_a_table(saved: Path, damage: Damage) -> None:
    damage.apply(saved / "table.previous.json")
    damage.apply(saved / "table.json")
    file = TableFile(saved)
    assert file.load("champion") == RouteTable("champion")
    assert [one.name for one in file.damaged()] == ["table.json", "table.previous.json"]
    assert all("no table counts" in one.instead for one in file.damaged())
    save(saved, 3)
    assert generation_of(saved) == 3


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_table_that_is_damaged_while_it_serves_replaces_no_whole_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    damaged = DamagedFiles()
    damage.apply(saved / "table.json")
    with (
        nth_call(monkeypatch, "fsync", 1, Killed()),  # of the folder: at the end
        pytest.raises(Killed),
    ):
        save(saved, 3, damaged)
    (saved / "table.json").unlink()  # as if that rename had not survived
    assert generation_of(saved) == 1
    assert [one.name for one in damaged.all()] == ["table.json"]


def test_missing_table_is_reported(saved: Path) -> None:
    (saved / "table.json").unlink()
    file = TableFile(saved)
    assert file.load("champion") == a_table(1)
    assert [(one.name, one.reason) for one in file.damaged()] == [("table.json", "is missing")]


def test_missing_table_on_a_disk_that_refuses_keeps_the_one_before(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved / "table.json").unlink()
    with nth_call(monkeypatch, "replace", 0):
        assert generation_of(saved) == 1
    assert generation_of(saved) == 1


def test_a_table_of_an_older_release_is_taken_and_sealed_by_the_next_write(tmp_path: Path) -> None:
    save(tmp_path, 1)
    body = json.loads((tmp_path / "table.json").read_text())
    del body["sha256"]
    (tmp_path / "table.json").write_text(json.dumps(body, indent=1))
    assert generation_of(tmp_path) == 1
    save(tmp_path, 2)
    (tmp_path / "table.json").unlink()
    assert generation_of(tmp_path) == 1


@pytest.mark.parametrize("name", ["table.json", "table.previous.json"])
def test_a_newer_table_is_refused_with_a_sentence(saved: Path, name: str) -> None:
    if name != "table.json":
        (saved / "table.json").write_text("")
    body = json.loads((saved / name).read_text()) | {"format_version": 99}
    del body["sha256"]
    (saved / name).write_bytes(seal(json.dumps(body, indent=1).encode()))
    with pytest.raises(TableFileError, match="newer version; start that one"):
        TableFile(saved).load("champion")
    assert (saved / name).exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: b'{"format_version": 99}', id="a stranger"),
        pytest.param(
            lambda content: content.replace(b'"format_version": 2', b'"format_version": 3'),
            id="a bit of it was altered",
        ),
    ],
)
def test_a_table_that_only_claims_to_be_newer_is_damaged(
    saved: Path, change: Callable[[bytes], bytes]
) -> None:
    content = change((saved / "table.json").read_bytes())
    (saved / "table.json").write_bytes(content)
    file = TableFile(saved)
    assert file.load("champion") == a_table(1)
    assert [one.set_aside for one in file.damaged()] == ["table.json.damaged-1"]


# --- a disk that takes nothing --------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [None, "table.json", "catalogue.json", "hot.json"])
def test_a_start_needs_nothing_to_be_written(
    saved: Path, monkeypatch: pytest.MonkeyPatch, damaged: str | None
) -> None:
    catalogue = Catalogue(writer="w", epoch=4, models=[CatalogueModel(name="m", versions=[])])
    file = TableFile(saved)
    file.keep_catalogue(catalogue.model_dump_json().encode())
    file.save_hot([ArtifactRef("m", 1, DIGEST)])
    if damaged:
        (saved / damaged).write_text("{")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        for call in ("rename", "replace", "unlink", "mkdir", "link", "rmdir", "fsync"):
            patch.setattr(os, call, refuse)
        table, hot = file.load("champion"), file.load_hot()
        with pytest.raises(TableFileError):
            file.save_change(a_table(7), a_table(7).active)
    assert table.generation == (1 if damaged == "table.json" else 2)
    assert table.catalogue == (None if damaged == "catalogue.json" else catalogue)
    assert hot == ([] if damaged == "hot.json" else [ArtifactRef("m", 1, DIGEST)])
    found = [damaged] if damaged else []
    assert [one.name for one in file.damaged()] == [*found, "table.changes"]
    assert all(one.set_aside is None for one in file.damaged())
    file.save_change(a_table(8), a_table(8).active)
    assert generation_of(saved) == 8
    assert [one.name for one in file.damaged()][: len(found)] == found
