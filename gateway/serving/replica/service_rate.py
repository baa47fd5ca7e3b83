"""Measures how fast something answers while it has work. Pure: callers pass the time."""

from __future__ import annotations

import math

_KEPT = 0.9
"""Weight of earlier intervals after each new one: the last ten decide."""
_KEPT_IDLE = 0.5
"""Weight of earlier intervals after each second without work."""
_LONGEST_RETRY_S = 60.0


class ServiceRate:
    """Seconds per answer while busy: an exponentially weighted mean.

    Answers that arrive together, such as those of a batch, share the interval before them. All
    times are seconds of one monotonic clock. The clock may be coarse: what it rounds off one
    interval, it adds to the next. Idle time leaves the mean as it is and lets it weigh less beside
    the next interval.
    """

    __slots__ = ("_answers", "_busy_s", "_kept", "_since")

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._answers = 0.0
        self._kept = _KEPT
        self._since = 0.0

    def began(self, now: float) -> None:
        """Begin an interval after an idle time."""
        self._kept *= _KEPT_IDLE ** (now - self._since)
        self._since = now

    def answered(self, now: float) -> None:
        """Count one answer."""
        if now > self._since:
            self._busy_s = self._busy_s * self._kept + now - self._since
            self._answers *= self._kept
            self._kept = _KEPT
            self._since = now
        self._answers += 1

    @property
    def seconds_per_answer(self) -> float:
        """The mean; 0 before the first answer."""
        return self._busy_s / self._answers if self._answers else 0.0

    def decayed_s(self, now: float) -> float:
        """Return the mean of an idle owner, halved each second: old slowness is worth a retry."""
        kept: float = _KEPT_IDLE ** (now - self._since)
        return self.seconds_per_answer * kept

    def retry_after_s(self, in_flight: int) -> float:
        """Return in how many whole seconds the requests in flight will be answered: 1 to 60."""
        expected_s = math.ceil(in_flight * self.seconds_per_answer)
        return float(min(max(1, expected_s), _LONGEST_RETRY_S))
