"""A breaker per model: where one version after another fails to come, few are tried.

The back-off waits for each version on its own. Of a model with fifty versions that callers wait
for, whose storage is gone, fifty would be tried again and again: once several have failed and none
has come, one is tried at a time, in turn, every few seconds, until one comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_VERSIONS_TO_OPEN = 3
_PAUSE_S = 2.5


@dataclass(frozen=True, slots=True)
class Tripped:
    """What failed of a model since one of its versions came.

    Attributes:
        versions: Which failed; the one that was tried last is last.
        reason: Why that one failed, as a sentence.
        retry_at: When the next is tried at the earliest, if several have failed; epoch seconds.
    """

    versions: tuple[int, ...]
    reason: str
    retry_at: float

    @property
    def is_open(self) -> bool:
        """Whether so many failed that the next are held back. One alone is its own fault."""
        return len(self.versions) >= _VERSIONS_TO_OPEN


class Breaker:
    """Remembers failures by model. Event loop only. Bounded by `keep_only`."""

    def __init__(self, *, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        """Store. ``clock`` gives epoch seconds, ``jitter`` numbers from 0 to 1."""
        self._clock = clock
        self._jitter = jitter
        self._failed: dict[str, Tripped] = {}

    def allows(self, model: str, version: int, *, under_way: int) -> bool:
        """Whether a version may be tried, beside as many of its model as are under way."""
        found = self._failed.get(model)
        if found is None or not found.is_open:
            return True
        # Those that have not failed go first, then the one that failed longest ago: a version with
        # a fault of its own keeps back no other. Whose turn it is may not be asked for any more.
        turn = 0 if version not in found.versions else 1 if version == found.versions[0] else 2
        waited_s = self._clock() - found.retry_at
        is_due = waited_s >= turn * _PAUSE_S or waited_s < -_PAUSE_S  # the clock was set back
        return not under_way and is_due

    def failed(self, model: str, version: int, reason: str) -> None:
        """Note a failure that a later try may mend."""
        before = self._failed.get(model)
        others = (one for one in (before.versions if before else ()) if one != version)
        retry_at = self._clock() + _PAUSE_S * (0.5 + self._jitter() / 2)
        self._failed[model] = Tripped((*others, version), reason, retry_at)

    def answered(self, model: str) -> None:
        """Let a model be tried freely: one of its versions came, or was found to be wrong."""
        self._failed.pop(model, None)

    def open(self) -> Mapping[str, Tripped]:
        """Return the models of which few are tried."""
        return {model: found for model, found in self._failed.items() if found.is_open}

    def next_at(self, model: str) -> float | None:
        """Return the earliest future time at which a version of a model may be tried again."""
        now, found = self._clock(), self._failed.get(model)
        times = [found.retry_at + turn * _PAUSE_S for turn in range(3)] if found else []
        return min((at for at in times if at > now), default=None)

    def keep_only(
        self, versions: Iterable[tuple[str, int]], models: Iterable[str] | None = None
    ) -> None:
        """Forget what failed of every version but these: nobody asks for the others any more.

        ``models``: of these only; None: of all.
        """
        kept = set(versions)
        for model in tuple(self._failed) if models is None else models:
            found = self._failed.get(model)
            if found is None:
                continue
            asked = tuple(one for one in found.versions if (model, one) in kept)
            if asked:
                self._failed[model] = Tripped(asked, found.reason, found.retry_at)
            else:
                del self._failed[model]
