"""Load in the background: lower CPU priority until the worker is ready.

Two settings of Linux, each used only if the worker can take it back:

* Niceness, which belongs to a thread. It counts among the workers of one control group, and of one
  session. Raising it again needs a privilege, so a thread that ends tries that first.
* The niceness of the session's group, if the kernel groups sessions (``sched_autogroup``). Each
  worker leads a session, so there it is the only niceness that its neighbours feel.

SCHED_BATCH and the I/O priority are not used: measurements showed no effect on neighbours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NICER_BY = 10
"""The worker gets about a tenth of the share of a neighbour that wants the same core."""
_NICEST = 19
_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_TRIES = 50
_AUTOGROUP_PAUSE_S = 0.02
"""Without a privilege, the kernel accepts one change in a tenth of a second on the machine."""
_PASSES = 10


@dataclass(frozen=True)
class LoweredPriority:
    """The niceness before `lower`, of the thread and of the session's group; None if unchanged."""

    nice: int | None
    autogroup: int | None


def lower() -> LoweredPriority:
    """Lower this thread, the threads and children that it starts later, and the session."""
    nice = None
    if may_return():
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, _nicer(nice))
    return LoweredPriority(nice, _lower_autogroup())


def restore(lowered: LoweredPriority) -> None:
    """Raise every thread of this process and of its children again.

    It repeats the search to find threads that start meanwhile. A thread that has set a priority of
    its own keeps it.
    """
    if lowered.nice is not None and lowered.nice < _NICEST:
        for _ in range(_PASSES):
            raised = [_restore_thread(one, lowered.nice) for one in _threads(os.getpid())]
            if not any(raised):
                break
    if lowered.autogroup is not None:
        _restore_autogroup(lowered.autogroup)


def _restore_thread(thread: int, nice: int) -> bool:
    """Raise one thread; return True if it was lower."""
    with contextlib.suppress(OSError):  # it has ended
        if os.getpriority(os.PRIO_PROCESS, thread) == _nicer(nice):
            os.setpriority(os.PRIO_PROCESS, thread, nice)
            return True
    return False


def _nicer(nice: int) -> int:
    return min(_NICEST, nice + NICER_BY)


@cache
def may_return() -> bool:
    """Return True if niceness can be raised again, by trying it.

    The capabilities in ``/proc`` do not answer this: within a user namespace they do not count.
    The forkserver tries it once for all its workers: a thread costs each of them a millisecond.
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


def _lower_autogroup() -> int | None:
    """Lower the group of a session that this process leads; return its niceness before."""
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


def _threads(process: int) -> Iterator[int]:
    """Yield the threads of a process and of its descendants."""
    tasks = Path(f"/proc/{process}/task")
    with contextlib.suppress(OSError):  # it has ended
        for thread in tasks.iterdir():
            yield int(thread.name)
            for child in _children(thread):
                yield from _threads(child)


def _children(thread: Path) -> list[int]:
    try:
        return [int(child) for child in (thread / "children").read_text().split()]
    except OSError:  # the thread has ended, or the kernel has no such file
        return []
