"""What a worker holds, measured by itself through ``/proc``, and may hold at most. Bytes."""

from __future__ import annotations

import resource
from pathlib import Path

_PRIVATE = ("Private_Clean", "Private_Dirty")
_KIB = 1024


def private_bytes() -> int:
    """Return the memory that ending this process frees; 0 if the kernel does not say."""
    sizes = _sizes("/proc/self/smaps_rollup")
    return sum(sizes.get(name, 0) for name in _PRIVATE)


def peak_bytes() -> int:
    """Return the most private memory that this process has held since it was started.

    The kernel remembers the peak of all resident pages (``VmHWM``), shared ones among them, and
    begins anew with every fork. What was resident at the peak beyond what is resident now
    (``VmRSS``) was private, since what is shared with the forkserver only becomes less; so the
    peak was at most that much above the private pages of now. What a child held is not counted.
    """
    now = private_bytes()
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
