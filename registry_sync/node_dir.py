"""The node's folder: who it is, and that it has one control plane only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

_SOCKET_PATH_BYTES = 107
_BACKLOG = 64


class StartError(Exception):
    """The control plane cannot start as it is set up. The message says what to do."""


@contextlib.contextmanager
def sole_owner(node_dir: Path) -> Iterator[str]:
    """Own the node's folder, and give its id.

    Raises:
        StartError: The folder cannot be used, or another control plane owns it.
    """
    try:
        node_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(node_dir / "registry_sync.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"the node's folder {node_dir} cannot be used: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StartError(
            f"another control plane runs on {node_dir.absolute()}: stop that one, or set "
            "REGISTRY_SYNC_NODE_DIR to another folder"
        ) from error
    try:
        yield _node_id(node_dir / "node_id")
    finally:
        os.close(lock)


def _node_id(path: Path) -> str:
    """Return the node's id; the plane that starts first makes it, whole or not at all."""
    temporary = path.with_name(f".node_id.{uuid.uuid4().hex}")
    try:
        temporary.write_text(f"{uuid.uuid4()}\n")
        # A link, unlike a rename, does not replace what the other plane may just have made.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        return path.read_text().strip()
    except OSError as error:
        raise StartError(f"{path} cannot be made or read: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def private_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that only this user may open; it goes with the block.

    The caller owns the folder, so a file that is there was left by a killed process.

    Raises:
        StartError: The path is too long, or cannot be bound.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise StartError(
            f"{path} is longer than a Unix socket's path may be ({_SOCKET_PATH_BYTES} bytes): "
            "set REGISTRY_SYNC_NODE_DIR to a shorter one"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen()
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"{path} cannot be listened on: {error}") from error
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)
