"""How fast something answers while it has work, measured by itself. Pure; told the time."""

from __future__ import annotations

import math

_KEPT = 0.9
"""How much of what was measured still counts one interval later: the last ten say most of it."""
_KEPT_IDLE = 0.5
"""The same, for every second without work: what was slow a while ago need not be now."""
_LONGEST_RETRY_S = 60.0


class Pace:
    """Seconds per answer while busy: an exponentially weighted mean.

    Answers that come together, as those of a batch do, share the interval before them. Times are
    seconds of one monotonic clock, which may be coarse: what it rounds off one interval it adds to
    the next. A time without work leaves the mean as it is and lets it weigh less beside the next
    interval that is measured.
    """

    __slots__ = ("_answers", "_busy_s", "_kept", "_since")

    def __init__(self) -> None:
        """Start with nothing measured."""
        self._busy_s = 0.0
        self._answers = 0.0
        self._kept = _KEPT
        self._since = 0.0

    def began(self, now: float) -> None:
        """Take note that it has work again, after it had none."""
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

    def rested_s(self, now: float) -> float:
        """Return the mean as far as it still counts, for one that has no work: halved each second.

        What has not been measured for a while is worth trying.
        """
        kept: float = _KEPT_IDLE ** (now - self._since)
        return self.seconds_per_answer * kept

    def retry_after_s(self, in_flight: int) -> float:
        """Return after how many whole seconds what is in flight now will have been answered.

        At least 1, and at most 60: a measurement is no promise.
        """
        expected_s = math.ceil(in_flight * self.seconds_per_answer)
        return float(min(max(1, expected_s), _LONGEST_RETRY_S))
