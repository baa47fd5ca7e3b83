"""How much memory this process may use: the machine's, or what its control groups leave of it."""

from __future__ import annotations

import os
from pathlib import Path

from gateway import cgroups


def available(cgroup: Path = cgroups.OURS, root: Path = cgroups.ROOT) -> int:
    """Return the bytes that there are for this process and those that it starts, all together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(machine, cgroups.smallest("memory", _limit_of, cgroup, root)))


def _limit_of(group: Path) -> float:
    """Return the limit of a group in bytes. Version 1 has a number for none, beyond any machine."""
    if not (limit := group / "memory.max").exists():
        limit = group / "memory.limit_in_bytes"
    return int(limit.read_text())
