"""When to try again what failed: exponential, jittered, for ever. No clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from registry_sync.actions import Subject

FIRST_S = 1.0
_LONGEST_S = 120.0
_GROWTH = 2.0
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a subject.

    Attributes:
        count: Failures in a row.
        reason: The last one, as a sentence.
        failed_at: When, in seconds of the clock that was given.
        retry_at: When to try again, on the same clock.
        goal: What was tried to reach; what fails for one goal says nothing about another.
        settling: Whether time alone mends it, within seconds.
    """

    count: int
    reason: str
    failed_at: float
    retry_at: float
    goal: Hashable = None
    settling: bool = False


class Backoff:
    """Remembers what failed. Event loop only. Bounded by `keep_only`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        longest_s: float = _LONGEST_S,
    ) -> None:
        """Store.

        Args:
            clock: Epoch seconds.
            jitter: A number from 0 to 1, another one each time.
            longest_s: The longest delay.
        """
        self._clock = clock
        self._jitter = jitter
        self._longest_s = longest_s
        self._failures: dict[Subject, Failure] = {}

    def failed(
        self,
        subject: Subject,
        reason: str,
        *,
        first_s: float = FIRST_S,
        longest_s: float | None = None,
        goal: Hashable = None,
        after: Failure | None = None,
        settling: bool = False,
    ) -> Failure:
        """Record a failure and return when to try again, after ``longest_s`` at most.

        The first delay is of ``first_s``, but for the jitter.

        ``after`` is an earlier failure that was forgotten too soon; None: there is none.
        """
        before = self._failures.get(subject) or after
        count = before.count + 1 if before and before.goal == goal else 1
        grown_s = first_s * _GROWTH ** min(count - 1, _MOST_DOUBLINGS)
        limit_s = self._longest_s if longest_s is None else longest_s
        delay_s = min(limit_s, grown_s) * (0.5 + self._jitter() / 2)
        now = self._clock()
        failure = Failure(count, reason, now, now + delay_s, goal, settling)
        self._failures[subject] = failure
        return failure

    def succeeded(self, subject: Subject) -> None:
        """Forget what failed before."""
        self._failures.pop(subject, None)

    def get(self, subject: Subject) -> Failure | None:
        """Return the last failure, or None."""
        return self._failures.get(subject)

    def waits(
        self, subject: Subject, *, longest_s: float | None = None, goal: Hashable = None
    ) -> bool:
        """Whether it is too early to try again, ``longest_s`` after the failure at the latest."""
        failure = self._failures.get(subject)
        if failure is None or failure.goal != goal:
            return False
        retry_at = failure.retry_at
        if longest_s is not None:
            retry_at = min(retry_at, failure.failed_at + longest_s)
        # A failure of the future was recorded before the clock was set back: nobody waits for it.
        return failure.failed_at <= self._clock() < retry_at

    def next_at(self) -> float | None:
        """Return the earliest future time at which something may be tried again."""
        now = self._clock()
        return min((f.retry_at for f in self._failures.values() if f.retry_at > now), default=None)

    def keep_only(self, subjects: Iterable[Subject]) -> None:
        """Forget every subject but these, once its wait is long over: nobody asks any more."""
        kept, long_ago = set(subjects), self._clock() - self._longest_s
        self._failures = {
            one: f for one, f in self._failures.items() if one in kept or f.retry_at > long_ago
        }

    def failures(self) -> dict[Subject, Failure]:
        """Return every last failure by subject."""
        return dict(self._failures)
