"""Tallies of a version's requests: their number, faults and latency. Pure.

The seconds are in a histogram with fixed bounds, so every tally has the same size. Each bound is a
quarter above the one before. Comparisons resolve the inaccuracy in favour of the newer version.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import ceil, inf

BOUNDS_S = tuple(0.0001 * 1.25**step for step in range(80))
"""From 0.1 ms to 4,500 s: no request may take longer than an hour."""
BUCKETS = len(BOUNDS_S) + 1


def bucket_of(seconds: float) -> int:
    """Return the bucket that seconds are counted in."""
    return bisect_right(BOUNDS_S, seconds)


def bounds_of(bucket: int) -> tuple[float, float]:
    """Return the least seconds of a bucket, and the least of the bucket after it."""
    return (0.0, *BOUNDS_S)[bucket], (*BOUNDS_S, inf)[bucket]


@dataclass(frozen=True, slots=True)
class Tally:
    """The requests of a version.

    Attributes:
        answered: Requests with a prediction.
        faults: Requests that the version failed.
        buckets: The number of answered requests by latency.
    """

    answered: int = 0
    faults: int = 0
    buckets: tuple[int, ...] = (0,) * BUCKETS

    @property
    def requests(self) -> int:
        """All requests."""
        return self.answered + self.faults

    @property
    def fault_share(self) -> float:
        """The failed share of the requests, from 0 to 1; 0 without a request."""
        return self.faults / self.requests if self.requests else 0.0

    def since(self, before: Tally) -> Tally:
        """Return the requests that came after an earlier tally of the same version."""
        return Tally(
            self.answered - before.answered,
            self.faults - before.faults,
            tuple(now - then for now, then in zip(self.buckets, before.buckets, strict=True)),
        )

    def quantile_s(self, share: float) -> tuple[float, float]:
        """Return the bounds of a quantile of the seconds. There must be an answer."""
        left = ceil(share * self.answered)
        for bucket, count in enumerate(self.buckets):
            left -= count
            if left <= 0:
                return bounds_of(bucket)
        return bounds_of(BUCKETS - 1)
