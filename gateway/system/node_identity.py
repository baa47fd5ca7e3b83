"""The node's folder: the id of the node, and the lock of each plane.

The id is in ``node_id`` and, since the ledger's rows are under it, again in ``node_id.copy``.
Either plane repairs the two files while it locks the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.system.files import (
    DamagedFileError,
    DamagedFiles,
    make_private,
    read_file,
    replace_file,
    set_aside,
)

_MOST_ID_BYTES = 1024
_NO_LOCK = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
_LOCK_TRIES = 50
_LOCK_PAUSE_S = 0.1
_NO_WRITING = frozenset({errno.EROFS, errno.EACCES})
_log = structlog.get_logger("gateway.system.node_identity")


class StartError(Exception):
    """A plane cannot start as it is set up. The message says what to do."""


@dataclass(frozen=True)
class Plane:
    """One of the two programs of a node.

    Attributes:
        title: The program in a sentence.
        lock: The name of the file that it locks in the node's folder.
        prefix: The prefix of its settings' names.
    """

    title: str
    lock: str
    prefix: str


DATA_PLANE = Plane("gateway", "gateway.lock", "GATEWAY")
CONTROL_PLANE = Plane("control plane", "registry_sync.lock", "REGISTRY_SYNC")


# --- the one program of a plane -------------------------------------------------------------------


@contextlib.contextmanager
def sole_owner(node_dir: Path, plane: Plane) -> Iterator[None]:
    """Hold the lock of a plane for the block. The kernel releases it when the process ends.

    Raises:
        StartError: The folder cannot be used, or another program of this plane owns it.
    """
    try:
        make_private(node_dir)
        lock = _open_lock(node_dir / plane.lock)
    except OSError as error:
        raise StartError(f"the node's folder {node_dir} cannot be used: {error}") from error
    try:
        _take(lock, node_dir, plane)
        yield
    finally:
        os.close(lock)


def _take(lock: int, node_dir: Path, plane: Plane) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StartError(
            f"another {plane.title} runs on {node_dir.absolute()}: stop that one, or set "
            f"{plane.prefix}_NODE_DIR to another folder"
        ) from error


def _open_lock(path: Path) -> int:
    """Open a lock's file, creating it if need be; one that cannot be written can be locked too."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError as error:
        if error.errno in _NO_WRITING:
            return os.open(path, os.O_RDONLY | flags)
        if error.errno not in _NO_LOCK or set_aside(path) is None:
            raise
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)


# --- its id ---------------------------------------------------------------------------------------


def read_node_id(node_dir: Path, damaged: DamagedFiles, *, must_be_kept: bool) -> str:
    """Return the node's id; the plane that starts first makes it.

    Args:
        node_dir: The node's folder, whose lock is held.
        damaged: Receives the files that cannot be used.
        must_be_kept: Whether a new id counts only once it is on disk: the ledger needs the same id
            again, a gateway does not.

    Raises:
        StartError: A new id is needed and cannot be kept.
    """
    paths = (node_dir / "node_id", node_dir / "node_id.copy")
    with _alone(node_dir):
        found = {path: _read_id(path) for path in paths}
        known = next((one for one in found.values() if isinstance(one, str)), None)
        _report(found, known, damaged)
        node_id = known or str(uuid.uuid4())
        refused = [
            _write_id(path, node_id, damaged) for path, one in found.items() if one != node_id
        ]
    if must_be_kept and known is None and all(refused):
        raise StartError(f"{paths[0]} cannot be made: {refused[0]}")
    return node_id


def _read_id(path: Path) -> str | DamagedFileError | None:
    """Return the id of a file, why it cannot be used, or None if there is no file."""
    try:
        text = read_file(path, _MOST_ID_BYTES).decode().strip()
        if str(uuid.UUID(text)) == text:
            return text
    except FileNotFoundError:
        return None
    except OSError as error:
        return DamagedFileError(f"cannot be read: {error.strerror}")
    except DamagedFileError as error:
        return error
    except ValueError:
        pass
    return DamagedFileError("does not have the id of a node")


def _report(
    found: Mapping[Path, str | DamagedFileError | None], known: str | None, damaged: DamagedFiles
) -> None:
    """Report damaged files, and a copy that holds another id: ``node_id`` goes first."""
    for path, one in found.items():
        if isinstance(one, DamagedFileError):
            damaged.found(path, str(one), instead=_instead(path, known))
        elif one not in (None, known):
            instead = (
                "the id of node_id counts; if that one is not this node's, put the other into both "
                "files and start both planes again"
            )
            damaged.found(path, "holds another id than node_id", instead=instead)


def _instead(path: Path, known: str | None) -> str:
    if known:
        where = "its copy" if path.name == "node_id" else "node_id, of which this is the copy"
        return f"nothing is lost: the id is known from {where}"
    return (
        "the node has a new id: what the ledger has under the old one, history, quarantines and "
        "rejections, is no longer found"
    )


def _write_id(path: Path, node_id: str, damaged: DamagedFiles) -> OSError | None:
    """Write the id; return the error of the disk if it refused."""
    try:
        replace_file(path, f"{node_id}\n".encode())
    except OSError as error:
        damaged.not_written(path, error, instead="the next start writes it")
        return error
    return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Exclude the other plane from repairing the same files for the block. Writes nothing."""
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # a file system without locks
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            _lock(descriptor, folder)
        yield


def _lock(descriptor: int, folder: Path) -> None:
    """Lock a folder, or log that another process keeps it locked for seconds.

    Blocking, at the start only. The system has no lock that waits for a limited time, so this
    function tries again.
    """
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return
    _log.warning("node_dir.lock_failed", folder=str(folder))
