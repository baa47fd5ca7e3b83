"""When to try failed steps again: exponential, jittered, without an end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from registry_sync.planning import Failure, Subject

FIRST_S = 1.0
_LONGEST_S = 120.0
_GROWTH = 2.0
_MOST_DOUBLINGS = 30


def delay_s(
    count: int, *, jitter: float, first_s: float = FIRST_S, longest_s: float = _LONGEST_S
) -> float:
    """Return the delay after ``count`` failures in a row; ``jitter`` is from 0 to 1."""
    grown_s = first_s * _GROWTH ** min(count - 1, _MOST_DOUBLINGS)
    return min(longest_s, grown_s) * (0.5 + jitter / 2)


class Backoff:
    """Remembers failures. Event loop only. Bounded by `keep_only`.

    ``clock`` returns epoch seconds, ``jitter`` another number from 0 to 1 each time.
    """

    def __init__(self, *, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self._clock = clock
        self._jitter = jitter
        self._failures: dict[str | int, dict[Subject, Failure]] = {}  # by model, and subject

    def failed(
        self,
        subject: Subject,
        reason: str,
        *,
        first_s: float = FIRST_S,
        longest_s: float | None = None,
        goal: Hashable = None,
        short_lived: bool = False,
    ) -> Failure:
        """Record and return a failure, with its next try after ``longest_s`` at most.

        The first delay is ``first_s``, less the jitter.
        """
        before = self.get(subject)
        count = before.count + 1 if before and before.goal == goal else 1
        now = self._clock()
        retry_at = now + delay_s(
            count, jitter=self._jitter(), first_s=first_s, longest_s=longest_s or _LONGEST_S
        )
        failure = Failure(count, reason, now, retry_at, goal, short_lived)
        self._failures.setdefault(subject[1], {})[subject] = failure
        return failure

    def succeeded(self, subject: Subject) -> None:
        """Forget the last failure."""
        found = self._failures.get(subject[1], {})
        found.pop(subject, None)
        if not found:
            self._failures.pop(subject[1], None)

    def get(self, subject: Subject) -> Failure | None:
        """Return the last failure, or None."""
        return self._failures.get(subject[1], {}).get(subject)

    def waits(
        self, subject: Subject, *, longest_s: float | None = None, goal: Hashable = None
    ) -> bool:
        """Whether it is too early to try again, ``longest_s`` after the failure at the latest."""
        return self.waits_until(subject, longest_s=longest_s, goal=goal) is not None

    def waits_until(
        self, subject: Subject, *, longest_s: float | None = None, goal: Hashable = None
    ) -> float | None:
        """Return when the next try may begin, or None if it may begin now."""
        failure = self.get(subject)
        if failure is None or failure.goal != goal:
            return None
        retry_at = failure.retry_at
        if longest_s is not None:
            retry_at = min(retry_at, failure.failed_at + longest_s)
        # A failure in the future was recorded before the clock was set back, and does not count.
        return retry_at if failure.failed_at <= self._clock() < retry_at else None

    def keep_only(self, subjects: Iterable[Subject], models: Iterable[str] | None = None) -> None:
        """Forget all other subjects whose wait is long over.

        ``models`` limits this to their subjects, unless it is None.
        """
        kept, long_ago = set(subjects), self._clock() - _LONGEST_S
        for model in tuple(self._failures) if models is None else models:
            for subject, failure in self.failures(model).items():
                if subject not in kept and failure.retry_at <= long_ago:
                    self.succeeded(subject)

    def models(self) -> frozenset[str | int]:
        """Return the models with a failure."""
        return frozenset(self._failures)

    def failures(self, model: str | int | None = None) -> dict[Subject, Failure]:
        """Return the last failures by subject, of one model or of all."""
        if model is not None:
            return dict(self._failures.get(model, {}))
        return {one: f for found in self._failures.values() for one, f in found.items()}
