"""How many cores this process may use: by affinity, and by the quota of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def available(cgroup: Path = Path("/proc/self/cgroup"), root: Path = _ROOT) -> int:
    """Return the whole cores that there are for this process; at least 1."""
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, math.floor(min(cores, _quota(cgroup, root))))


def share(cores: int, workers: int) -> int:
    """Return how many threads each of ``workers`` may have, if all of them compute at once."""
    return max(1, cores // workers)


def _quota(cgroup: Path, root: Path) -> float:
    """Return the smallest quota on the way from our group to the root, in cores."""
    smallest = math.inf
    for controllers, path in _groups(cgroup):
        top = root / controllers if controllers else root
        group = top / path.lstrip("/")
        for one in (group, *group.parents):
            if not one.is_relative_to(top):
                break
            smallest = min(smallest, _quota_of(one))
    return smallest


def _groups(cgroup: Path) -> list[tuple[str, str]]:
    """Return the groups that may limit the processor: controllers (version 2: empty) and path."""
    try:
        lines = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
    except OSError:
        return []
    return [
        (line[1], line[2])
        for line in lines
        if len(line) == 3 and (not line[1] or "cpu" in line[1].split(","))  # noqa: PLR2004  # number, controllers, path
    ]


def _quota_of(group: Path) -> float:
    try:
        if (limit := group / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # none: "max"
        return math.inf
    return cores if cores > 0 else math.inf
