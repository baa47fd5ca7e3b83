"""Which files of the node this control plane could not use: set aside, logged, and told.

A file that is damaged costs what it holds and no more: whoever reads it goes on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from registry_sync.atomic_files import set_aside

_MOST_REMEMBERED = 32
_log = structlog.get_logger("registry_sync.damaged_files")


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that could not be used.

    Attributes:
        name: Of the file, in the node's folder.
        at: Epoch seconds when that was found.
        reason: What is wrong with it, as the end of a sentence that begins with "it".
        instead: What the control plane goes on with, and what is lost, as a sentence.
        set_aside: The name under which it is kept; None: it is gone, or could not be renamed.
    """

    name: str
    at: float
    reason: str
    instead: str
    set_aside: str | None = None


class DamagedFiles:
    """The files that were found damaged since the start. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self._clock = clock
        self._found: dict[str, DamagedFile] = {}

    def found(self, path: Path, reason: str, *, instead: str) -> None:
        """Set a file aside, and tell of it. The disk may refuse that: then it stays.

        Args:
            path: Which file.
            reason: What is wrong with it, as the end of a sentence that begins with "it".
            instead: What this control plane goes on with, as a sentence.
        """
        aside = set_aside(path)
        found = DamagedFile(
            path.name, self._clock(), reason, instead, aside.name if aside else None
        )
        self._found.pop(path.name, None)
        self._found[path.name] = found
        while len(self._found) > _MOST_REMEMBERED:
            del self._found[next(iter(self._found))]
        _log.error(
            "file.damaged",
            file=str(path),
            reason=f"it {reason}",
            instead=instead,
            set_aside=found.set_aside,
        )

    def all(self) -> list[DamagedFile]:
        """Return the latest of them, each file once."""
        return list(self._found.values())
