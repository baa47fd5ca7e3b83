"""Verification of a stored artifact's folder against its manifest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_READ_BYTES = 1024 * 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def what_differs(
    folder: Path, promised: Mapping[str, str], check: Callable[[], object]
) -> str | None:
    """Return the first difference of a folder from its manifest's files, as a clause, or None.

    ``check`` is called between blocks; an error from it ends the verification.

    Raises:
        OSError: The system refused to read something.
    """
    found = dict(_files(folder))
    if missing := sorted(promised.keys() - found.keys()):
        return f"its file {missing[0]!r} is gone"
    if others := sorted(found.keys() - promised.keys()):
        return f"its file {others[0]!r} is not in its manifest"
    for path, sha256 in promised.items():
        if not found[path] or _sha256(folder / path, check) != sha256:
            return f"its file {path!r} was altered"
    return None


def _files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each relative path except folders, and whether it is a plain file."""
    for root, folders, names in os.walk(folder, onerror=_raise):
        for name in (*names, *(one for one in folders if Path(root, one).is_symlink())):
            path = Path(root, name)
            yield str(path.relative_to(folder)), stat.S_ISREG(path.lstat().st_mode)


def _raise(error: OSError) -> None:
    raise error


def _open(name: str, flags: int) -> int:
    return os.open(name, flags | _FLAGS)


def _sha256(path: Path, check: Callable[[], object]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0, opener=_open) as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            check()
    return digest.hexdigest()
