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
        reason: A sentence for users.
        refused: Whether a later try of the same would fail again.
        unfinished: Whether an upload is in progress, so that pauses stay short.
        short_lived: Whether it ends by itself within seconds, so that callers go on waiting.
        costly: Whether the try ended a serving replica, so that a long pause is due.
    """

    reason: str
    refused: bool = False
    unfinished: bool = False
    short_lived: bool = False
    costly: bool = False


@dataclass(slots=True)
class Stopwatch:
    """Seconds by phase, recorded when a phase ends, also if it fails."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
