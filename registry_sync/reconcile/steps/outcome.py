"""The outcome of a step: why it stopped, and the seconds of its phases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepFailure:
    """A step that did not complete.

    Attributes:
        reason: A sentence.
        refused: Whether it is not tried again by itself.
        unfinished: Whether an upload is in progress, so that long pauses would only be late.
        settling: Whether it passes by itself within seconds, so that callers go on waiting.
        costly: Whether the try ended a serving replica, so that a long pause is due.
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
