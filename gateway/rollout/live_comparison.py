"""Compares the tallies of two versions, and explains why the newer one is worse. Pure."""

from __future__ import annotations

from math import sqrt

from gateway.observability import Tally
from gateway.settings import (
    ROLLBACK_ERROR_MARGIN,
    ROLLBACK_LATENCY_FLOOR_S,
    ROLLBACK_LATENCY_RATIO,
)

QUANTILE = 0.95
"""The share of answers whose seconds are compared: the slowest of fifty requests prove nothing."""
_DEVIATIONS = 3.0


def more_faults(old: Tally, new: Tally, min_requests: int) -> str | None:
    """Return why the new version fails more requests than the old one, or None.

    A new version with fewer than ``min_requests`` is not compared; an old one counts as one without
    faults.
    """
    if new.requests < min_requests:
        return None
    known = old if old.requests >= min_requests else Tally()
    # Faults that came now and then before come again by chance: three standard deviations of it.
    chance = _DEVIATIONS * sqrt(known.fault_share * (1 - known.fault_share) / new.requests)
    if new.fault_share <= known.fault_share + ROLLBACK_ERROR_MARGIN + chance:
        return None
    before = f"{known.faults} of {known.requests}" if known.requests else "too few to compare"
    return (
        f"{new.faults} of {new.requests} requests failed ({new.fault_share:.1%}); "
        f"before it: {before}"
    )


def slower(old: Tally, new: Tally, min_requests: int) -> str | None:
    """Return why the new version answers slower than the old one, or None.

    A version with fewer than ``min_requests`` answers is not compared.
    """
    if min(old.answered, new.answered) < min_requests:
        return None
    at_least_s, at_most_s = new.quantile_s(QUANTILE)[0], old.quantile_s(QUANTILE)[1]
    slower_s = at_least_s - at_most_s
    if slower_s <= ROLLBACK_LATENCY_FLOOR_S or at_least_s <= ROLLBACK_LATENCY_RATIO * at_most_s:
        return None
    return (
        f"the slowest {1 - QUANTILE:.0%} of {new.answered} answers took {at_least_s:.3g} s or "
        f"longer; before it: {at_most_s:.3g} s"
    )
