"""Which files of the node this gateway could not use: set aside, logged, and told.

A file that is damaged costs what it holds and no more: whoever reads it goes on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.atomic_files import set_aside
from gateway.control_contract import DamagedFile

_log = structlog.get_logger("gateway.damaged_files")


class DamagedFiles:
    """The files that were found damaged since the start. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self._clock = clock
        self._found: dict[str, DamagedFile] = {}

    def found(self, path: Path, reason: str, *, instead: str, keep: bool = True) -> None:
        """Set a file aside, and tell of it. The disk may refuse that: then it stays.

        Args:
            path: Which file.
            reason: What is wrong with it, as the end of a sentence that begins with "it".
            instead: What this gateway goes on with, as a sentence.
            keep: Whether there is something to set aside.
        """
        aside = set_aside(path) if keep else None
        found = DamagedFile(
            name=path.name,
            at=self._clock(),
            reason=reason,
            instead=instead,
            set_aside=aside.name if aside else None,
        )
        self._found[path.name] = found
        _log.error(
            "file.damaged",
            file=str(path),
            reason=f"it {reason}",
            instead=instead,
            set_aside=found.set_aside,
        )

    def all(self) -> list[DamagedFile]:
        """Return them, each file once."""
        return list(self._found.values())
