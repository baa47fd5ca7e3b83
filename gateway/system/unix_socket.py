"""A Unix socket that only the user of this process may open."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from gateway.system.files import set_aside
from gateway.system.node_identity import Plane, StartError

_PATH_BYTES = 107
"""The longest path that the system takes."""
_BACKLOG = 128
_DISK_TAKES_NOTHING = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_log = structlog.get_logger("gateway.system.unix_socket")


@contextlib.contextmanager
def private_socket(path: Path, plane: Plane, *, cost: str) -> Iterator[socket.socket | None]:
    """Listen at a path for the block, and remove the socket at its end.

    Args:
        path: A socket that a killed process left there is replaced; another file is set aside.
        plane: The program that listens.
        cost: The loss without the socket, as a sentence for the log.

    Yields:
        The listening socket, non-blocking, or None if the disk takes no socket.

    Raises:
        StartError: The path is too long, another process listens there, or listening failed.
    """
    resolved = path.resolve()
    if len(os.fsencode(resolved)) > _PATH_BYTES:
        raise StartError(
            f"{resolved} is longer than a Unix socket's path may be ({_PATH_BYTES} bytes): "
            f"set {plane.prefix}_RUNTIME_DIR or {plane.prefix}_NODE_DIR to a shorter one"
        )
    if _is_listened_on(path):
        raise StartError(
            f"another {plane.title} listens on {path}: set {plane.prefix}_RUNTIME_DIR to another "
            "folder"
        )
    with contextlib.ExitStack() as opened:
        listener: socket.socket | None = None
        try:
            listener = opened.enter_context(_listening(path))
        except OSError as error:
            if error.errno not in _DISK_TAKES_NOTHING:
                raise StartError(f"cannot listen on {path}: {error.strerror}") from error
            _log.error(
                "socket.create_failed",
                reason=f"no socket can be made at {path} ({error.strerror}): {cost}; set "
                "GATEWAY_RUNTIME_DIR and REGISTRY_SYNC_RUNTIME_DIR to a folder in memory",
            )
        yield listener


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            path.chmod(0o600)  # no connection is possible before listen()
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            yield listener
        finally:
            with contextlib.suppress(OSError):  # the disk may refuse
                path.unlink()


def _clear(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            set_aside(path)
        path.unlink(missing_ok=True)


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True
