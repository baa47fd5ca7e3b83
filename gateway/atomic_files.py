"""Changes to the files of a folder that a crash at any moment leaves done, or not begun.

A file is written beside its place, brought to disk, and renamed. What stands in its way, a folder
or a pipe, is set aside under a name that says so; of each name only the newest few are kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

_KEPT_ASIDE = 3
_ASIDE = ".damaged-"
_MODE = 0o644


def replace(path: Path, content: bytes, *, mode: int = _MODE) -> None:
    """Give a file another content; that is on disk when this returns.

    Raises:
        OSError: The disk refused. The file is as it was.
    """
    put_in_place(write_beside(path, content, mode=mode), path)


def write_beside(path: Path, content: bytes, *, mode: int = _MODE) -> Path:
    """Bring a content to disk beside its place; return where.

    Raises:
        OSError: The disk refused. Nothing is left.
    """
    part = path.with_name(f"{path.name}.part")
    _clear(part)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        remove(part)
        raise
    return part


def put_in_place(part: Path, path: Path) -> None:
    """Rename what `write_beside` wrote; the new name is on disk when this returns.

    Raises:
        OSError: The disk refused. What cannot be renamed is removed.
    """
    try:
        try:
            part.replace(path)
        except IsADirectoryError:
            set_aside(path)
            part.replace(path)
    except OSError:
        remove(part)
        raise
    sync_folder(path.parent)


def set_aside(path: Path) -> Path | None:
    """Rename what lies at a path, unread, and keep it; return where, or None if that failed."""
    numbers = _set_aside(path)
    aside = _aside(path, max(numbers, default=0) + 1)
    try:
        path.rename(aside)
    except OSError:
        return None
    for number in sorted(numbers, reverse=True)[_KEPT_ASIDE - 1 :]:
        remove(_aside(path, number))
    return aside


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}{_ASIDE}{number}")


def _set_aside(path: Path) -> list[int]:
    """Return the numbers under which earlier content of a path lies aside."""
    start = f"{path.name}{_ASIDE}"
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(path.parent)  # noqa: PTH208  # names are all that is needed
    ends = [name.removeprefix(start) for name in names if name.startswith(start)]
    return [int(end) for end in ends if end.isascii() and end.isdecimal()]


def sync_folder(folder: Path) -> None:
    """Bring renames and removals in a folder to disk.

    Raises:
        OSError: The disk refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, as far as the disk lets it."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _clear(part: Path) -> None:
    """Remove what a killed process left where a file is to be written; set a folder aside."""
    try:
        part.unlink(missing_ok=True)
    except OSError:
        set_aside(part)
