"""How long what lies at a place has been the same, as far as it was looked at. Bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen at a place, last and before.

    Attributes:
        mark: What changes when the place does.
        since_s: The clock when it was first seen so.
        moved: Whether it was seen otherwise before that.
    """

    mark: str
    since_s: float
    moved: bool


class Sightings:
    """Remembers the places looked at last; one that is forgotten is seen for the first time again.

    Any thread.
    """

    def __init__(self, most: int = _MOST) -> None:
        """Store how many places are remembered."""
        self._most = most
        self._seen: OrderedDict[str, Sighting] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, place: str, mark: str, now_s: float) -> Sighting:
        """Remember that a place is as ``mark`` says; return since when."""
        with self._lock:
            before = self._seen.pop(place, None)
            if before is None or before.mark != mark:
                before = Sighting(mark, now_s, moved=before is not None)
            self._seen[place] = before
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
            return before
