"""Compares the tallies of two versions, and explains why the newer one is worse. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from gateway.observability import Tally

QUANTILE = 0.95
"""The share of answers whose seconds are compared: the slowest of fifty requests prove nothing."""
_DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Margins:
    """How much worse than the old version the new version may be.

    Attributes:
        min_requests: The fewest requests with which a version is compared.
        error_share: By how much the share of failed requests may be larger, from 0 to 1.
        latency_ratio: How many times as long answers may take. The new version is too slow if it
            exceeds this and
        latency_floor_s: how many seconds longer answers may take.
    """

    min_requests: int
    error_share: float
    latency_ratio: float
    latency_floor_s: float


def why_worse(old: Tally, new: Tally, margins: Margins) -> str | None:
    """Return why the new version is worse than the old one, or None.

    An old version with too few requests counts as one without faults, and its latency is not
    compared.
    """
    if new.requests < margins.min_requests:
        return None
    known = old if old.requests >= margins.min_requests else Tally()
    return _more_faults(known, new, margins) or _slower(known, new, margins)


def _more_faults(old: Tally, new: Tally, margins: Margins) -> str | None:
    # Faults that came now and then before come again by chance: three standard deviations of it.
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
    at_least_s, at_most_s = new.quantile_s(QUANTILE)[0], old.quantile_s(QUANTILE)[1]
    slower_s = at_least_s - at_most_s
    if slower_s <= margins.latency_floor_s or at_least_s <= margins.latency_ratio * at_most_s:
        return None
    return (
        f"{QUANTILE:.0%} of {new.answered} answers took up to {at_least_s:.3g} s or longer; "
        f"before it: {at_most_s:.3g} s"
    )
