"""What the workers hold, what the next one will need, and what there is for all of them.

The snapshots from which `gateway.room` decides. Event loop only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from gateway.contract import ReplicaKey
from gateway.serving.residency.eviction import ResidentLimits, ResidentView, before_one_in_use
from gateway.serving.residency.load_history import TrackRecord
from gateway.serving.residency.replica_pool import Workers
from gateway.serving.residency.standbys import Stages

_MIB = 1024 * 1024


class Versions(Protocol):
    """What the resident set asks about a version."""

    def estimate(self, key: ReplicaKey) -> int:
        """Guess the bytes of a version that was never measured."""
        ...

    def replicas(self, key: ReplicaKey) -> int:
        """Return how many workers it ought to have when it has any."""
        ...

    def goes_last(self, key: ReplicaKey) -> bool:
        """Whether it serves an active alias, or is pinned."""
        ...

    def pinned(self, key: ReplicaKey) -> bool:
        """Whether its tag says that its workers are the last to make room."""
        ...


class Occupancy:
    """Who holds how much now, and how much there is."""

    def __init__(
        self,
        workers: Workers,
        stages: Stages,
        versions: Versions,
        track_record: TrackRecord,
        *,
        limits: ResidentLimits,
        clock: Callable[[], float],
    ) -> None:
        """Store.

        Args:
            workers: Who holds something.
            stages: Whom to spare.
            versions: Guesses what was never measured, and knows who goes last.
            track_record: What loads have cost.
            limits: The most workers, and the most bytes, the forkserver's among them.
            clock: Monotonic seconds.
        """
        self._workers = workers
        self._stages = stages
        self._versions = versions
        self._track_record = track_record
        self._clock = clock
        self.limits = limits

    def __str__(self) -> str:
        """Say what there is."""
        return f"{self.limits.count} workers and {self.limits.bytes // _MIB} MiB"

    def room(self) -> ResidentLimits:
        """Return what there is for workers: the forkserver holds the rest."""
        return replace(self.limits, bytes=self.limits.bytes - self._workers.shared)

    def needed(self, key: ReplicaKey) -> int:
        """Return the bytes that the next load takes at most, as far as is known.

        Neither a guess nor a peak, which is over when the worker is ready, is ever so many that the
        load is not even tried.
        """
        known, room = self._track_record.bytes_of(key), self.room()
        if known is None:
            guess = self._track_record.corrected(key, self._versions.estimate(key))
            return min(guess, room.bytes)
        return max(known, min(self._track_record.peak_bytes_of(key), room.bytes))

    def views(self) -> list[ResidentView]:
        """Return what a decision may see of every worker, whatever its state."""
        now = self._clock()
        spared = self._stages.spared()
        return [
            one.view(
                now,
                pinned=self._versions.pinned(one.key),
                goes_last=self._versions.goes_last(one.key),
                spared=one.key in spared and not one.closed_to_new,
            )
            for one in self._workers.all()
        ]

    def views_for(self, key: ReplicaKey) -> list[ResidentView]:
        """Return what the decision about a load of this version may see of every worker."""
        views = self.views()
        return before_one_in_use(views) if self._track_record.was_in_use(key) else views
