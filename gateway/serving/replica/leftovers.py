"""Ends processes that earlier runs of this node left behind.

The workers of a killed gateway end by their lifelines, but a process that a model started in a
group of its own may stay. Each process inherits a mark in its environment: the node, the boot, and
the gateway's process. So processes of a gateway that runs, perhaps on a copy of this node's folder,
are left alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.serving.replica import process_session

MARK = "REGISTRY_GATEWAY_LIFE"
_PARTS = 4
_MOST_BYTES = 1024 * 1024
_PROC = Path("/proc")


@dataclass(frozen=True)
class Life:
    """One run of a gateway.

    Attributes:
        pid: The gateway's process id.
        started: The start time of that process, in the kernel's count. Together with the pid it
            identifies the process.
    """

    node_id: str
    boot_id: str
    pid: int
    started: int

    @classmethod
    def own(cls, node_id: str, boot_id: str) -> Life:
        """Return the life of this process."""
        return cls(node_id, boot_id, os.getpid(), _started(os.getpid()) or 0)

    def as_mark(self) -> str:
        """Return the mark that `read` reads."""
        return f"{self.node_id} {self.boot_id} {self.pid} {self.started}"

    @classmethod
    def read(cls, mark: str) -> Life | None:
        """Return the life of a mark, or None if the mark is malformed."""
        parts = mark.split(" ")
        if len(parts) != _PARTS or not (parts[2].isdecimal() and parts[3].isdecimal()):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    @property
    def is_over(self) -> bool:
        """Whether the gateway of this life has ended."""
        return _started(self.pid) != self.started


def end_leftovers(own: Life) -> int:
    """Kill this user's processes of earlier lives of a node; return their number.

    Blocking. Does not wait for their ends.
    """
    return process_session.end_all(partial(_is_left, own))


def _is_left(own: Life, pid: int) -> bool:
    life = None if pid == own.pid else _life_of(pid)
    return (
        life is not None
        and life.node_id == own.node_id
        and life.boot_id != own.boot_id
        and life.is_over
    )


def _life_of(pid: int) -> Life | None:
    folder = _PROC / str(pid)
    try:
        if folder.stat().st_uid != os.geteuid():
            return None
        with (folder / "environ").open("rb") as file:
            environ = file.read(_MOST_BYTES)
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    marks = (part[len(prefix) :] for part in environ.split(b"\0") if part.startswith(prefix))
    return Life.read(next(marks, b"").decode("ascii", "replace"))


def _started(pid: int) -> int | None:
    """Return the start time of a process, or None if it has ended, reaped or not."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
