"""The node's folder is its owner's alone, whatever the umask and whoever made it.

In it are the ledger, what operators decided, and locks that keep a process from starting.
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
_log = structlog.get_logger("private_folder")


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter; take others' rights to one that is there.

    Its files and folders lose them too: they may have been opened to others by a name of their own.
    What lies deeper can be reached through them only. A folder of another user's, or one that is
    shared on purpose (sticky, as ``/tmp``), is used as it is, with a warning.

    Raises:
        OSError: It cannot be made, or is none. What was made above it is removed again.
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
    """Make what is above a folder; with a umask of 0 anybody could else move the folder away.

    ``made`` removes it, unless something else is in it by then.
    """
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir(mode=_PARENT, exist_ok=True)
            made.callback(_remove_if_empty, parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _entries(folder: Path) -> list[Path]:
    """Return the files and folders in a folder; a link's target is somewhere else."""
    with os.scandir(folder) as entries:
        return [Path(one.path) for one in entries if not one.is_symlink()]


def _mode(path: Path) -> int:
    """Return the rights to a path; none where it has gone."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _tighten(path: Path) -> bool:
    """Take others' rights; return whether that was done."""
    mode = _mode(path)
    if mode & stat.S_ISVTX:
        return False
    try:
        path.chmod(mode & ~_OF_OTHERS)
    except OSError:  # another user's, or on a disk that takes nothing
        return False
    return True
