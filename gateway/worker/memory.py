"""What a worker holds, measured by itself through ``/proc``. Bytes."""

from __future__ import annotations

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
