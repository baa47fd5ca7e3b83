"""Which standbys are being brought up or wait for their activation, and whom they replace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.contract import ReplicaKey


@dataclass(frozen=True, slots=True)
class Standby:
    """A version that is brought up, and the version whose place it is to take.

    Attributes:
        swap: ``blue_green``, ``unload_first`` or ``auto``.
        displaces: The old version was told to end before this one is up: its callers wait.
    """

    stage_id: str
    key: ReplicaKey
    replaces: ReplicaKey | None
    swap: str
    displaces: bool = False


def spared(standbys: Iterable[Standby]) -> set[ReplicaKey]:
    """Return the versions that are not evicted: standbys, and what they are to replace."""
    kept = set()
    for one in standbys:
        kept.add(one.key)
        if one.replaces is not None and not one.displaces:
            kept.add(one.replaces)
    return kept


def displaced(standbys: Iterable[Standby]) -> set[ReplicaKey]:
    """Return the versions that have made room for their successors."""
    return {one.replaces for one in standbys if one.displaces and one.replaces is not None}


class Standbys:
    """The standbys of a node by the id of their stage. Event loop only."""

    def __init__(self) -> None:
        self._standbys: dict[str, Standby] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._standbys)

    def all(self) -> tuple[Standby, ...]:
        """Return every standby, oldest first."""
        return tuple(self._standbys.values())

    def add(self, standby: Standby) -> None:
        """Begin a stage."""
        self._standbys[standby.stage_id] = standby

    def remove(self, stage_id: str) -> Standby | None:
        """End a stage; None if there is none of that id."""
        return self._standbys.pop(stage_id, None)

    def displace(self, standby: Standby) -> None:
        """Note that the old version ends before this one is up."""
        if standby.stage_id in self._standbys:
            self._standbys[standby.stage_id] = replace(standby, displaces=True)
