"""Ends a process session: the leader's group, and members in groups of their own.

A signal reaches a process group, not a session, and a shell gives each job a group. The leader's
group is ended first, which needs no descriptor; finding the other members needs one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial

_ROUNDS = 5
"""A process may fork between two rounds; each round finds fewer that can."""


def end(leader: int, pidfd: int) -> None:
    """Kill every process of a session, without waiting for their ends.

    The kernel does not reuse a process id while it names a session. So if the leader is gone and
    its id names a process again, the session had no members left. ``pidfd``: the leader's.

    Raises:
        OSError: No descriptor is free, so processes in other groups than the leader's live on.
    """
    is_reaped = _is_gone(partial(signal.pidfd_send_signal, pidfd))
    if is_reaped and not _is_gone(partial(os.kill, leader)):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    # Before the worker leads its group, only the pidfd reaches it.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    end_all(lambda pid: _is_member(pid, leader))


def end_all(is_meant: Callable[[int], bool]) -> int:
    """Kill every process that ``is_meant`` selects; return their number.

    Raises:
        OSError: No descriptor is free.
    """
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        # One system call per process of the machine.
        pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208  # a path for each is most of the cost
        found = [pid for pid in pids if pid not in killed and is_meant(pid)]
        if not found:
            break
        killed.update(pid for pid in found if _kill(pid, is_meant))
    return len(killed)


def _is_member(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader
    except OSError:
        return False


def _kill(pid: int, is_meant: Callable[[int], bool]) -> bool:
    """Kill a process if it is still meant: its id may have been reused."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_meant(pid):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(process)
    return True


def _is_gone(send: Callable[[int], None]) -> bool:
    """Whether a process has ended and was reaped. ``send``: sends it a signal."""
    try:
        send(0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
