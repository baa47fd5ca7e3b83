"""What earlier loads and deaths have taught about a version: size, seconds, when to try again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.contract import ReplicaKey
from gateway.errors import ModelLoadFailedError
from gateway.serving.residency.decision import faded

_FIRST_BACK_OFF_S = 1.0
_LAST_BACK_OFF_S = 60.0
_DEATHS_FORGIVEN = 2
_LIVES_REMEMBERED = 4
"""Deaths count together within so many lives: who goes wrong or hangs again and again lives for as
long as that takes to be seen, and each death would be the only one in a shorter time."""
_USUAL_LIFE_S = 15.0
_SERVED_BACK_OFF_S = 5.0
"""The longest pause after the death of a worker that had answered something: it was killed, or one
request was too much for it. Callers wait such a pause out."""
_SHORTEST_LOAD_S = 1.0
_UNKNOWN_LOAD_S = 2.0
_REMEMBERED = 16_384
"""Versions, and models."""


def back_off_s(failures: int) -> float:
    """Return how long to leave a version alone after so many failures in a row, in seconds."""
    return float(min(_FIRST_BACK_OFF_S * 2 ** min(failures - 1, 10), _LAST_BACK_OFF_S))


def usual_life_s(_key: ReplicaKey) -> float:
    """Return what `TrackRecord` takes for ``longest_life_s`` where nobody knows, in seconds."""
    return _USUAL_LIFE_S


@dataclass(slots=True)
class _Entry:
    """One version.

    ``death``: why the last worker died; ``until``: leave the version alone before;
    ``callers_wait``: and let callers wait; ``heat``: the uses of its last workers, as they counted
    at ``heat_at``.
    """

    bytes: int | None = None
    peak_bytes: int = 0
    load_s: float | None = None
    failures: int = 0
    deaths: list[float] = field(default_factory=list)
    death: str = ""
    message: str = ""
    until: float = 0.0
    callers_wait: bool = False
    heat: float = 0.0
    heat_at: float = 0.0


class TrackRecord:
    """The last versions that were loaded, or were to be; of no more than a bounded number.

    Event loop only.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        longest_life_s: Callable[[ReplicaKey], float] = usual_life_s,
    ) -> None:
        """Store.

        Args:
            clock: Monotonic seconds.
            longest_life_s: For how many seconds a worker of a version may be ready, at most, before
                it is seen that it is wrong or stuck from the beginning.
        """
        self._clock = clock
        self.longest_life_s = longest_life_s
        self._entries: OrderedDict[ReplicaKey, _Entry] = OrderedDict()
        self._model_bytes: OrderedDict[str, int] = OrderedDict()
        self._last_load_s = _UNKNOWN_LOAD_S

    # --- what it cost -----------------------------------------------------------------------------

    def loaded(
        self, key: ReplicaKey, seconds: float, private_bytes: int, peak_bytes: int = 0
    ) -> None:
        """Remember a load that went well: failures count in a row, deaths for themselves."""
        entry = self._entry(key)
        entry.bytes, entry.peak_bytes = private_bytes, max(private_bytes, peak_bytes)
        entry.load_s, entry.failures = seconds, 0
        self._last_load_s = seconds
        self._model_bytes[key.model] = entry.peak_bytes
        self._model_bytes.move_to_end(key.model)
        if len(self._model_bytes) > _REMEMBERED:
            self._model_bytes.popitem(last=False)

    def bytes_of(self, key: ReplicaKey) -> int | None:
        """Return what a worker of this version held when it was ready; None: none ever was."""
        entry = self._entries.get(key)
        return entry.bytes if entry is not None else None

    def bytes_of_model(self, model: str) -> int:
        """Return the most that a worker of the model's last version held while it came up; or 0."""
        return self._model_bytes.get(model, 0)

    def peak_bytes_of(self, key: ReplicaKey) -> int:
        """Return the most that a worker of this version held while it came up; 0: none ever did."""
        entry = self._entries.get(key)
        return entry.peak_bytes if entry is not None else 0

    def expected_load_s(self, key: ReplicaKey) -> float:
        """Return how long a load of this version took, or any version, last time; in seconds."""
        entry = self._entries.get(key)
        known = entry.load_s if entry is not None else None
        return max(_SHORTEST_LOAD_S, self._last_load_s if known is None else known)

    # --- how much it was used ---------------------------------------------------------------------

    def keep_heat(self, key: ReplicaKey, heat: float) -> None:
        """Remember the uses of a worker that has ended, for the version's next one."""
        entry = self._entry(key)
        entry.heat, entry.heat_at = heat + self._heat(entry), self._clock()

    def take_heat(self, key: ReplicaKey) -> float:
        """Hand the uses of a version's last workers to its next one."""
        entry = self._entries.get(key)
        if entry is None:
            return 0.0
        heat, entry.heat = self._heat(entry), 0.0
        return heat

    def _heat(self, entry: _Entry) -> float:
        return faded(entry.heat, self._clock() - entry.heat_at)

    # --- what went wrong --------------------------------------------------------------------------

    def load_failed(self, key: ReplicaKey, message: str) -> float:
        """Remember a failure; return for how many seconds the version is left alone."""
        entry = self._entry(key)
        entry.failures += 1
        entry.message = message
        entry.callers_wait = False
        pause_s = back_off_s(entry.failures)
        entry.until = self._clock() + pause_s
        return pause_s

    def died(self, key: ReplicaKey, reason: str, *, had_answered: bool) -> None:
        """Remember the death of a ready worker.

        A crash is forgiven; a version that crashes again and again is left alone for a while. Not
        for long, and with its callers waiting, if its worker had served: only one that dies before
        it has answered anything is worth refusing.
        """
        now = self._clock()
        entry = self._entry(key)
        entry.death = reason
        entry.deaths = [*self._recent(key, entry), now]
        extra = len(entry.deaths) - _DEATHS_FORGIVEN
        if extra > 0:
            entry.message = self._told(entry.deaths, reason)
            entry.callers_wait = had_answered
            longest_s = _SERVED_BACK_OFF_S if had_answered else _LAST_BACK_OFF_S
            entry.until = now + min(back_off_s(extra), longest_s)

    def _recent(self, key: ReplicaKey, entry: _Entry) -> list[float]:
        """Return the deaths that count together: a life begins with a load."""
        life_s = self.longest_life_s(key) + (entry.load_s or 0.0)
        since = self._clock() - _LIVES_REMEMBERED * life_s
        return [at for at in entry.deaths if at > since]

    def _told(self, deaths: list[float], reason: str) -> str:
        lately_s = max(1.0, self._clock() - deaths[0])
        return f"its worker died {len(deaths)} times in {lately_s:.0f} s: {reason}"

    def keeps_dying(self, key: ReplicaKey) -> str | None:
        """Return why a version is left alone now and then, in words; None: it is not."""
        entry = self._entries.get(key)
        deaths = self._recent(key, entry) if entry is not None and entry.deaths else []
        if entry is None or len(deaths) <= _DEATHS_FORGIVEN:
            return None
        return self._told(deaths, entry.death)

    def pause_left_s(self, key: ReplicaKey) -> float:
        """Return for how many seconds a version is left alone; mostly 0."""
        entry = self._entries.get(key)
        return max(0.0, entry.until - self._clock()) if entry is not None else 0.0

    def forgive(self, key: ReplicaKey) -> None:
        """Forget what went wrong: somebody asks for a new try."""
        if (entry := self._entries.get(key)) is not None:
            self._entries[key] = _Entry(
                bytes=entry.bytes,
                peak_bytes=entry.peak_bytes,
                load_s=entry.load_s,
                heat=entry.heat,
                heat_at=entry.heat_at,
            )

    def trouble(self, key: ReplicaKey) -> tuple[str, float] | None:
        """Return why a version is left alone for now, and for how many seconds; None: it is not."""
        entry = self._entries.get(key)
        left_s = entry.until - self._clock() if entry is not None else 0.0
        return (entry.message, left_s) if entry is not None and left_s > 0 else None

    def pause_s(self, key: ReplicaKey) -> float:
        """Return for how many seconds callers, and the next load, have to wait; mostly 0.

        Raises:
            ModelLoadFailedError: Waiting would be in vain.
        """
        trouble = self.trouble(key)
        if trouble is None:
            return 0.0
        message, left_s = trouble
        if not self._entries[key].callers_wait:
            raise ModelLoadFailedError(
                f"the last load of {key} failed: {message}", retry_after_s=left_s
            )
        return left_s

    def _entry(self, key: ReplicaKey) -> _Entry:
        """Return the entry of a version as the newest; forget the oldest beyond a bound."""
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        if len(self._entries) > _REMEMBERED:
            self._entries.popitem(last=False)
        return entry
