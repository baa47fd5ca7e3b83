"""Loading in the background: lower CPU and I/O priority until the worker is ready.

Three settings of Linux, each taken only where it can be taken back:

* Niceness, which belongs to a thread. Without a privilege it cannot be raised again, so that is
  tried first, in a thread that ends. Else the policy SCHED_BATCH, which anybody may enter and leave
  (SCHED_IDLE may not be left): such a thread never preempts another.
* Where the kernel groups sessions (``sched_autogroup``), niceness counts within a session only, and
  a worker leads its own: the group's niceness is what the others feel.
* The I/O priority, by a system call that the standard library lacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NICER_BY = 10
"""About a tenth of the share of a neighbour that wants the same core."""
_NICEST = 19
_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_TRIES = 50
_AUTOGROUP_PAUSE_S = 0.02
"""Without a privilege the kernel changes one group of the machine in a tenth of a second."""
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_ONE_THREAD = 1
_IO_LOWEST, _IO_DEFAULT = (2 << 13) | 7, 0
_PASSES = 10


@dataclass(frozen=True)
class Lowered:
    """What was lowered, and from where.

    Attributes:
        nice: Niceness before; None where it was left alone.
        batch: Whether SCHED_BATCH was entered.
        autogroup: Niceness of the session's group before; None where it was left alone.
    """

    nice: int | None
    batch: bool
    autogroup: int | None


def lower() -> Lowered:
    """Step behind: this thread, those that it starts, and their children. Never fails."""
    nice, batch = None, False
    if _may_return():
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, _nicer(nice))
    else:
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
                batch = True
    _set_io(0, _IO_LOWEST)
    return Lowered(nice, batch, _lower_autogroup())


def restore(lowered: Lowered) -> None:
    """Take every thread of this process, and of the children that it has started, back.

    A thread that was started while this looks is found by looking again; one that has set a
    priority of its own meanwhile keeps it.
    """
    for _ in range(_PASSES):
        changed = [_restore_thread(thread, lowered) for thread in _threads(os.getpid())]
        if not any(changed):
            break
    if lowered.autogroup is not None:
        _restore_autogroup(lowered.autogroup)


def _restore_thread(thread: int, lowered: Lowered) -> bool:
    """Take one thread back; return whether there was anything to do."""
    changed = False
    with contextlib.suppress(OSError):  # it has ended
        _set_io(thread, _IO_DEFAULT)
        if lowered.nice is not None:
            lower_one = os.getpriority(os.PRIO_PROCESS, thread) == _nicer(lowered.nice)
            if lower_one and lowered.nice != _nicer(lowered.nice):
                os.setpriority(os.PRIO_PROCESS, thread, lowered.nice)
                changed = True
        if lowered.batch and os.sched_getscheduler(thread) == os.SCHED_BATCH:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
            changed = True
    return changed


def _nicer(nice: int) -> int:
    return min(_NICEST, nice + NICER_BY)


def _may_return() -> bool:
    """Find out whether niceness can be raised again, by trying.

    What ``/proc`` says of capabilities does not tell: within a user namespace they do not count.
    """
    returned = []

    def go_and_return() -> None:
        with contextlib.suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, _nicer(nice))
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            returned.append(os.getpriority(os.PRIO_PROCESS, 0) == nice)

    with contextlib.suppress(RuntimeError):  # no thread can be started
        thread = threading.Thread(target=go_and_return)
        thread.start()
        thread.join()
    return returned == [True]


# --- sessions -----------------------------------------------------------------------------------


def _lower_autogroup() -> int | None:
    """Lower the session's group, if the session is ours alone; return its niceness before."""
    if os.getsid(0) != os.getpid():
        return None
    try:
        nice = int(_AUTOGROUP.read_text().split()[-1])
        _AUTOGROUP.write_text(str(_nicer(nice)))
    except (OSError, ValueError, IndexError):
        return None
    return nice


def _restore_autogroup(nice: int) -> None:
    for _ in range(_AUTOGROUP_TRIES):
        try:
            _AUTOGROUP.write_text(str(nice))
        except OSError as error:
            if error.errno != errno.EAGAIN:
                return
            time.sleep(_AUTOGROUP_PAUSE_S)
        else:
            return


# --- threads and I/O ----------------------------------------------------------------------------


def _threads(process: int) -> Iterator[int]:
    """Yield the threads of a process and of all that it has started."""
    tasks = Path(f"/proc/{process}/task")
    with contextlib.suppress(OSError):  # it has ended
        for thread in tasks.iterdir():
            yield int(thread.name)
            for child in _children(thread):
                yield from _threads(child)


def _children(thread: Path) -> list[int]:
    try:
        return [int(child) for child in (thread / "children").read_text().split()]
    except OSError:  # the thread has ended, or the kernel does not tell
        return []


def _set_io(thread: int, priority: int) -> None:
    """Set the I/O priority of a thread (0: this one), where the call is known; else do nothing."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(number, _ONE_THREAD, thread, priority)
