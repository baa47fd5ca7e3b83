"""A tally of requests: how many, how many failed, and their seconds in buckets. Pure.

The bounds of the buckets grow by at most a quarter, so a tally has a fixed size whatever the
traffic. Where a bucket leaves a doubt, the newer version has the benefit of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, frexp

_BUCKETS_PER_OCTAVE = 4


_FIRST_EXPONENT = -12


_OCTAVES = 26


BUCKETS = _BUCKETS_PER_OCTAVE * _OCTAVES
"""From 0.12 ms to 4.5 h; what is outside counts in the first or the last."""


def bucket_of(seconds: float) -> int:
    """Return the bucket that seconds are counted in."""
    mantissa, exponent = frexp(seconds)
    index = (exponent - _FIRST_EXPONENT) * _BUCKETS_PER_OCTAVE + int(mantissa * 8) - 4
    return min(max(index, 0), BUCKETS - 1)


def bounds_of(bucket: int) -> tuple[float, float]:
    """Return the seconds between which a bucket lies."""
    octave, part = divmod(bucket, _BUCKETS_PER_OCTAVE)
    unit = 2.0 ** (octave + _FIRST_EXPONENT) / 8
    return (part + 4) * unit, (part + 5) * unit


@dataclass(frozen=True, slots=True)
class Tally:
    """What a version's requests came to.

    Attributes:
        answered: Requests with a prediction.
        faults: Requests that failed by the version's doing.
        buckets: Of the answered ones, how many took how long.
    """

    answered: int = 0
    faults: int = 0
    buckets: tuple[int, ...] = (0,) * BUCKETS

    @property
    def requests(self) -> int:
        """All that say something of the version."""
        return self.answered + self.faults

    @property
    def fault_share(self) -> float:
        """Which part of the requests failed, from 0 to 1; of none, none."""
        return self.faults / self.requests if self.requests else 0.0

    def since(self, before: Tally) -> Tally:
        """Return what came after an earlier tally of the same version."""
        return Tally(
            self.answered - before.answered,
            self.faults - before.faults,
            tuple(now - then for now, then in zip(self.buckets, before.buckets, strict=True)),
        )

    def answered_within(self, share: float) -> tuple[float, float]:
        """Return between which seconds so large a share was answered; there must be an answer."""
        left = ceil(share * self.answered)
        for bucket, count in enumerate(self.buckets):
            left -= count
            if left <= 0:
                return bounds_of(bucket)
        return bounds_of(BUCKETS - 1)
