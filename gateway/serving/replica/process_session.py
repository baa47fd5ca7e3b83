"""Ending a session whose leader was ours: its group, and children in process groups of their own.

A signal reaches a process group, not a session, and a shell gives each of its jobs a group. The
group is ended first, for which nothing is needed; to find the others takes a descriptor.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

_ROUNDS = 5
"""A member may fork between two looks; each look finds fewer who can."""


def end(leader: int, pidfd: int) -> None:
    """Kill every process of the session that ``leader`` leads, or has led. Does not wait.

    Without a free descriptor what is in other groups than the leader's lives on.

    The kernel gives a process id to nobody else as long as a session has it for a name. So if the
    leader is gone and its id is a process again, the session had no member left, and that process
    is somebody else's.

    Args:
        leader: Process id of the leader.
        pidfd: The leader's.

    Raises:
        OSError: No descriptor is free for a look at the other groups.
    """
    if _is_gone(pidfd) and _exists(leader):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    # The group exists only once the worker leads it; before that, the pidfd names the child.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    told: set[int] = set()
    for _ in range(_ROUNDS):
        found = [pid for pid in _members(leader) if pid not in told]
        if not found:
            return
        for pid in found:
            _kill(pid, leader)
        told.update(found)


def _members(leader: int) -> Iterator[int]:
    """Yield who is in the session: a system call for each process of the machine, no file."""
    for name in os.listdir("/proc"):  # noqa: PTH208  # a path for each process is most of the cost
        if name.isdecimal() and _is_member(int(name), leader):
            yield int(name)


def _is_member(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader
    except OSError:
        return False


def _kill(pid: int, leader: int) -> None:
    """Kill a process if it is still a member: its id may have gone to another one meanwhile."""
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
    """Whether nothing is left of a process, not even an exit status that somebody may fetch."""
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
