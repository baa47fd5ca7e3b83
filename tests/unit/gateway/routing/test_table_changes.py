"""Changes beside the whole table: what was acknowledged survives a crash, and one damaged file."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.contract.catalogue import Catalogue, CatalogueModel, ModelChange
from gateway.contract.node_state import ActiveAlias, RefusedDigest
from gateway.contract.references import AliasRef
from gateway.errors import TableFileError
from gateway.routing import table_file as table_files
from gateway.routing.route_table import RouteTable
from gateway.routing.table_changes import TableChange, TableChanges
from gateway.routing.table_file import TableFile
from gateway.system.files.change_log import ChangeLog, LogContent
from gateway.system.files.damaged_files import DamagedFiles
from tests.contracts.damage import DAMAGES, Damage
from tests.fakes.disk import Killed, fill_disk, nth_call, unreadable

DIGEST = "sha256:" + "a" * 64
KEYS = [AliasRef("m", "champion"), AliasRef("m", "latest"), AliasRef("other", "champion")]
CALLS = ["open", "fsync", "fdatasync", "write", "replace", "unlink", "close", "ftruncate"]
FILES = ["table.json", "table.changes", "table.changes.copy", "table.previous.json"]


def entry(key: AliasRef, version: int) -> ActiveAlias:
    return ActiveAlias(**key._asdict(), version=version, digest=DIGEST, since=5.0)


def written(folder: Path, count: int) -> RouteTable:
    """Let so many changes be acknowledged; return the table after them."""
    file = TableFile(folder)
    table = file.load("champion")
    for _ in range(count):
        table = change(file, table)
    return table


def loaded(folder: Path, count: int) -> tuple[TableFile, RouteTable]:
    """Let so many changes be acknowledged; read them back, to go on with."""
    written(folder, count)
    file = TableFile(folder)
    return file, file.load("champion")


def change(file: TableFile, table: RouteTable) -> RouteTable:
    """Move one alias, or take one away, so that each change is another one."""
    turn = table.generation
    key = KEYS[turn % len(KEYS)]
    if turn % 7 == 5:
        after = table.without_alias(key)
    elif turn % 7 == 6:
        hold = RefusedDigest(model="m", alias="champion", digest=DIGEST, reason=f"in turn {turn}")
        after = table.rolled_back(entry(key, turn + 1), hold)
    else:
        after = table.with_active(entry(key, turn + 1))
    file.save_change(after, [key])
    return after


def test_changes_are_read_back(tmp_path: Path) -> None:
    table = written(tmp_path, 40)
    assert TableFile(tmp_path).load("champion") == table
    assert table.refused_digests
    table = written(tmp_path, 3)
    assert TableFile(tmp_path).load("champion") == table
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == sorted(set(FILES) - {"table.previous.json"}), "the whole table is not written"


def test_a_change_after_others_were_dropped_reads_neither_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = TableChanges(tmp_path, DamagedFiles())
    added = [TableChange(number=number, generation=number) for number in (1, 2, 3)]
    for one in added[:2]:
        changes.add(one)
    changes.drop(1)
    with monkeypatch.context() as patched:
        patched.setattr(changes, "_read", lambda: pytest.fail("it reads them"))
        changes.add(added[2])
    assert changes.load(0) == added[1:]


def test_a_change_costs_what_it_changes(tmp_path: Path) -> None:
    """Not what the table has: of a thousand aliases or of ten, a change is as long."""
    grown = {}
    for count in (10, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        file = TableFile(folder)
        table = file.load("champion")
        for number in range(count):
            table = table.with_active(entry(AliasRef(f"m{number}", "champion"), 1))
        file.save_change(table, table.active)
        before = {path: path.stat().st_size for path in folder.iterdir()}
        for number in range(10):
            key = AliasRef(f"m{number}", "champion")
            table = table.with_active(entry(key, 2))
            file.save_change(table, [key])
        grown[count] = sum(p.stat().st_size - before.get(p, 0) for p in folder.iterdir())
        assert TableFile(folder).load("champion") == table
    assert grown[1000] < grown[10] * 1.1, grown


def test_a_long_table_is_written_anew_once_its_changes_are_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 1)
    file, table = loaded(tmp_path, 0)
    for number in range(100):
        table = table.with_active(entry(AliasRef(f"m{number}", "champion"), 1))
    file.save_change(table, table.active)
    whole = (tmp_path / "table.json").read_bytes()
    for version in (2, 3, 4):
        table = table.with_active(entry(KEYS[0], version))
        file.save_change(table, [KEYS[0]])
        assert (tmp_path / "table.json").read_bytes() == whole
    for version in range(5, 200):
        table = table.with_active(entry(KEYS[0], version))
        file.save_change(table, [KEYS[0]])
    assert (tmp_path / "table.json").read_bytes() != whole
    assert (tmp_path / "table.changes").stat().st_size < 2 * len(whole), "and are over"
    assert TableFile(tmp_path).load("champion") == table


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", range(5))
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("whole", [False, True], ids=["added", "whole"])
def test_kill_at_any_step_keeps_the_last_acknowledged_change(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    nth: int,
    after: bool,
    whole: bool,
) -> None:
    file, before = loaded(tmp_path, 5)
    acknowledged = before
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 0 if whole else 10**6)
        with nth_call(patch, call, nth, Killed(), after=after):
            acknowledged = change(file, before)
    with capture_logs() as logs:
        again = TableFile(tmp_path)
        found = again.load("champion")
    assert found.generation in range(acknowledged.generation, before.generation + 2)
    assert found == (before if found.generation == before.generation else change_of(before))
    assert not [one for one in logs if one["log_level"] in {"warning", "error"}]
    assert again.damaged() == []
    table = written(tmp_path, 4)
    assert TableFile(tmp_path).load("champion") == table


def change_of(table: RouteTable) -> RouteTable:
    """The table after the sixth change."""
    return table.without_alias(KEYS[table.generation % len(KEYS)])


@pytest.mark.parametrize("nth", range(4))
@pytest.mark.parametrize("call", ["open", "fsync", "fdatasync", "write", "replace"])
@pytest.mark.parametrize("where", ["added", "whole", "files are new"])
def test_refused_change_is_in_neither_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, where: str
) -> None:
    file, table = loaded(tmp_path, 0 if where == "files are new" else 5)
    with monkeypatch.context() as patch, contextlib.suppress(TableFileError):
        patch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 0 if where == "whole" else 10**6)
        with nth_call(patch, call, nth):
            table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table
    for _ in range(3):
        table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table


@pytest.mark.parametrize("call", ["open", "fsync", "fdatasync", "write"])
@pytest.mark.parametrize("left", range(5))
def test_change_refused_by_the_system_is_in_neither_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, left: int
) -> None:
    """What was added is taken back without a descriptor, and without room."""
    file, table = loaded(tmp_path, 0)
    original = getattr(os, call)

    def fail(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return original(*args, **options)

    with monkeypatch.context() as patch, contextlib.suppress(TableFileError):
        patch.setattr(os, call, fail)
        table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table
    table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table


def test_change_that_could_not_be_undone_is_undone_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, table = loaded(tmp_path, 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, capture_logs() as logs:
        for call in ("fdatasync", "ftruncate"):
            patch.setattr(os, call, refuse)
        with pytest.raises(TableFileError):
            file.save_change(table.with_active(entry(AliasRef("refused", "champion"), 9)), [])
    assert "table.changes_restore_failed" in [one["event"] for one in logs]
    table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[1:]


def flip(path: Path, number: int) -> None:
    """Change one bit in the middle of a line."""
    lines = lines_of(path)
    line = bytearray(lines[number])
    line[len(line) // 2] ^= 1
    lines[number] = bytes(line)
    path.write_bytes(b"".join(b"\n" + one for one in lines))


def test_damage_after_damage_costs_nothing(tmp_path: Path) -> None:
    """Of one copy and of the other, with a start or a change between: each is whole again."""
    table = written(tmp_path, 5)
    for turn in range(8):
        name = FILES[1 + turn % 2]
        flip(tmp_path / name, turn // 2)
        file = TableFile(tmp_path)
        assert file.load("champion") == table
        assert [one.name for one in file.damaged()] == [name]
        assert lines_of(tmp_path / FILES[1]) == lines_of(tmp_path / FILES[2])
        if turn >= 4:
            table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table


def test_both_copies_damaged_in_other_lines_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = written(tmp_path, 5)
    flip(tmp_path / FILES[1], 1)
    flip(tmp_path / FILES[2], 3)

    with monkeypatch.context() as full:
        fill_disk(full)
        file = TableFile(tmp_path)
        assert file.load("champion") == table
        assert {one.name: one.set_aside for one in file.damaged()} == dict.fromkeys(FILES[1:3])
        with pytest.raises(TableFileError, match="No space left"):
            change(file, table)
    table = change(file, table)
    for _ in range(2):
        again = TableFile(tmp_path)
        assert again.load("champion") == table
        assert again.damaged() == []


@pytest.mark.parametrize("name", FILES[1:3])
def test_a_copy_that_is_torn_or_lacks_lines_gets_them(tmp_path: Path, name: str) -> None:
    table = written(tmp_path, 3)
    content = (tmp_path / name).read_bytes()
    file = TableFile(tmp_path)
    for length in range(0, len(content), 7):
        (tmp_path / name).write_bytes(content[:length])
        file = TableFile(tmp_path)
        assert file.load("champion") == table
        assert file.damaged() == []
        assert (tmp_path / name).read_bytes() == content
    table = change(file, table)
    (tmp_path / name).unlink()
    table = change(file, table)
    assert (tmp_path / name).exists()
    for other in FILES[1:3]:
        assert len(lines_of(tmp_path / other)) == 5


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", range(4))
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FILES[1:3])
def test_killed_while_a_copy_is_written_anew_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str, nth: int, after: bool
) -> None:
    table = written(tmp_path, 5)
    flip(tmp_path / name, 2)
    with contextlib.suppress(Killed), nth_call(monkeypatch, call, nth, Killed(), after=after):
        TableFile(tmp_path).load("champion")
    assert TableFile(tmp_path).load("champion") == table


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["once", "until the next change"])
@pytest.mark.parametrize("name", FILES[1:3])
def test_a_copy_that_cannot_be_read_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, again: bool
) -> None:
    table = written(tmp_path, 5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with unreadable(monkeypatch, name):
        file = TableFile(tmp_path)
        assert file.load("champion") == table
        (told,) = file.damaged()
        assert (told.name, told.reason) == (name, "cannot be read: Too many open files")
        assert told.set_aside is None
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        if again:
            table = change(file, table)
    table = change(file, table)
    for left_out in (None, *FILES[1:3]):
        with unreadable(monkeypatch, *([left_out] if left_out else [])):
            assert TableFile(tmp_path).load("champion") == table


@pytest.mark.parametrize(
    ("damaged", "unread"),
    [
        ([], ["table.changes", "table.changes.copy"]),
        ([], ["table.json", "table.previous.json"]),
        (["table.json"], ["table.previous.json"]),
        (["table.previous.json"], ["table.json"]),
    ],
)
def test_unreadable_changes_without_a_replacement_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: list[str], unread: list[str]
) -> None:
    """Without it older versions would be served: it does not start, and loses nothing."""
    monkeypatch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 1000)
    table = written(tmp_path, 12)
    assert all((tmp_path / each).exists() for each in FILES)
    for name in damaged:
        (tmp_path / name).write_text("{")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        unreadable(monkeypatch, *unread),
        pytest.raises(TableFileError, match=r"cannot be read: .*Too many open files"),
    ):
        TableFile(tmp_path).load("champion")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert TableFile(tmp_path).load("champion") == table


@pytest.mark.parametrize("young", [True, False])
def test_the_changes_stand_in_for_a_table_only_where_they_have_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, young: bool
) -> None:
    """After a crash between two renames, ``table.json`` has no table before it."""
    monkeypatch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 10**9 if young else 1000)
    table = written(tmp_path, 12)
    if young:
        assert not (tmp_path / "table.previous.json").exists()
    else:
        (tmp_path / "table.json").replace(tmp_path / "table.previous.json")
        assert TableFile(tmp_path).load("champion") == table
    assert (tmp_path / "table.json").exists()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with unreadable(monkeypatch, "table.json"):
        if young:
            assert TableFile(tmp_path).load("champion") == table
        else:
            with pytest.raises(TableFileError, match=r"table\.json cannot be read: Too many"):
                TableFile(tmp_path).load("champion")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert TableFile(tmp_path).load("champion") == table


def test_the_table_before_and_the_changes_stand_in_for_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 1000)
    table = written(tmp_path, 12)
    with unreadable(monkeypatch, "table.json"):
        file = TableFile(tmp_path)
        assert file.load("champion") == table
    (told,) = file.damaged()
    assert (told.name, told.set_aside) == ("table.json", None)


@pytest.mark.parametrize("other", [Path.unlink, lambda path: flip(path, 2)], ids=["gone", "wrong"])
@pytest.mark.parametrize("name", FILES[1:3])
def test_a_copy_that_cannot_be_read_is_waited_for_where_the_other_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: Callable[[Path], None]
) -> None:
    file, table = loaded(tmp_path, 5)
    (left,) = set(FILES[1:3]) - {name}
    with unreadable(monkeypatch, name):
        other(tmp_path / left)
        with pytest.raises(TableFileError, match="Too many open files"):
            TableFile(tmp_path).load("champion")
        if not (tmp_path / left).exists():
            with pytest.raises(TableFileError, match="Too many open files"):
                change(file, table)
    assert TableFile(tmp_path).load("champion") == table
    table = change(file, table)
    assert TableFile(tmp_path).load("champion") == table


@pytest.mark.parametrize(
    "names", [FILES[1:2], FILES[2:3], FILES[1:3]], ids=["first", "second", "both"]
)
def test_changes_that_cannot_be_read_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    file, table = loaded(tmp_path, 5)
    with monkeypatch.context() as patch, unreadable(patch, *names):
        patch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 0)
        table = change(file, table)  # and the table as a whole
    for name in FILES[1:3]:
        assert len(lines_of(tmp_path / name)) == 6
    (tmp_path / "table.json").write_text("{")
    assert TableFile(tmp_path).load("champion") == table


@pytest.mark.parametrize("loaded", [False, True], ids=["in one life", "after a start"])
def test_previous_table_misses_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    """The newest table is damaged while it serves, and takes nobody's place."""
    monkeypatch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 1000)
    node = tmp_path / "node"
    node.mkdir()
    table = written(node, 12)
    file = TableFile(node)
    assert file.load("champion") == table
    for _ in range(0 if loaded else 12):
        table = change(file, table)
    for turn in range(3):
        (node / "table.json").write_text("{")
        while (node / "table.json").stat().st_size == 1:
            table = change(file, table)
        found = shutil.copytree(node, tmp_path / f"found{turn}")
        (found / "table.json").write_text("{")
        assert TableFile(found).load("champion") == table


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_one_damaged_file_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Damage
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(table_files, "_LEAST_TABLE_CHANGES_BYTES", 1000)
        written(tmp_path, 12)
    table = written(tmp_path, 1)
    assert all((tmp_path / each).exists() for each in FILES)
    damage.apply(tmp_path / name)
    file = TableFile(tmp_path)
    assert file.load("champion") == table
    assert {one.name for one in file.damaged()} <= {name}
    table = written(tmp_path, 5)
    assert TableFile(tmp_path).load("champion") == table


