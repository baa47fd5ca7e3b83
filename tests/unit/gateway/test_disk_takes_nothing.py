"""What a gateway does at its start where the disk takes nothing: it serves what its files say."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import launcher
from gateway.__main__ import _control_socket, _control_socket_or_none
from gateway.errors import StartError


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        yield Path(made)


def refusing(number: int) -> type[socket.socket]:
    class Refusing(socket.socket):
        def bind(self, _address: object) -> None:
            raise OSError(number, "the disk refuses")

    return Refusing


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_without_room_for_its_socket_no_control_plane_reaches_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(socket, "socket", refusing(number))
    with capture_logs() as logs, _control_socket_or_none(folder / "gateway.sock") as listener:
        assert listener is None
    assert [one["event"] for one in logs] == ["control.unreachable"]


def test_what_else_is_wrong_with_its_socket_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "gateway.sock").write_text("in the way")
    with (
        pytest.raises(StartError, match="is no socket: remove it"),
        _control_socket_or_none(folder / "gateway.sock"),
    ):
        pass
    (folder / "gateway.sock").unlink()
    monkeypatch.setattr(socket, "socket", refusing(errno.EPERM))
    with (
        pytest.raises(StartError, match=r"cannot listen on .*: the disk refuses"),
        _control_socket_or_none(folder / "gateway.sock"),
    ):
        pass


def test_its_socket_is_private_and_goes_with_the_block(folder: Path) -> None:
    path = folder / "gateway.sock"
    with _control_socket_or_none(path) as listener:
        assert listener is not None
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_its_folder_is_made_and_is_its_users_own(folder: Path) -> None:
    with _control_socket_or_none(folder / "run" / "gateway.sock") as listener:
        assert listener is not None
        assert (folder / "run").stat().st_mode & 0o777 == 0o700


def test_a_socket_that_another_gateway_listens_on_is_not_taken(folder: Path) -> None:
    path = folder / "gateway.sock"
    with (
        _control_socket_or_none(path) as first,
        pytest.raises(StartError, match="another gateway listens"),
        _control_socket_or_none(path),
    ):
        pass
    assert first is not None
    with _control_socket(path) as left:  # by a gateway that was killed
        os.link(path, folder / "left.sock")
        left.close()
        (folder / "left.sock").rename(path)
        with _control_socket_or_none(path) as second:
            assert second is not None


def test_a_forkserver_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_usable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(launcher, "_MEMORY", tmp_path)
    launcher._have_place_for_sockets()
    assert tempfile.tempdir == str(tmp_path)
    monkeypatch.setattr(launcher, "_MEMORY", tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        launcher._have_place_for_sockets()
