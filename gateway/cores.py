"""How many cores this process may use: by affinity, and by the quota of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

from gateway import cgroups


def available(cgroup: Path = cgroups.OURS, root: Path = cgroups.ROOT) -> int:
    """Return the whole cores that there are for this process; at least 1."""
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, math.floor(min(cores, cgroups.smallest("cpu", _quota_of, cgroup, root))))


def share(cores: int, workers: int) -> int:
    """Return how many threads each of ``workers`` may have, if all of them compute at once."""
    return max(1, cores // workers)


def _quota_of(group: Path) -> float:
    """Return the quota of a group in cores."""
    if (limit := group / "cpu.max").exists():
        quota, period = limit.read_text().split()
    else:
        quota = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
    if int(quota) <= 0 or int(period) <= 0:  # -1: none
        return math.inf
    return int(quota) / int(period)
