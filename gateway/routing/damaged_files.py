"""Which files of the node this gateway could not use, or not write: logged, and told.

A file that is damaged is set aside, and costs what it holds and no more: whoever reads it goes on
without it. One that the system does not let be read may be whole: it stays where it is. One that
the disk refuses is told until it has been written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.contract import DamagedFile
from gateway.system.files import set_aside

_log = structlog.get_logger("gateway.routing.damaged_files")


class DamagedFiles:
    """The files that were found damaged since the start, or are not written. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self._clock = clock
        self._found: dict[str, DamagedFile] = {}
        self._refused: dict[str, DamagedFile] = {}

    def found(self, path: Path, reason: str, *, instead: str, keep: bool = True) -> None:
        """Set a file aside, and tell of it. The disk may refuse that: then it stays.

        Args:
            path: Which file.
            reason: What is wrong with it, as the end of a sentence that begins with "it".
            instead: What this gateway goes on with, as a sentence.
            keep: Whether to set it aside: not what is gone, nor what may be whole.
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

    def not_written(self, path: Path, error: OSError, *, instead: str) -> None:
        """Tell that the disk refuses a file, until it is `written`. Logged when that is news.

        Args:
            path: Which file.
            error: What the disk said.
            instead: What counts until it is written, as a sentence.
        """
        reason = f"cannot be written: {error.strerror or error}"
        before = self._refused.get(path.name)
        if before is None or before.reason != reason:
            at = self._clock()
            self._refused[path.name] = DamagedFile(
                name=path.name, at=at, reason=reason, instead=instead
            )
            _log.warning("file.not_written", file=str(path), reason=f"it {reason}", instead=instead)

    def written(self, path: Path) -> None:
        """Tell no more that the disk refuses a file: it has taken it."""
        if (refused := self._refused.pop(path.name, None)) is not None:
            _log.info("file.written", file=str(path), late_s=round(self._clock() - refused.at, 1))

    def all(self) -> list[DamagedFile]:
        """Return them, each file once for each trouble."""
        return [*self._found.values(), *self._refused.values()]
