"""Cores and memory that this process may use: the machine's, or what its control groups allow."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

OURS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = OURS, root: Path = ROOT) -> int:
    """Return the whole cores of this process; at least 1."""
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, math.floor(min(cores, _smallest("cpu", _quota_of, cgroup, root))))


def available_bytes(cgroup: Path = OURS, root: Path = ROOT) -> int:
    """Return the bytes of memory for this process and its children together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(machine, _smallest("memory", _memory_limit_of, cgroup, root)))


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


def _memory_limit_of(group: Path) -> float:
    """Return the limit of a group in bytes. In version 1, no limit is a huge number."""
    if not (limit := group / "memory.max").exists():
        limit = group / "memory.limit_in_bytes"
    return int(limit.read_text())


def _smallest(
    controller: str, limit_of: Callable[[Path], float], cgroup: Path, root: Path
) -> float:
    """Return the smallest limit from this process's group up to the root, or infinity.

    Args:
        controller: Its name in version 1: ``cpu`` or ``memory``.
        limit_of: Returns the limit of a group's folder, of either version; an OSError or ValueError
            means no limit.
        cgroup: The file that names the groups of this process.
        root: The mount point. In a container, its own group may be the root.
    """
    limit = math.inf
    for controllers, path in _groups(controller, cgroup):
        top = root / controllers if controllers else root
        group = top / path.lstrip("/")
        for one in (group, *group.parents):
            if not one.is_relative_to(top):
                break
            try:
                limit = min(limit, limit_of(one))
            except (OSError, ValueError):  # none: "max"
                continue
    return limit


def _groups(controller: str, cgroup: Path) -> list[tuple[str, str]]:
    """Return the groups that may have the limit: controllers (empty in version 2) and path."""
    try:
        lines = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
    except OSError:
        return []
    return [
        (line[1], line[2])
        for line in lines
        if len(line) == 3 and (not line[1] or controller in line[1].split(","))  # noqa: PLR2004  # number, controllers, path
    ]
