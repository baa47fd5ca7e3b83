"""A lease: the right of one request to one replica, which is not evicted meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from gateway.serving.replica import Replica
from gateway.serving.residency.replica_pool import Resident


class Lease:
    """The right to send one request to a replica. While it lasts, nothing evicts the replica."""

    __slots__ = ("_on_release", "_released", "resident")

    def __init__(self, resident: Resident, on_release: Callable[[Resident], None]) -> None:
        """Store; the resident set has counted the lease already."""
        self._on_release = on_release
        self.resident = resident
        self._released = False

    @property
    def replica(self) -> Replica:
        """The leased replica."""
        return self.resident.replica

    def release(self) -> None:
        """End the lease. Idempotent."""
        if not self._released:
            self._released = True
            self._on_release(self.resident)
