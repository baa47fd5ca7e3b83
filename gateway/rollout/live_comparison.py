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


def why_worse(old: Tally, new: Tally, min_requests: int) -> str | None:
    """Return why the new version is worse than the old one, or None.

    A new version with fewer than ``min_requests`` is not compared; an old one counts as one without
    faults, and its latency is not compared.
    """
    if new.requests < min_requests:
        return None
    known = old if old.requests >= min_requests else Tally()
    return _more_faults(known, new) or _slower(known, new, min_requests)


def _more_faults(old: Tally, new: Tally) -> str | None:
    # Faults that came now and then before come again by chance: three standard deviations of it.
    chance = _DEVIATIONS * sqrt(old.fault_share * (1 - old.fault_share) / new.requests)
    if new.fault_share <= old.fault_share + ROLLBACK_ERROR_MARGIN + chance:
        return None
    before = f"{old.faults} of {old.requests}" if old.requests else "too few to compare"
    return (
        f"{new.faults} of {new.requests} requests failed ({new.fault_share:.1%}); "
        f"before it: {before}"
    )


def _slower(old: Tally, new: Tally, min_requests: int) -> str | None:
    if min(old.answered, new.answered) < min_requests:
        return None
    at_least_s, at_most_s = new.quantile_s(QUANTILE)[0], old.quantile_s(QUANTILE)[1]
    slower_s = at_least_s - at_most_s
    if slower_s <= ROLLBACK_LATENCY_FLOOR_S or at_least_s <= ROLLBACK_LATENCY_RATIO * at_most_s:
        return None
    return (
        f"{QUANTILE:.0%} of {new.answered} answers took up to {at_least_s:.3g} s or longer; "
        f"before it: {at_most_s:.3g} s"
    )
