"""A lease: the right of one request to one replica, which is not evicted meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from gateway.serving.replica import Replica
from gateway.serving.residency.replica_pool import Resident


class Lease:
    """The right to send one request to a replica: while it lasts, nothing evicts the replica."""

    __slots__ = ("_give_back", "_released", "resident")

    def __init__(self, resident: Resident, give_back: Callable[[Resident], None]) -> None:
        """Store; the set has counted it already."""
        self._give_back = give_back
        self.resident = resident
        self._released = False

    @property
    def replica(self) -> Replica:
        """The leased replica."""
        return self.resident.replica

    def release(self) -> None:
        """Give the right back. Twice is once."""
        if not self._released:
            self._released = True
            self._give_back(self.resident)
