"""Damaged SQLite ledgers of a node, which are set aside at the start so that new ones are made.

A new ledger is filled from the node: active, held, pinned and stored versions. History, quarantines
and rejections are lost. Anything but a plain file in place of a journal of SQLite is set aside too:
opening a pipe would block for ever, and a folder or link would refuse every write.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url

from gateway.system.files import set_aside
from registry_sync.system import DamagedFiles

_HEADER = b"SQLite format 3\x00"
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BESIDE = ("-wal", "-shm", "-journal")
_INSTEAD = (
    "another ledger is made, and filled with what is active, held, pinned and stored on this node; "
    "history, quarantines and rejections are lost"
)
_WITHOUT_JOURNAL = (
    "the ledger is used without it: a write that was interrupted may be lost, or there by half"
)


def set_aside_damaged(url: str, node_dir: Path, damaged: DamagedFiles) -> None:
    """Set aside a damaged SQLite ledger, and journals that are not plain files.

    Other databases are ignored. An empty ledger of a used node counts as damaged.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return
    path = Path(str(parsed.database))
    for journal in _journals(Path(os.path.realpath(path))):  # the path that SQLite goes by
        if _is_in_the_way(journal):
            damaged.found(journal, "is not a plain file", instead=_WITHOUT_JOURNAL)
    reason = _damage(path, is_used=_is_used(node_dir))
    if reason is None:
        return
    damaged.found(path, reason, instead=_INSTEAD)
    for journal in _journals(path):
        set_aside(journal)


def _journals(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{end}") for end in _BESIDE]


def _is_in_the_way(journal: Path) -> bool:
    try:
        return not stat.S_ISREG(journal.lstat().st_mode)
    except OSError:
        return False


def _is_used(node_dir: Path) -> bool:
    """Whether a node has served or stored a version, and so has had a ledger."""
    known = (node_dir / name for name in ("holds.json", "table.json", "table.previous.json"))
    return any(map(os.path.lexists, known)) or any((node_dir / "artifacts").glob("*.json"))


def _damage(path: Path, *, is_used: bool) -> str | None:
    """Return what is wrong with a database file, or None if nothing is found."""
    try:
        status = path.stat()  # it may be a link to where there is room
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "is not a plain file"
    if not status.st_size:
        return "is empty" if is_used else None  # SQLite makes a new database of an empty file
    try:
        with path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                return "is not a SQLite database"
        return _check(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _check(path: Path) -> str | None:
    """Return the damage that SQLite finds, or None if the check passes or cannot run now."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)
        ) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return f"is damaged: {error}" if code in _DAMAGE else None
    return None if found == "ok" else f"is damaged: {found}"
