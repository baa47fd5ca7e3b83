"""The history of a version's loads and deaths: its size, load time, and pause before a retry."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cachetools import LRUCache

from gateway.contract import ArtifactRef
from gateway.errors import LoadError, ModelLoadFailedError
from gateway.serving.residency.decision import faded

_FIRST_BACK_OFF_S = 1.0
_LAST_BACK_OFF_S = 60.0
_DEATHS_FORGIVEN = 2
_DEATHS_COUNT_S = 600.0
_LIVES_COUNT = 4
_LONGEST_LIFE_S = 7200.0
"""Deaths count for ten minutes, or for four lives of the last replica: one that loads slowly, or
hangs until a long time-out, dies seldom."""
_SERVED_BACK_OFF_S = 5.0
"""The longest pause after the death of a replica that had served. It was killed, or one request was
too much for it, so its callers wait instead of being refused."""
_EVICTION_COUNTS_S = 3600.0
"""A version that is called more seldom has to be loaded for each call, whatever the limits."""
_SHORTEST_LOAD_S = 1.0
_UNKNOWN_LOAD_S = 2.0
_REMEMBERED = 16_384
"""Versions, and models."""


def back_off_s(failures: int) -> float:
    """Return the pause after so many failures in a row, in seconds."""
    return float(min(_FIRST_BACK_OFF_S * 2 ** min(failures - 1, 10), _LAST_BACK_OFF_S))


@dataclass(slots=True)
class _Entry:
    """One version.

    Attributes:
        deaths_count_s: Seconds for which deaths count.
        death: The reason for the last replica's death.
        message: The reason for the pause.
        failure: Its kind, as of `LoadError`.
        until: The end of the pause.
        callers_wait: Callers wait for the end of the pause, rather than being refused.
        heat: Uses of its ended replicas, as of ``heat_at``.
        evicted_by: The setting whose limit ended its last replica, at ``evicted_at``; or empty.
    """

    bytes: int | None = None
    peak_bytes: int = 0
    load_s: float | None = None
    failures: int = 0
    deaths: list[float] = field(default_factory=list)
    deaths_count_s: float = _DEATHS_COUNT_S
    death: str = ""
    message: str = ""
    failure: str = ""
    until: float = 0.0
    callers_wait: bool = False
    heat: float = 0.0
    heat_at: float = 0.0
    evicted_by: str = ""
    evicted_at: float = 0.0


class LoadHistory:
    """The history of the last versions that were loaded, bounded in number. Event loop only.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: LRUCache[ArtifactRef, _Entry] = LRUCache(_REMEMBERED)
        self._model_bytes: LRUCache[str, int] = LRUCache(_REMEMBERED)
        self._last_load_s = _UNKNOWN_LOAD_S

    # --- cost -------------------------------------------------------------------------------------

    def loaded(
        self, key: ArtifactRef, seconds: float, private_bytes: int, peak_bytes: int = 0
    ) -> None:
        """Record a load that succeeded. It ends the row of failures, not the count of deaths."""
        entry = self._entry(key)
        entry.bytes, entry.peak_bytes = private_bytes, max(private_bytes, peak_bytes)
        entry.load_s, entry.failures, entry.evicted_by = seconds, 0, ""
        self._last_load_s = seconds
        self._model_bytes[key.model] = entry.peak_bytes

    def needed_bytes(
        self, key: ArtifactRef, estimate: Callable[[ArtifactRef], int], most: int
    ) -> int:
        """Return the expected peak of the next load, by the version's last one or the model's.

        An estimate, or a peak, is cut to ``most``, so that it never prevents a load.
        """
        entry = self._entries.get(key)
        if entry is None or entry.bytes is None:
            return min(max(self._model_bytes.get(key.model, 0), estimate(key)), most)
        return max(entry.bytes, min(entry.peak_bytes, most))

    def expected_load_s(self, key: ArtifactRef) -> float:
        """Return the last load time of this version, else of any version, in seconds."""
        entry = self._entries.get(key)
        known = entry.load_s if entry is not None else None
        return max(_SHORTEST_LOAD_S, self._last_load_s if known is None else known)

    # --- use --------------------------------------------------------------------------------------

    def keep_heat(self, key: ArtifactRef, heat: float) -> None:
        """Keep the uses of a replica that has ended, for the version's next one."""
        entry = self._entry(key)
        entry.heat, entry.heat_at = heat + self._heat(entry), self._clock()

    def take_heat(self, key: ArtifactRef) -> float:
        """Hand over the kept uses of a version to its next replica."""
        entry = self._entries.get(key)
        if entry is None:
            return 0.0
        heat, entry.heat = self._heat(entry), 0.0
        return heat

    def _heat(self, entry: _Entry) -> float:
        return faded(entry.heat, self._clock() - entry.heat_at)

    # --- evictions --------------------------------------------------------------------------------

    def evicted(self, key: ArtifactRef, setting: str) -> None:
        """Record that a replica made room, and the setting whose limit it was."""
        entry = self._entry(key)
        entry.evicted_by, entry.evicted_at = setting, self._clock()

    def take_eviction(self, key: ArtifactRef) -> str | None:
        """Return, once, the setting that evicted a version lately, or None."""
        entry = self._entries.get(key)
        if entry is None or not entry.evicted_by:
            return None
        setting, entry.evicted_by = entry.evicted_by, ""
        return setting if self._clock() - entry.evicted_at <= _EVICTION_COUNTS_S else None

    # --- failures and deaths ----------------------------------------------------------------------

    def load_failed(self, key: ArtifactRef, error: LoadError) -> float:
        """Record a failed load; return the pause before the next one, in seconds."""
        entry = self._entry(key)
        entry.failures += 1
        entry.message, entry.failure = error.message, error.failure
        entry.callers_wait = False
        pause_s = back_off_s(entry.failures)
        entry.until = self._clock() + pause_s
        return pause_s

    def died(
        self, key: ArtifactRef, reason: str, *, had_answered: bool, lived_s: float = 0.0
    ) -> None:
        """Record the death of a ready replica; a version that keeps dying pauses.

        If the replica had answered, the pause is short and callers wait for its end. ``lived_s`` is
        the time since its load began.
        """
        now = self._clock()
        entry = self._entry(key)
        lives_s = _LIVES_COUNT * min(lived_s, _LONGEST_LIFE_S)
        entry.deaths_count_s = max(_DEATHS_COUNT_S, lives_s)
        entry.death = reason
        entry.deaths = [*self._recent_deaths(entry), now]
        extra = len(entry.deaths) - _DEATHS_FORGIVEN
        if extra > 0:
            entry.message = self._death_report(entry.deaths, reason)
            entry.failure = "worker_died"
            entry.callers_wait = had_answered
            longest_s = _SERVED_BACK_OFF_S if had_answered else _LAST_BACK_OFF_S
            entry.until = now + min(back_off_s(extra), longest_s)

    def _recent_deaths(self, entry: _Entry) -> list[float]:
        since = self._clock() - entry.deaths_count_s
        return [at for at in entry.deaths if at > since]

    def _death_report(self, deaths: list[float], reason: str) -> str:
        seconds = max(1.0, self._clock() - deaths[0])
        return f"its worker died {len(deaths)} times in {seconds:.0f} s: {reason}"

    def keeps_dying(self, key: ArtifactRef) -> str | None:
        """Return how often and why replicas died lately, or None if that is forgiven."""
        entry = self._entries.get(key)
        if entry is None or len(deaths := self._recent_deaths(entry)) <= _DEATHS_FORGIVEN:
            return None
        return self._death_report(deaths, entry.death)

    def forgive(self, key: ArtifactRef) -> None:
        """Remove failures and deaths, for a new try."""
        if (entry := self._entries.get(key)) is not None:
            self._entries[key] = replace(
                entry, failures=0, deaths=[], death="", message="", until=0.0, callers_wait=False
            )

    def pause_left_s(self, key: ArtifactRef) -> float:
        """Return the seconds that are left of a version's pause; mostly 0."""
        entry = self._entries.get(key)
        return max(0.0, entry.until - self._clock()) if entry is not None else 0.0

    def trouble(self, key: ArtifactRef) -> tuple[str, float] | None:
        """Return why a version pauses and for how many more seconds, or None if it does not."""
        left_s = self.pause_left_s(key)
        return (self._entries[key].message, left_s) if left_s > 0 else None

    def pause_s(self, key: ArtifactRef) -> float:
        """Return for how many seconds callers, and the next load, have to wait; mostly 0.

        Raises:
            ModelLoadFailedError: The version pauses, and callers are refused meanwhile.
        """
        trouble = self.trouble(key)
        if trouble is None:
            return 0.0
        message, left_s = trouble
        entry = self._entries[key]
        if not entry.callers_wait:
            raise ModelLoadFailedError(
                f"the last load of {key} failed: {message}",
                retry_after_s=left_s,
                failure=entry.failure,
            )
        return left_s

    def _entry(self, key: ArtifactRef) -> _Entry:
        entry: _Entry = self._entries.setdefault(key, _Entry())
        return entry
