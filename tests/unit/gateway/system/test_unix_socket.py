"""Private sockets: who may open them, what is in their way, and a disk that takes none."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.system import CONTROL_PLANE, DATA_PLANE, Plane, StartError, private_socket


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        yield Path(made)


def listening(
    path: Path, plane: Plane = DATA_PLANE
) -> AbstractContextManager[socket.socket | None]:
    return private_socket(path, plane, cost="nobody can ask it")


def refusing(number: int) -> type[socket.socket]:
    class Refusing(socket.socket):
        def bind(self, _address: object) -> None:
            raise OSError(number, "the disk refuses")

    return Refusing


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_takes_no_socket_costs_the_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(socket, "socket", refusing(number))
    with capture_logs() as logs, listening(folder / "s") as listener:
        assert listener is None
    assert [one["event"] for one in logs] == ["socket.create_failed"]
    assert "nobody can ask it" in logs[0]["reason"]


def test_another_error_of_the_system_ends_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", refusing(errno.EPERM))
    with (
        pytest.raises(StartError, match=r"cannot listen on .*: the disk refuses"),
        listening(folder / "s"),
    ):
        pass


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_of_another_kind_is_set_aside(folder: Path, kind: str) -> None:
    path = folder / "s"
    if kind == "file":
        path.write_text("in the way")
    else:
        path.mkdir()
    with listening(path) as listener:
        assert listener is not None
    assert [one.name for one in folder.iterdir()] == ["s.damaged-1"]


def test_the_socket_and_its_folder_are_private_and_the_socket_goes_with_the_block(
    folder: Path,
) -> None:
    path = folder / "run" / "s"
    with listening(path) as listener:
        assert listener is not None
        assert [one.stat().st_mode & 0o777 for one in (path.parent, path)] == [0o700, 0o600]
    assert not path.exists()


@pytest.mark.parametrize("plane", [DATA_PLANE, CONTROL_PLANE])
def test_a_socket_that_another_process_listens_on_is_not_taken(folder: Path, plane: Plane) -> None:
    path = folder / "s"
    with (
        listening(path, plane) as first,
        pytest.raises(
            StartError, match=f"another {plane.title} listens .* {plane.prefix}_RUNTIME_DIR"
        ),
        listening(path, plane),
    ):
        pass
    assert first is not None


def test_a_socket_that_a_killed_process_left_is_replaced(folder: Path) -> None:
    path = folder / "s"
    with listening(path) as left:
        assert left is not None
        os.link(path, folder / "left")
        left.close()
        (folder / "left").rename(path)
        with listening(path) as second:
            assert second is not None


def test_a_path_that_is_too_long_for_a_socket_ends_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(StartError, match="REGISTRY_SYNC_NODE_DIR"),
        listening(tmp_path / ("x" * 100) / "operations.sock", CONTROL_PLANE),
    ):
        pass
