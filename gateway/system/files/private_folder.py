"""Makes the node's folder private to its owner, whatever the umask.

It has the ledger, the operators' decisions, and locks that prevent a second start.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import structlog

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FOLDER = 0o700
_PARENT = 0o755
_log = structlog.get_logger("gateway.system.files.private_folder")


def make_private(folder: Path) -> None:
    """Create a private folder, or remove others' rights to an existing one and its entries.

    A folder of another user, or one that is shared on purpose (sticky, such as ``/tmp``), is used
    unchanged, with a warning.

    Raises:
        OSError: The folder cannot be created; new parents are removed again.
    """
    with contextlib.ExitStack() as made:
        _make_parents(folder, made)
        folder.mkdir(mode=_FOLDER, exist_ok=True)
        made.pop_all()
    is_open = _mode(folder) & _OF_OTHERS != 0
    if is_open and not _tighten(folder):
        _log.warning(
            "node_dir.open_to_others",
            folder=str(folder),
            mode=f"{_mode(folder):04o}",
            remedy="make this process's user its owner, or give the node a folder of its own",
        )
        return
    wider = [path for path in _entries(folder) if _mode(path) & _OF_OTHERS]
    tightened = sum(map(_tighten, wider)) + is_open
    if tightened:
        _log.warning("node_dir.tightened", folder=str(folder), paths=tightened)


def _make_parents(folder: Path, made: contextlib.ExitStack) -> None:
    """Create the parents of a folder, writable by this user only; ``made`` removes empty ones."""
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir(mode=_PARENT, exist_ok=True)
            made.callback(_remove_if_empty, parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _entries(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, without links."""
    with os.scandir(folder) as entries:
        return [Path(one.path) for one in entries if not one.is_symlink()]


def _mode(path: Path) -> int:
    """Return the rights to a path, or 0 if it is missing."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _tighten(path: Path) -> bool:
    """Remove others' rights; return whether that succeeded."""
    mode = _mode(path)
    if mode & stat.S_ISVTX:
        return False
    try:
        path.chmod(mode & ~_OF_OTHERS)
    except OSError:  # another user's, or the disk refuses
        return False
    return True
