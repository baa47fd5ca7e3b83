"""Compares the live tallies of two versions, and says why the newer one is worse. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from gateway.observability import Tally

QUANTILE = 0.95
"""The share of answers whose seconds are compared: the slowest of fifty requests prove nothing."""
_DEVIATIONS = 3.0


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
