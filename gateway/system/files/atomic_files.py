"""Replaces files atomically: a crash leaves the old content or the new one.

A file is written under another name, synced and renamed; if the rename cannot be synced, the old
file is restored. A folder or a pipe at its path is set aside; of each path the newest few are kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import structlog

_KEPT_ASIDE = 3
_ASIDE = ".damaged-"
_BEFORE = ".before"
_MODE = 0o600
_log = structlog.get_logger(__name__)


def replace_file(path: Path, content: bytes, *, mode: int = _MODE) -> None:
    """Replace the content of a file; it is on disk when this returns.

    Raises:
        OSError: The disk refused; the file is unchanged.
    """
    put_in_place(write_beside(path, content, mode=mode), path)


def write_beside(path: Path, content: bytes, *, mode: int = _MODE) -> Path:
    """Write and sync a content beside a file; return its path.

    Raises:
        OSError: The disk refused; nothing is left.
    """
    part = path.with_name(f"{path.name}.part")
    _clear(part)

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, mode)

    try:
        # The file owns its descriptor from the start, so any failure closes it.
        with open(part, "xb", opener=create) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        remove_file(part)
        raise
    return part


def put_in_place(part: Path, path: Path) -> None:
    """Rename a file of `write_beside`; the new name is on disk when this returns.

    Raises:
        OSError: The disk refused; the file is unchanged, and ``part`` is removed.
    """
    is_new = not os.path.lexists(path)
    before = path.with_name(f"{path.name}{_BEFORE}")
    if not is_new:
        _link(path, before)
    try:
        _rename(part, path)
        sync_folder(path.parent)
    except OSError:
        if not os.path.lexists(part):
            _put_back(path, None if is_new else before)
        remove_file(part)
        remove_file(before)
        raise
    if not is_new:
        remove_file(before)


def _link(path: Path, before: Path) -> None:
    """Link a file to a second name from which it can be restored, if the disk allows links."""
    remove_file(before)
    with contextlib.suppress(OSError):
        os.link(path, before, follow_symlinks=False)


def _rename(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except IsADirectoryError:
        set_aside(path)
        part.replace(path)


def _put_back(path: Path, before: Path | None) -> None:
    """Undo a rename that could not be synced."""
    try:
        if before is None:
            path.unlink()
        else:
            before.replace(path)
    except OSError as error:
        _log.error("file.restore_failed", file=str(path), reason=str(error))


def set_aside(path: Path) -> Path | None:
    """Rename the file at a path, unread; return its new path, or None if that failed."""
    numbers = _set_aside(path)
    aside = _aside(path, max(numbers, default=0) + 1)
    try:
        path.rename(aside)
    except OSError:
        return None
    for number in sorted(numbers, reverse=True)[_KEPT_ASIDE - 1 :]:
        remove_file(_aside(path, number))
    return aside


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}{_ASIDE}{number}")


def _set_aside(path: Path) -> list[int]:
    """Return the numbers of the files that were set aside for a path."""
    start = f"{path.name}{_ASIDE}"
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(path.parent)  # noqa: PTH208  # only names are needed
    ends = [name.removeprefix(start) for name in names if name.startswith(start)]
    return [int(end) for end in ends if end.isascii() and end.isdecimal()]


def sync_folder(folder: Path) -> None:
    """Sync renames and removals in a folder.

    Raises:
        OSError: The disk refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: Path) -> None:
    """Remove a file, a link or a folder, as far as the disk allows it."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _clear(part: Path) -> None:
    """Remove the part that a killed process left; set a folder aside."""
    try:
        part.unlink(missing_ok=True)
    except OSError:
        set_aside(part)
