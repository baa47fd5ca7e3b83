"""Which standbys are being brought up or wait for their activation, and whom they replace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.contract import ReplicaKey


@dataclass(slots=True, eq=False)
class Stage:
    """A standby, and the version whose place it is to take.

    Attributes:
        swap: ``blue_green``, ``unload_first`` or ``auto``.
        displaces: The old version was told to end before this one is up: who asks for it waits.
    """

    key: ReplicaKey
    replaces: ReplicaKey | None
    swap: str
    displaces: bool = False


class Stages:
    """The stages of a node by their id. Event loop only."""

    def __init__(self) -> None:
        """Begin without one."""
        self._stages: dict[str, Stage] = {}

    def __len__(self) -> int:
        """Count them."""
        return len(self._stages)

    def add(self, stage_id: str, stage: Stage) -> None:
        """Begin a stage."""
        self._stages[stage_id] = stage

    def remove(self, stage_id: str) -> Stage | None:
        """End a stage; None: there is none of that id."""
        return self._stages.pop(stage_id, None)

    def of(self, key: ReplicaKey) -> Iterator[Stage]:
        """Name the stages whose standby this version is."""
        return (stage for stage in self._stages.values() if stage.key == key)

    def spared(self) -> set[ReplicaKey]:
        """Return the versions that are not evicted: standbys, and what they are to replace."""
        stages = self._stages.values()
        old = {one.replaces for one in stages if one.replaces is not None and not one.displaces}
        return {one.key for one in stages} | old

    def displaced(self) -> set[ReplicaKey]:
        """Return the versions that made room for their successors, and wait for what becomes."""
        stages = self._stages.values()
        return {one.replaces for one in stages if one.displaces and one.replaces is not None}
