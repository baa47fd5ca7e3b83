"""How long the listing of a location has been unchanged. Bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class SeenListing:
    """The last listing of a location.

    Attributes:
        mark: Mark of the listing.
        since_s: Clock at the first listing with this mark.
        moved: Whether an earlier listing had another mark.
    """

    mark: str
    since_s: float
    moved: bool


class UploadStability:
    """Remembers the locations listed last, each with its mark. Any thread."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._seen: OrderedDict[str, SeenListing] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, location: str, mark: str, now_s: float) -> SeenListing:
        """Record the mark of a location; return since when it is unchanged."""
        with self._lock:
            before = self._seen.pop(location, None)
            if before is None or before.mark != mark:
                before = SeenListing(mark, now_s, moved=before is not None)
            self._seen[location] = before
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
            return before
