"""Whether a version does worse on live traffic than the one before: tallies in, a reason out. Pure.

Seconds are counted in buckets whose bounds grow by at most a quarter, so a tally has a fixed size
whatever the traffic. Where a bucket leaves a doubt, the new version has the benefit of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, frexp, sqrt

_BUCKETS_PER_OCTAVE = 4
_FIRST_EXPONENT = -12
_OCTAVES = 26
BUCKETS = _BUCKETS_PER_OCTAVE * _OCTAVES
"""From 0.12 ms to 4.5 h; what is outside counts in the first or the last."""
QUANTILE = 0.95
"""The share of answers whose seconds are compared: the slowest of fifty requests prove nothing."""
_DEVIATIONS = 3.0


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


@dataclass(frozen=True, slots=True)
class Margins:
    """How much worse is too much.

    Attributes:
        min_requests: Of so many requests or more, the new version is judged, and the old one known.
        error_share: By how much the share of failed requests may be larger, from 0 to 1.
        latency_ratio: How many times as long answers may take,
        latency_floor_s: and how many seconds longer: both must be exceeded.
    """

    min_requests: int
    error_share: float
    latency_ratio: float
    latency_floor_s: float


def verdict(old: Tally, new: Tally, margins: Margins) -> str | None:
    """Say why the new version is worse than the old one; None: it is not, as far as is known.

    An old version of which too little is known counts as one without faults, and its latency is
    not compared.
    """
    if new.requests < margins.min_requests:
        return None
    known = old if old.requests >= margins.min_requests else Tally()
    return _more_faults(known, new, margins) or _slower(known, new, margins)


def _more_faults(old: Tally, new: Tally, margins: Margins) -> str | None:
    # What failed now and then before does so again by chance: three standard deviations of it.
    chance = _DEVIATIONS * sqrt(old.fault_share * (1 - old.fault_share) / new.requests)
    if new.fault_share <= old.fault_share + margins.error_share + chance:
        return None
    before = f"{old.faults} of {old.requests}" if old.requests else "too few to compare"
    return (
        f"{new.faults} of {new.requests} requests failed ({new.fault_share:.1%}); "
        f"before it: {before}"
    )


def _slower(old: Tally, new: Tally, margins: Margins) -> str | None:
    if min(old.answered, new.answered) < margins.min_requests:
        return None
    at_least_s, at_most_s = new.answered_within(QUANTILE)[0], old.answered_within(QUANTILE)[1]
    slower_s = at_least_s - at_most_s
    if slower_s <= margins.latency_floor_s or at_least_s <= margins.latency_ratio * at_most_s:
        return None
    return (
        f"{QUANTILE:.0%} of {new.answered} answers took up to {at_least_s:.3g} s or longer; "
        f"before it: {at_most_s:.3g} s"
    )
