"""Ways in which a file of the node can go wrong, for everybody who reads one at its start."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Damage:
    """Something that happens to a file, or to what lies in its place."""

    name: str
    apply: Callable[[Path], object]

    def __str__(self) -> str:
        return self.name


def _clear(path: Path) -> Path:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: _clear(path).write_bytes(content)


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    _clear(path).write_bytes(content[: len(content) // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    _clear(path).write_bytes(content)


def _link_to_a_copy(path: Path) -> None:
    copy = path.with_name(f"{path.name}.elsewhere")
    copy.write_bytes(path.read_bytes())
    _clear(path).symlink_to(copy)


def _folder(path: Path) -> None:
    _clear(path).mkdir()
    (path / "file").write_text("in it")


def _socket(path: Path) -> None:
    _clear(path)
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # a short path to it
        finally:
            os.close(folder)


NESTED = b"[" * 100_000
ALTERED = Damage("altered", _flip)
DAMAGES = [
    Damage("empty", _write(b"")),
    Damage("truncated", _truncate),
    Damage("nested", _write(NESTED)),
    Damage("nested in a member", _write(b'{"format_version": 1, "x": %b' % NESTED)),
    Damage("whole but nested", _write(b"[" * 50_000 + b"]" * 50_000)),
    Damage("foreign JSON", _write(b'{"hello": ["world"]}')),
    Damage("a list", _write(b"[]")),
    Damage("a number of many digits", _write(b"9" * 10_000)),
    Damage("no JSON", _write(b"\x00\xff\xfe binary")),
    ALTERED,
    Damage("linked to a copy", _link_to_a_copy),
    Damage("linked to nowhere", lambda path: _clear(path).symlink_to("/nowhere/at/all")),
    Damage("linked to itself", lambda path: _clear(path).symlink_to(path)),
    Damage("endless", lambda path: _clear(path).symlink_to("/dev/zero")),
    Damage("a pipe", lambda path: os.mkfifo(_clear(path))),
    Damage("a socket", _socket),
    Damage("a folder", _folder),
]
"""Each leaves something that is not the file that was written."""
