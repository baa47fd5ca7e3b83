"""Changes to the files of a folder that a crash at any moment leaves done, or not begun.

A file is written beside its place, brought to disk, and renamed; if the new name cannot be brought
to disk, the old file is put back. A folder or a pipe in its place is set aside under a
name that says so; of each name only the newest few are kept.
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

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, mode)

    try:
        # The file owns its descriptor from the first moment: what fails after that closes it.
        with open(part, "xb", opener=create) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        remove_file(part)
        raise
    return part


def put_in_place(part: Path, path: Path) -> None:
    """Rename what `write_beside` wrote; the new name is on disk when this returns.

    Raises:
        OSError: The disk refused. The file is as it was, and what was to replace it is removed.
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
    """Give a file a second name, by which it can be put back, where the disk lets it have one."""
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
    """Undo a rename that may not come to disk, so that the next start does not find it done."""
    try:
        if before is None:
            path.unlink()
        else:
            before.replace(path)
    except OSError as error:
        _log.error("file.not_put_back", file=str(path), reason=str(error))


def set_aside(path: Path) -> Path | None:
    """Rename what lies at a path, unread, and keep it; return where, or None if that failed."""
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


def remove_file(path: Path) -> None:
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
