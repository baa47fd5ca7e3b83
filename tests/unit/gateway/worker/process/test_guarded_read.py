"""Files of the node that anything may have happened to: plain ones are read, within a limit."""

import errno
import os
from pathlib import Path

import pytest

from gateway.worker.process import guarded_read

MOST = 1000


def test_a_plain_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MOST)
    assert guarded_read.read_file(path, MOST) == b"x" * MOST
    path.write_bytes(b"")
    assert guarded_read.read_file(path, MOST) == b""
    with pytest.raises(FileNotFoundError):
        guarded_read.read_file(tmp_path / "none", MOST)


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (MOST + 1))
    for name in ("link", "endless", "loop", "folder", "pipe", "large"):
        with pytest.raises(guarded_read.DamagedFileError):
            guarded_read.read_file(tmp_path / name, MOST)
    with pytest.raises(guarded_read.DamagedFileError, match="special file"):
        guarded_read.read_file(Path("/dev/zero"), MOST)


def test_a_file_that_grows_while_it_is_read_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(os, "read", lambda _, size: b"x" * size)
    with pytest.raises(guarded_read.DamagedFileError, match="more than 1000 bytes"):
        guarded_read.read_file(tmp_path / "file", MOST)


def test_what_the_system_does_not_let_be_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", refuse)
    with pytest.raises(OSError, match="Input/output"):
        guarded_read.read_file(tmp_path / "file", MOST)
