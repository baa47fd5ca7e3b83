"""The standbys of a node: staged versions, and the versions that they replace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.contract import ArtifactRef


@dataclass(frozen=True, slots=True)
class Standby:
    """A staged version, and the version that it will replace.

    Attributes:
        swap: ``blue_green``, ``unload_first`` or ``auto``.
        displaces: The old version ends before the standby is ready; its callers wait.
    """

    stage_id: str
    key: ArtifactRef
    replaces: ArtifactRef | None
    swap: str
    displaces: bool = False


def spared(standbys: Iterable[Standby]) -> set[ArtifactRef]:
    """Return the versions that eviction spares: standbys, and what they will replace."""
    keys = set()
    for standby in standbys:
        keys.add(standby.key)
        if standby.replaces is not None and not standby.displaces:
            keys.add(standby.replaces)
    return keys


def displaced(standbys: Iterable[Standby]) -> set[ArtifactRef]:
    """Return the versions that ended, or are ending, before their successors are ready."""
    return {one.replaces for one in standbys if one.displaces and one.replaces is not None}