def test_torn_line_is_ignored_and_the_next_one_counts(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log", 10_000)
    log.add([b"one"])
    whole = (tmp_path / "log").read_bytes()
    log.add([b"two"])
    both = (tmp_path / "log").read_bytes()
    for length in range(len(whole), len(both)):
        (tmp_path / "log").write_bytes(both[:length])
        log = ChangeLog(tmp_path / "log", 10_000)
        if length % 2:  # else the next addition is what reads it
            assert log.read() == LogContent((b"one",), damaged=0)
        log.add([b"three"])
        assert log.read() == LogContent((b"one", b"three"), damaged=0)
        assert (tmp_path / "log").stat().st_size == len(both) + 2


def test_malformed_line_is_damage(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"another": "file"}')
    assert ChangeLog(tmp_path / "log", 10_000).read().damaged == 1


def test_no_byte_of_a_line_changes_unnoticed(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log", 10_000)
    log.add([b"one", b"two"])
    content = (tmp_path / "log").read_bytes()
    for place in range(len(content)):
        (tmp_path / "log").write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        assert set(log.read().documents) < {b"one", b"two"}


# --- the catalogue --------------------------------------------------------------------------------


def model_change(revision: int, name: str, *, epoch: int = 4, gone: bool = False) -> bytes:
    model = CatalogueModel(name=name, versions=[], aliases={"champion": revision})
    change = ModelChange(
        writer="w", epoch=epoch, revision=revision, name=name, model=None if gone else model
    )
    return change.model_dump_json().encode()


def catalogue(*names: str) -> bytes:
    models = [CatalogueModel(name=name, versions=[]) for name in names]
    return Catalogue(writer="w", epoch=4, models=models).model_dump_json().encode()


def listed(folder: Path, *names: str, changed: Iterable[str] = ()) -> TableFile:
    """Keep a catalogue of these models, and a change of each of those, one after another."""
    file = TableFile(folder)
    file.keep_catalogue(catalogue(*names))
    for revision, name in enumerate(changed, start=1):
        file.keep_model(model_change(revision, name))
    return file


def test_models_that_changed_come_back_with_their_catalogue(tmp_path: Path) -> None:
    file = listed(tmp_path, "a", "b", "c", changed=("a", "b", "a", "new"))
    file.keep_model(model_change(9, "c", gone=True))
    file.keep_model(model_change(1, "b", epoch=5))  # of a snapshot that is not the one in place
    table = TableFile(tmp_path).load("champion")
    assert table.names() == ["a", "b", "new"]
    aliases = [table.model(name).aliases.get("champion") for name in table.names()]
    assert aliases == [3, 2, 4]
    file.keep_catalogue(catalogue("a", "b", "c"))
    assert TableFile(tmp_path).load("champion").names() == ["a", "b", "c"]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damaged_changes_leave_the_catalogue_as_it_was(tmp_path: Path, damage: Damage) -> None:
    listed(tmp_path, "a", changed=("a", "a"))
    damage.apply(tmp_path / "catalogue.changes")
    again = TableFile(tmp_path)
    assert again.load("champion").model("a").aliases.get("champion") in {None, 1, 2}
    assert {one.name for one in again.damaged()} <= {"catalogue.changes"}
    again.keep_model(model_change(3, "a"))
    assert TableFile(tmp_path).load("champion").model("a").aliases == {"champion": 3}


@pytest.mark.parametrize("next_model", [True, False])
def test_the_lines_beside_a_damaged_one_are_written_anew(tmp_path: Path, next_model: bool) -> None:
    listed(tmp_path, changed=("a", "b", "c"))
    flip(tmp_path / "catalogue.changes", 1)
    file = TableFile(tmp_path)
    assert file.load("champion").names() == ["a", "c"]
    assert [one.reason for one in file.damaged()] == ["has 1 damaged lines"]
    if next_model:
        file.keep_model(model_change(4, "d"))
    else:
        file.write_due()
    again = TableFile(tmp_path)
    assert again.load("champion").names() == ["a", "c", *(["d"] if next_model else [])]
    assert again.damaged() == []


def test_models_that_cannot_be_read_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(tmp_path, changed=("a",))
    with unreadable(monkeypatch, "catalogue.changes"):
        file = TableFile(tmp_path)
        assert file.load("champion").names() == []
    (told,) = file.damaged()
    assert (told.reason, told.set_aside) == ("cannot be read: Too many open files", None)
    file.keep_model(model_change(2, "b"))
    assert TableFile(tmp_path).load("champion").names() == ["a", "b"]


def test_many_changes_ask_for_the_whole_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "_LEAST_CATALOGUE_CHANGES_BYTES", 1000)
    file = listed(tmp_path)
    assert not file.are_model_changes_long()
    for revision in range(1, 10):
        file.keep_model(model_change(revision, "a"))
    assert file.are_model_changes_long()
    file.keep_catalogue(catalogue())
    assert not file.are_model_changes_long()


@pytest.mark.parametrize("lost", [False, True])
def test_a_damaged_copy_is_set_aside_where_the_other_has_what_it_has(
    tmp_path: Path, *, lost: bool
) -> None:
    table = written(tmp_path, 3)
    first, second = tmp_path / "table.changes", tmp_path / "table.changes.copy"
    first.write_bytes(b"\nno change" + first.read_bytes())
    if lost:
        second.write_bytes(second.read_bytes().rpartition(b"\n")[0])
    file = TableFile(tmp_path)
    assert file.load("champion") == table
    assert first.with_name("table.changes.damaged-1").exists() is not lost


def test_a_table_that_follows_another_one_has_the_same_indexes_as_one_made_anew() -> None:
    table = RouteTable("champion").with_active(entry(KEYS[0], 1)).with_active(entry(KEYS[2], 1))
    for following in (table, table.without_alias(KEYS[0]), table.without_alias(KEYS[1])):
        assert following._active_of == replace(following)._active_of
