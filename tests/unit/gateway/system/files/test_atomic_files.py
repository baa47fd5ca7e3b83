"""A file is replaced as a whole, whatever the disk refuses and whatever lies in its way."""

import errno
import os
from pathlib import Path

import pytest

from gateway.system.files import atomic_files


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for content in (b"one", b"two"):
        atomic_files.replace_file(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_does_not_come_to_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = tmp_path / "known.json", tmp_path / "new.json"
    atomic_files.replace_file(known, b"one")

    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "sync_folder", refuse)
        for path in (known, new):
            with pytest.raises(OSError, match="Input/output"):
                atomic_files.replace_file(path, b"two")
    assert list(tmp_path.iterdir()) == [known]
    assert known.read_bytes() == b"one"


def test_a_disk_without_second_names_takes_a_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for content in (b"one", b"two"):
        atomic_files.replace_file(tmp_path / "file.json", content)
        assert (tmp_path / "file.json").read_bytes() == content


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.json"
    atomic_files.replace_file(path, b"one")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            atomic_files.replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_at_the_path_of_a_file_is_set_aside(tmp_path: Path) -> None:
    path, victim = tmp_path / "file.json", tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "file.json.part").symlink_to(victim)
    path.mkdir()
    atomic_files.replace_file(path, b"one")
    assert (path.read_bytes(), victim.read_text()) == (b"one", "kept")
    assert (tmp_path / "file.json.damaged-1").is_dir()
    (tmp_path / "file.json.part").mkdir()
    atomic_files.replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    os.mkfifo(tmp_path / "file.json.part")
    path.unlink()
    path.symlink_to(victim)
    atomic_files.replace_file(path, b"three")
    assert (path.read_bytes(), path.is_symlink(), victim.read_text()) == (b"three", False, "kept")


def test_files_set_aside_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for number in range(1, 13):
        path.write_text(str(number))
        assert atomic_files.set_aside(path) == tmp_path / f"file.json.damaged-{number}"
    aside = sorted(tmp_path.iterdir(), key=lambda one: int(one.read_text()))
    assert [one.read_text() for one in aside] == ["10", "11", "12"]
    assert atomic_files.set_aside(path) is None, "there is nothing to set aside"
