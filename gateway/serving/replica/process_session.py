"""Ends a process session: the leader's group, and members in groups of their own.

A signal reaches a process group, not a session, and a shell gives each job a group. The leader's
group is ended first, which needs no descriptor; finding the other members needs one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

_ROUNDS = 5
"""A member may fork between two rounds; each round finds fewer that can."""


def end(leader: int, pidfd: int) -> None:
    """Kill every process of a session, without waiting for their ends.

    The kernel does not reuse a process id while it names a session. So if the leader is gone and
    its id names a process again, the session had no members left.

    Args:
        leader: Process id of the session's leader, running or not.
        pidfd: The leader's.

    Raises:
        OSError: No descriptor is free, so processes in other groups than the leader's live on.
    """
    if _is_gone(pidfd) and _exists(leader):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    # Before the worker leads its group, only the pidfd reaches it.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        found = [pid for pid in _members(leader) if pid not in killed]
        if not found:
            return
        for pid in found:
            _kill(pid, leader)
        killed.update(found)


def _members(leader: int) -> Iterator[int]:
    """Yield the processes of a session: one system call per process of the machine."""
    for name in os.listdir("/proc"):  # noqa: PTH208  # a path for each process is most of the cost
        if name.isdecimal() and _is_member(int(name), leader):
            yield int(name)


def _is_member(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader
    except OSError:
        return False


def _kill(pid: int, leader: int) -> None:
    """Kill a process if it is still a member: its id may have been reused."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _is_member(pid, leader):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


def _is_gone(pidfd: int) -> bool:
    """Whether a process has ended and was reaped."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
