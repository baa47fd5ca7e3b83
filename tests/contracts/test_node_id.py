"""The node's id and its locks: the same for both planes, whatever has happened to the files."""

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gateway.system import CONTROL_PLANE, DATA_PLANE, Plane, StartError, read_node_id, sole_owner
from gateway.system.files.damaged_files import DamagedFile, DamagedFiles
from tests.contracts.damage import DAMAGES, Damage
from tests.fakes.disk import fill_disk

Read = Callable[[Path], tuple[str, list[DamagedFile]]]


def read_by(folder: Path, *, must_be_kept: bool) -> tuple[str, list[DamagedFile]]:
    """Read the id as one of the planes does; return it and the damage that is reported."""
    damaged = DamagedFiles()
    return read_node_id(folder, damaged, must_be_kept=must_be_kept), damaged.all()


read_by_gateway = partial(read_by, must_be_kept=False)
read_by_control_plane = partial(read_by, must_be_kept=True)


@pytest.fixture(params=[read_by_gateway, read_by_control_plane], ids=["gateway", "registry_sync"])
def read(request: pytest.FixtureRequest) -> Read:
    reads: Read = request.param
    return reads


NO_IDS = [
    Damage("no id", lambda path: path.write_text("hello\n")),
    Damage("half an id", lambda path: path.write_text(str(uuid.uuid4())[:20])),
    Damage("two ids", lambda path: path.write_text(f"{uuid.uuid4()}\n{uuid.uuid4()}\n")),
    Damage("an id of another spelling", lambda path: path.write_text(f"{{{uuid.uuid4()}}}")),
]


def test_the_first_plane_makes_it_and_the_other_reads_it(read: Read, tmp_path: Path) -> None:
    made, damaged = read(tmp_path)
    assert (uuid.UUID(made).version, damaged) == (4, [])
    assert read_by_gateway(tmp_path) == read_by_control_plane(tmp_path) == (made, [])
    assert (tmp_path / "node_id").read_text() == (tmp_path / "node_id.copy").read_text()


def test_an_id_of_an_older_release_is_kept_and_copied(read: Read, tmp_path: Path) -> None:
    known = str(uuid.uuid4())
    (tmp_path / "node_id").write_text(f"{known}\n")
    assert read(tmp_path) == (known, [])
    assert (tmp_path / "node_id.copy").read_text() == f"{known}\n"


@pytest.mark.parametrize("name", ["node_id", "node_id.copy"])
@pytest.mark.parametrize("damage", [*DAMAGES, *NO_IDS], ids=str)
def test_one_damaged_file_costs_nothing(
    read: Read, tmp_path: Path, damage: Damage, name: str
) -> None:
    known, _ = read(tmp_path)
    damage.apply(tmp_path / name)
    found, (one,) = read(tmp_path)
    assert (found, one.name, one.set_aside) == (known, name, f"{name}.damaged-1")
    assert read(tmp_path) == (known, [])
    (tmp_path / name).unlink()
    assert read(tmp_path) == (known, [])


@pytest.mark.parametrize(
    ("name", "says"), [("node_id", "its copy"), ("node_id.copy", "of which this is the copy")]
)
def test_it_is_said_from_where_the_id_is_known(
    read: Read, tmp_path: Path, name: str, says: str
) -> None:
    read(tmp_path)
    (tmp_path / name).write_text("no id")
    _, (one,) = read(tmp_path)
    assert (one.name, one.instead.endswith(says)) == (name, True), one


def test_a_copy_with_another_id_is_set_aside_and_told(read: Read, tmp_path: Path) -> None:
    known, _ = read(tmp_path)
    (tmp_path / "node_id.copy").write_text(f"{uuid.uuid4()}\n")
    other = (tmp_path / "node_id.copy").read_text()
    _, (one,) = read(tmp_path)
    assert (one.name, one.reason) == ("node_id.copy", "holds another id than node_id")
    assert (tmp_path / str(one.set_aside)).read_text() == other
    assert read_by_gateway(tmp_path) == read_by_control_plane(tmp_path) == (known, [])
    assert (tmp_path / "node_id.copy").read_text() == f"{known}\n"


def test_a_folder_that_another_process_locks_is_waited_for_a_moment(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, _ = read(tmp_path)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert read(tmp_path) == (known, [])
        assert 1 <= sum(slept) <= 10
    finally:
        os.close(other)


@pytest.mark.parametrize("damage", [*DAMAGES, *NO_IDS], ids=str)
def test_with_both_damaged_the_node_has_a_new_id(
    read: Read, tmp_path: Path, damage: Damage
) -> None:
    known, _ = read(tmp_path)
    for name in ("node_id", "node_id.copy"):
        damage.apply(tmp_path / name)
    found, damaged = read(tmp_path)
    assert found != known
    assert [one.name for one in damaged] == ["node_id", "node_id.copy"]
    assert read_by_gateway(tmp_path) == read_by_control_plane(tmp_path) == (found, [])


@pytest.mark.parametrize("damaged", [False, True])
def test_a_full_disk_hides_no_id(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    known, _ = read(tmp_path)
    if damaged:
        (tmp_path / "node_id").write_text("")
    fill_disk(monkeypatch)
    assert read(tmp_path)[0] == known


def test_full_disk_without_a_node_id_stops_only_the_control_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch)
    uuid.UUID(read_by_gateway(tmp_path)[0])
    with pytest.raises(StartError, match="No space left"):
        read_by_control_plane(tmp_path)


@pytest.mark.parametrize("torn", [False, True])
def test_planes_that_start_at_once_agree(tmp_path: Path, torn: bool) -> None:
    if torn:
        (tmp_path / "node_id").write_text("half an")
        (tmp_path / "node_id.copy").write_text("")
    found: list[str] = []
    barrier = threading.Barrier(8)

    def start(number: int) -> None:
        barrier.wait()
        found.append(read_node_id(tmp_path, DamagedFiles(), must_be_kept=number % 2 == 1))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (8, 1)


# --- locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", [DATA_PLANE, CONTROL_PLANE], ids=["gateway", "registry_sync"])
@pytest.mark.parametrize(
    "damage", [one for one in DAMAGES if one.name not in {"truncated", "altered"}], ids=str
)
def test_whatever_lies_in_a_locks_place_one_process_owns_the_folder(
    tmp_path: Path, plane: Plane, damage: Damage
) -> None:
    (tmp_path / plane.lock).write_text("x")
    damage.apply(tmp_path / plane.lock)
    with sole_owner(tmp_path, plane), pytest.raises(StartError, match="another"):
        sole_owner(tmp_path, plane).__enter__()
    with sole_owner(tmp_path, plane):
        pass


@pytest.mark.parametrize("plane", [DATA_PLANE, CONTROL_PLANE])
def test_a_lock_behind_a_link_empties_no_file(tmp_path: Path, plane: Plane) -> None:
    (tmp_path / "table.json").write_text("precious")
    (tmp_path / plane.lock).symlink_to("table.json")
    with sole_owner(tmp_path, plane):
        assert (tmp_path / "table.json").read_text() == "precious"


@pytest.mark.parametrize("plane", [DATA_PLANE, CONTROL_PLANE])
def test_a_lock_that_cannot_be_written_is_held_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: Plane
) -> None:
    with sole_owner(tmp_path, plane):
        pass
    original = os.open

    def read_only(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(30, "Read-only file system")
        return original(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    with sole_owner(tmp_path, plane), pytest.raises(StartError, match="another"):
        sole_owner(tmp_path, plane).__enter__()
