"""What live traffic has shown of versions: how many requests, how many failed, how long they took.

Kept in memory only, of versions that were called lately. The hot path adds; whoever judges takes
tallies, and subtracts an earlier one from a later one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from gateway.contract import ReplicaKey
from gateway.observability.tally import BUCKETS, Tally, bucket_of
from gateway.system import in_slices

_MOST_VERSIONS = 16_384
"""Beside those on trial; an entry takes some three kilobytes."""
_NOTHING = Tally()


@dataclass(slots=True)
class _Entry:
    """One version, since it was called first.

    Attributes:
        marks: What it came to when the last two periods began.
        forgiven: The process whose death is not held against the version.
    """

    answered: int = 0
    faults: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    marks: tuple[Tally, Tally] = (_NOTHING, _NOTHING)
    forgiven: int | None = None

    @property
    def requests(self) -> int:
        return self.answered + self.faults

    def total(self) -> Tally:
        return Tally(self.answered, self.faults, tuple(self.buckets))


class LiveRecord:
    """Tallies of versions, by exactly which bytes. Event loop only."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._entries: OrderedDict[ReplicaKey, _Entry] = OrderedDict()  # used last comes last
        self._trials: Counter[ReplicaKey] = Counter()

    # --- the hot path -----------------------------------------------------------------------------

    def answered(self, key: ReplicaKey, seconds: float) -> None:
        """Count an answer that came so long after its request was given to the worker."""
        entry = self._entry(key)
        entry.answered += 1
        entry.buckets[bucket_of(seconds)] += 1

    def failed(self, key: ReplicaKey) -> None:
        """Count a request that failed by the version's doing."""
        self._entry(key).faults += 1

    def died(self, key: ReplicaKey, pid: int) -> None:
        """Count a request that was inside the worker ``pid`` when that died.

        Those inside the first worker to die are forgiven: somebody may have killed it, and a busy
        one takes many requests with it.
        """
        entry = self._entry(key)
        if entry.forgiven is None:
            entry.forgiven = pid
        if entry.forgiven != pid:
            entry.faults += 1

    def late(self, key: ReplicaKey, late: str, seconds: float, pid: int) -> None:
        """Count what became of a request whose caller had lost patience: `gateway.replica.Late`."""
        match late:
            case "answered":
                self.answered(key, seconds)
            case "died":
                self.died(key, pid)
            case _:
                self.failed(key)

    # --- judging ----------------------------------------------------------------------------------

    def begin(self, key: ReplicaKey) -> Tally:
        """Return what a version has come to, to be subtracted later; its next death is forgiven.

        It is on trial, and so not forgotten, until `end` is called as often.
        """
        self._trials[key] += 1
        entry = self._entry(key)
        entry.forgiven = None
        return entry.total()

    def end(self, key: ReplicaKey) -> None:
        """End a trial that began with `begin`."""
        self._trials[key] -= 1
        if self._trials[key] <= 0:
            del self._trials[key]

    def total(self, key: ReplicaKey) -> Tally:
        """Return what a version has come to."""
        entry = self._entries.get(key)
        return entry.total() if entry else _NOTHING

    def requests(self, key: ReplicaKey) -> int:
        """Return how many requests a version has had: cheaper than a tally."""
        entry = self._entries.get(key)
        return entry.requests if entry else 0

    def lately(self, key: ReplicaKey) -> Tally:
        """Return what a version has come to in this period and the one before."""
        entry = self._entries.get(key)
        return entry.total().since(entry.marks[0]) if entry else _NOTHING

    async def turn(self) -> None:
        """Begin another period; forget what had no request in the last two and is not on trial.

        It goes on in slices: all at once, it held the event loop up for 0.1 s with 16,384 versions.
        """
        async for key in in_slices(list(self._entries)):
            entry = self._entries.get(key)
            if entry is None:  # forgotten meanwhile
                continue
            if key not in self._trials and entry.requests == entry.marks[0].requests:
                del self._entries[key]
            else:
                entry.marks = (entry.marks[1], entry.total())
                entry.forgiven = None

    def _entry(self, key: ReplicaKey) -> _Entry:
        """Return the entry of a version, which is used now."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            while len(self._entries) - len(self._trials) > _MOST_VERSIONS:
                self._forget_one()
        else:
            self._entries.move_to_end(key)
        return entry

    def _forget_one(self) -> None:
        """Forget the version that was used longest ago and is not on trial."""
        while (oldest := next(iter(self._entries))) in self._trials:
            self._entries.move_to_end(oldest)
        del self._entries[oldest]
