"""What a worker holds, measured by itself through ``/proc``, and may hold at most. Bytes."""

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


class Measuring:
    """What this process holds, measured beside its work, and only where that may have changed.

    The kernel looks at every page for it, those that are shared with the forkserver too: 10 ms and
    more, in which a request would wait.
    """

    def __init__(self, known_bytes: int) -> None:
        self._bytes = known_bytes
        self._trace = _trace()
        self._thread: threading.Thread | None = None

    def latest(self) -> int:
        """Return what was measured last, and begin to measure anew."""
        known, trace = self._bytes, _trace()
        moved = sum(abs(now - then) for now, then in zip(trace, self._trace, strict=True))
        measures = self._thread is not None and self._thread.is_alive()
        if moved > _TOO_LITTLE_BYTES and not measures:
            self._trace = trace
            self._thread = threading.Thread(target=self._measure, name="memory", daemon=True)
            with contextlib.suppress(RuntimeError):  # the model has left no room for a thread
                self._thread.start()
        return known

    def _measure(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICEST)  # of this thread alone
        self._bytes = private_bytes() or self._bytes


def _trace() -> tuple[int, int]:
    """Return what changes with private memory, in bytes, at no cost: resident pages, and faults.

    A page that becomes private, since it is written to, faults and is resident before and after.
    """
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        resident = 0
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resident * resource.getpagesize(), faults * resource.getpagesize()


def private_bytes() -> int:
    """Return the memory that ending this process frees; 0 if the kernel does not say."""
    sizes = _sizes("/proc/self/smaps_rollup")
    return sum(sizes.get(name, 0) for name in _PRIVATE)


def peak_bytes(now: int) -> int:
    """Return the most private memory that this process has held since it was started.

    Args:
        now: What `private_bytes` just said. A second look could say less, since the kernel shares
            pages at any time.

    The kernel remembers the peak of all resident pages (``VmHWM``), shared ones among them, and
    begins anew with every fork. What was resident at the peak beyond what is resident now
    (``VmRSS``) was private, since what is shared with the forkserver only becomes less; so the
    peak was at most that much above the private pages of now. What a child held is not counted.
    """
    status = _sizes("/proc/self/status")
    return now + max(0, status.get("VmHWM", 0) - status.get("VmRSS", 0))


def bound(more: int) -> None:
    """Let this process, and each child that it starts, take ``more`` beyond what it has now.

    Counted is what may be written and is its own (``VmData``), touched or not: an allocation
    beyond it fails in the process that makes it, with MemoryError in Python, before the machine is
    short. What is shared with other processes, and files that are only read, is not counted. Who
    has no CAP_SYS_RESOURCE cannot raise the bound again.
    """
    limit = _sizes("/proc/self/status").get("VmData", 0) + more
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _sizes(path: str) -> dict[str, int]:
    """Return the lines of a file of ``/proc`` that are sizes, by their names."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    return {
        line[0].rstrip(":"): int(line[1]) * _KIB
        for line in lines
        if len(line) == 3 and line[2] == "kB"  # noqa: PLR2004  # name, number, unit
    }
