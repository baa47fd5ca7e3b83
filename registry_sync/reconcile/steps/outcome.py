"""What came of a step: why it stopped, and how long its phases took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stopped:
    """A step that went no further.

    Attributes:
        reason: Why, as a sentence.
        refused: It is not tried again by itself.
        unfinished: Somebody is still at it, so a long wait would only be late.
        settling: Time alone mends it, within seconds: who asked for the version goes on waiting.
        costly: The try took down what serves, and so would the next: a long wait is due.
    """

    reason: str
    refused: bool = False
    unfinished: bool = False
    settling: bool = False
    costly: bool = False


@dataclass(slots=True)
class Stopwatch:
    """Seconds by phase; filled as the phases end, so that a failure has its times too."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
