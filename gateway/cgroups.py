"""What the control groups allow that this process is in, as their files say it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

OURS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def smallest(controller: str, limit_of: Callable[[Path], float], cgroup: Path, root: Path) -> float:
    """Return the smallest limit on the way from our group to the root; infinity: there is none.

    Args:
        controller: The name, in version 1, of what is limited: ``cpu``, ``memory``.
        limit_of: Reads the limit of one group's folder, of either version. What it raises, as an
            OSError or a ValueError, is no limit.
        cgroup: Says which groups we are in.
        root: Where they are mounted. In a container its own group may be the root, whatever
            ``cgroup`` says.
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
    """Return the groups that may have the limit: controllers (version 2: empty) and path."""
    try:
        lines = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
    except OSError:
        return []
    return [
        (line[1], line[2])
        for line in lines
        if len(line) == 3 and (not line[1] or controller in line[1].split(","))  # noqa: PLR2004  # number, controllers, path
    ]
