"""Tallies of live traffic, one for each version that was called lately. In memory only.

A request adds to a tally. The automatic rollback reads tallies, and subtracts an earlier tally from
a later one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachetools import LRUCache

from gateway.contract import ArtifactRef
from gateway.observability.tally import BUCKETS, Tally, bucket_of

_MOST_VERSIONS = 16_384
"""An entry takes some two kilobytes."""
_NOTHING = Tally()


@dataclass(slots=True)
class _Entry:
    """The requests of one version since its entry was made.

    Attributes:
        period: The period in which the entry was last used.
        marks: The tallies at the beginning of the period before and of this period.
    """

    period: int
    answered: int = 0
    faults: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    marks: tuple[Tally, Tally] = (_NOTHING, _NOTHING)

    def total(self) -> Tally:
        return Tally(self.answered, self.faults, tuple(self.buckets))

    def enter(self, period: int) -> None:
        """Enter a later period. The version had no request since its last one."""
        total = self.total()
        self.marks = (self.marks[1] if period == self.period + 1 else total, total)
        self.period = period


class LiveTallies:
    """Tallies of versions, by their exact bytes. Event loop only.

    The version that was used longest ago is forgotten first. The automatic rollback reads the
    version of an observed promotion every second, and so keeps it.
    """

    def __init__(self) -> None:
        self._entries: LRUCache[ArtifactRef, _Entry] = LRUCache(_MOST_VERSIONS)
        self._period = 0

    def count(self, key: ArtifactRef, seconds: float | None) -> None:
        """Count a request, with the seconds of the model's call, or None if it failed."""
        entry = self._entry(key)
        if seconds is None:
            entry.faults += 1
        else:
            entry.answered += 1
            entry.buckets[bucket_of(seconds)] += 1

    def requests(self, key: ArtifactRef) -> int:
        """Return the number of a version's requests; costs less than its tally."""
        entry = self._entry(key)
        return entry.answered + entry.faults

    def total(self, key: ArtifactRef) -> Tally:
        """Return all requests of a version."""
        return self._entry(key).total()

    def recent(self, key: ArtifactRef) -> Tally:
        """Return the requests of a version in this period and the one before."""
        entry = self._entry(key)
        return entry.total().since(entry.marks[0])

    def begin_period(self) -> None:
        """Begin the next period."""
        self._period += 1

    def _entry(self, key: ArtifactRef) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._period)
        elif entry.period != self._period:
            entry.enter(self._period)
        return entry
