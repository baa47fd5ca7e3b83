"""The node's folder: who the node is, and that it has one gateway only.

The id is in ``node_id`` and, because the ledger files everything under it, once more in
``node_id.copy``. Both planes read and mend the two files; whichever holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import structlog

from gateway.atomic_files import replace, set_aside
from gateway.damaged_files import DamagedFiles
from gateway.errors import StartError
from gateway.private_folder import make_private
from gateway.worker.guarded_read import DamagedFileError, read

_MOST_ID_BYTES = 1024
_NO_LOCK = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
_LOCK_TRIES = 50
_LOCK_PAUSE_S = 0.1
_NO_WRITING = frozenset({errno.EROFS, errno.EACCES})
_log = structlog.get_logger("gateway.node_dir")


# --- its one gateway ------------------------------------------------------------------------------


@contextlib.contextmanager
def sole_owner(node_dir: Path) -> Iterator[None]:
    """Hold the node's lock for the block. The kernel releases it when the process ends.

    Raises:
        StartError: The folder cannot be used, or another gateway has it.
    """
    try:
        make_private(node_dir)
        lock = _open_lock(node_dir / "gateway.lock")
    except OSError as error:
        raise StartError(f"the node's folder {node_dir} cannot be used: {error}") from error
    try:
        _take(lock, node_dir)
        yield
    finally:
        os.close(lock)


def _take(lock: int, node_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StartError(
            f"another gateway is running on {node_dir}: set GATEWAY_NODE_DIR to another folder"
        ) from error


def _open_lock(path: Path) -> int:
    """Open a lock's file, made if it is not there; one that cannot be written is locked as well."""
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


def read_node_id(node_dir: Path, damaged: DamagedFiles) -> str:
    """Return the node's id; the plane that starts first makes it.

    An id that cannot be kept counts until this gateway ends: nothing that it serves depends on it.
    """
    paths = (node_dir / "node_id", node_dir / "node_id.copy")
    with _alone(node_dir):
        found = [_read_id(path) for path in paths]
        _tell(paths, found, damaged)
        node_id = next((one for one, _ in found if one), None) or str(uuid.uuid4())
        for path, (one, _) in zip(paths, found, strict=True):
            if one != node_id:
                _write_id(path, node_id, damaged)
    return node_id


def _read_id(path: Path) -> tuple[str | None, str | None]:
    """Return the id that a file holds, or why it cannot be used; neither where there is none."""
    try:
        text = read(path, _MOST_ID_BYTES).decode().strip()
        node_id = str(uuid.UUID(text))
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except DamagedFileError as error:
        return None, str(error)
    except ValueError:
        return None, "holds no id of a node"
    return (node_id, None) if node_id == text else (None, "holds no id of a node")


def _tell(
    paths: tuple[Path, Path], found: list[tuple[str | None, str | None]], damaged: DamagedFiles
) -> None:
    """Tell of what is damaged, and of a copy that holds another id: ``node_id`` goes first."""
    (first, _), (second, _) = found
    known = first or second
    for path, (_, why_not) in zip(paths, found, strict=True):
        if why_not is not None:
            damaged.found(path, why_not, instead=_instead(known=known, is_copy=path == paths[1]))
    if first and second and first != second:
        instead = (
            f"the id of {paths[0].name} counts; if that one is not this node's, put the other into "
            "both files and start both planes again"
        )
        damaged.found(paths[1], f"holds another id than {paths[0].name}", instead=instead)


def _instead(*, known: str | None, is_copy: bool) -> str:
    if known:
        where = "node_id, of which this is the copy" if is_copy else "its copy"
        return f"nothing is lost: the id is known from {where}"
    return (
        "the node has a new id: what a ledger knows under the old one, its history and verdicts, "
        "is not found any more"
    )


def _write_id(path: Path, node_id: str, damaged: DamagedFiles) -> None:
    try:
        replace(path, f"{node_id}\n".encode())
    except OSError as error:
        damaged.not_written(path, error, instead="the next start writes it")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep the other plane from mending the same files for the block. Nothing is written for it."""
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # a file system without locks: it would matter rarely
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
    _log.warning("node_dir.not_locked", folder=str(folder))
