"""A worker's own memory in bytes, measured through ``/proc``, and its limit."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from pathlib import Path

_PRIVATE = ("Private_Clean", "Private_Dirty")
_KIB = 1024
_NICEST = 19
_TOO_LITTLE_BYTES = 1024 * 1024


class MemoryWatch:
    """Measures the private memory of this process on a thread, if it may have changed.

    The kernel visits every page, those shared with the forkserver too, which takes 10 ms and more.
    On the serving thread a request would wait for it.
    """

    def __init__(self, known_bytes: int) -> None:
        self._bytes = known_bytes
        self._trace = _trace()
        self._thread: threading.Thread | None = None

    def latest(self) -> int:
        """Return the last measurement, and start the next one."""
        known, trace = self._bytes, _trace()
        moved = sum(abs(now - then) for now, then in zip(trace, self._trace, strict=True))
        measures = self._thread is not None and self._thread.is_alive()
        if moved > _TOO_LITTLE_BYTES and not measures:
            self._trace = trace
            self._thread = threading.Thread(target=self._measure, name="memory", daemon=True)
            with contextlib.suppress(RuntimeError):  # the model left no memory for a thread
                self._thread.start()
        return known

    def _measure(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICEST)  # of this thread alone
        self._bytes = private_bytes() or self._bytes


def _trace() -> tuple[int, int]:
    """Return resident bytes and faulted bytes: cheap figures that change with private memory.

    A shared page that becomes private is resident before and after, but causes a fault.
    """
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        resident = 0
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resident * resource.getpagesize(), faults * resource.getpagesize()


def private_bytes() -> int:
    """Return the memory that ending this process frees, or 0 if it cannot be read."""
    sizes = _sizes("/proc/self/smaps_rollup")
    return sum(sizes.get(name, 0) for name in _PRIVATE)


def peak_bytes(now: int) -> int:
    """Return the most private memory that this process has held since it was started.

    Args:
        now: The present `private_bytes`. A second reading could be lower, since the kernel may
            share pages at any time.

    The kernel records the peak of all resident pages (``VmHWM``), shared ones included, from the
    fork on. Pages shared with the forkserver only become fewer, so the pages that were resident at
    the peak and are not now (``VmRSS``) were private: the peak was at most that much above ``now``.
    Memory of children is not counted.
    """
    status = _sizes("/proc/self/status")
    return now + max(0, status.get("VmHWM", 0) - status.get("VmRSS", 0))


def bound(more: int) -> None:
    """Limit this process, and each of its children, to ``more`` bytes beyond its present size.

    The limit counts private writable memory (``VmData``), touched or not: an allocation beyond it
    fails, in Python with MemoryError, before the machine runs out of memory. Shared memory and
    read-only files are not counted. Without CAP_SYS_RESOURCE the limit cannot be raised again.
    """
    limit = _sizes("/proc/self/status").get("VmData", 0) + more
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _sizes(path: str) -> dict[str, int]:
    """Return the sizes in a file of ``/proc`` by name."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    return {
        line[0].rstrip(":"): int(line[1]) * _KIB
        for line in lines
        if len(line) == 3 and line[2] == "kB"  # noqa: PLR2004  # name, number, unit
    }
