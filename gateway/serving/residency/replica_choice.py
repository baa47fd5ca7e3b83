"""Chooses the replica that answers a request."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.serving.residency.replica_pool import Resident


def choose(ready: Sequence[Resident], body_bytes: int, now: float) -> Resident:
    """Return the replica with the least expected wait (*peak EWMA*).

    That is seconds per answer times requests in flight. A replica that is silent with requests
    inside counts as slow as its silence is long, so a stuck one is avoided long before its
    time-out. One without an answer yet counts as fast as the fastest. If the best replica has
    work, an idle one is tried once its measured slowness has decayed enough. A replica that would
    refuse the request is chosen only if all would.
    """
    ready = [one for one in ready if one.replica.has_room(body_bytes)] or ready
    rates = [one.replica.expected_service_s(now) for one in ready]
    fastest = min((rate for rate in rates if rate > 0), default=1.0)
    waits = [(one.leases + 1) * (rate or fastest) for one, rate in zip(ready, rates, strict=True)]
    least = min(waits)
    best = ready[waits.index(least)]
    if best.leases:
        for one in ready:
            if not one.leases and one.replica.decayed_service_s(now) < least:
                return one
    return best
