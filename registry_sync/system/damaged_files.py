"""Which files of the node this control plane could not use, or not write: logged, and told.

A file that is damaged is set aside, and costs what it holds and no more: whoever reads it goes on
without it. One that the disk refuses is told until it has been written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.system.files import set_aside

_MOST_REMEMBERED = 32
_log = structlog.get_logger("registry_sync.system.damaged_files")


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
    """The files that were found damaged since the start, or are not written. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self._clock = clock
        self._found: dict[str, DamagedFile] = {}
        self._refused: dict[str, DamagedFile] = {}

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
            self._refused[path.name] = DamagedFile(path.name, self._clock(), reason, instead)
            _log.warning("file.not_written", file=str(path), reason=f"it {reason}", instead=instead)

    def written(self, path: Path) -> None:
        """Tell no more that the disk refuses a file: it has taken it."""
        if (refused := self._refused.pop(path.name, None)) is not None:
            _log.info("file.written", file=str(path), late_s=round(self._clock() - refused.at, 1))

    def not_yet_written(self) -> list[DamagedFile]:
        """Return those that the disk refuses now."""
        return list(self._refused.values())

    def all(self) -> list[DamagedFile]:
        """Return the latest of them, each file once for each trouble."""
        return [*self._found.values(), *self._refused.values()]
