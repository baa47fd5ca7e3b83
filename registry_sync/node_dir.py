"""The node's folder: who the node is, and that it has one control plane only.

The id is in ``node_id`` and, because the ledger files everything under it, once more in
``node_id.copy``. Both planes read and mend the two files; whichever holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import structlog

from gateway.private_folder import make_private
from registry_sync.atomic_files import replace, set_aside
from registry_sync.damaged_files import DamagedFiles
from registry_sync.guarded_read import DamagedFileError, read

_SOCKET_PATH_BYTES = 107
_BACKLOG = 64
_MOST_ID_BYTES = 1024
_NO_LOCK = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
_LOCK_TRIES = 50
_LOCK_PAUSE_S = 0.1
_NO_WRITING = frozenset({errno.EROFS, errno.EACCES})
_DISK_TAKES_NOTHING = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_log = structlog.get_logger("registry_sync.node_dir")


class StartError(Exception):
    """The control plane cannot start as it is set up. The message says what to do."""


@contextlib.contextmanager
def sole_owner(node_dir: Path) -> Iterator[None]:
    """Hold the node's lock for the block. The kernel releases it when the process ends.

    Raises:
        StartError: The folder cannot be used, or another control plane owns it.
    """
    try:
        make_private(node_dir)
        lock = _open_lock(node_dir / "registry_sync.lock")
    except OSError as error:
        raise StartError(f"the node's folder {node_dir} cannot be used: {error}") from error
    try:
        _take(lock, node_dir)
        yield
    finally:
        os.close(lock)


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


def _take(lock: int, node_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StartError(
            f"another control plane runs on {node_dir.absolute()}: stop that one, or set "
            "REGISTRY_SYNC_NODE_DIR to another folder"
        ) from error


# --- its id ---------------------------------------------------------------------------------------


def read_node_id(node_dir: Path, damaged: DamagedFiles) -> str:
    """Return the node's id; the plane that starts first makes it.

    Raises:
        StartError: There is none, and none can be kept: the ledger could not be read again.
    """
    paths = (node_dir / "node_id", node_dir / "node_id.copy")
    with _alone(node_dir):
        found = [_read_id(path) for path in paths]
        _tell(paths, found, damaged)
        known = next((one for one, _ in found if one), None)
        node_id = known or str(uuid.uuid4())
        written = [
            _write_id(path, node_id, damaged)
            for path, (one, _) in zip(paths, found, strict=True)
            if one != node_id
        ]
    if known is None and all(written):
        raise StartError(f"{paths[0]} cannot be made: {written[0]}")
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


def _write_id(path: Path, node_id: str, damaged: DamagedFiles) -> OSError | None:
    """Write the id; return what the disk said if it refused."""
    try:
        replace(path, f"{node_id}\n".encode())
    except OSError as error:
        damaged.not_written(path, error, instead="the next start writes it")
        return error
    return None


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


# --- its socket -----------------------------------------------------------------------------------


@contextlib.contextmanager
def private_socket_or_none(path: Path) -> Iterator[socket.socket | None]:
    """Listen as `private_socket` does; None where the disk takes no socket: what works, goes on.

    Raises:
        StartError: Something else is in the way.
    """
    with contextlib.ExitStack() as opened:
        listener: socket.socket | None = None
        try:
            listener = opened.enter_context(private_socket(path))
        except StartError as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno in _DISK_TAKES_NOTHING):
                raise
            _log.error(
                "operations.unreachable",
                reason=f"no socket can be made at {path} ({cause.strerror}): the control plane "
                "works, and operators of this machine cannot ask it; set GATEWAY_RUNTIME_DIR and "
                "REGISTRY_SYNC_RUNTIME_DIR to a folder in memory",
            )
        yield listener


@contextlib.contextmanager
def private_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that only this user may open; it goes with the block.

    Raises:
        StartError: The path is too long, cannot be bound, or is another control plane's.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise StartError(
            f"{path} is longer than a Unix socket's path may be ({_SOCKET_PATH_BYTES} bytes): "
            "set REGISTRY_SYNC_RUNTIME_DIR or REGISTRY_SYNC_NODE_DIR to a shorter one"
        )
    if _is_listened_on(path):
        raise StartError(
            f"another control plane listens on {path}: set REGISTRY_SYNC_RUNTIME_DIR to another "
            "folder"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            set_aside(path)
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
        with contextlib.suppress(OSError):  # the disk may take nothing by now
            path.unlink()


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
