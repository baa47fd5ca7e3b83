"""Files of the node that are damaged or cannot be written, for the log and the state.

A damaged file is set aside, and its reader continues without it. A file that the disk refuses is
reported until it is written.
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
    """A file that cannot be read or written.

    Attributes:
        name: Name in the node's folder.
        at: Epoch seconds of the discovery.
        reason: What is wrong with it, as the end of a sentence that begins with "it".
        instead: What is in force without the file, as a sentence.
        set_aside: New name of the file, or None if it is gone or could not be renamed.
    """

    name: str
    at: float
    reason: str
    instead: str
    set_aside: str | None = None


class DamagedFiles:
    """Files found damaged since the start, and files not written yet. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._found: dict[str, DamagedFile] = {}
        self._refused: dict[str, DamagedFile] = {}

    def found(self, path: Path, reason: str, *, instead: str) -> None:
        """Report a damaged file, and set it aside if the disk allows.

        Args:
            path: The file.
            reason: The damage, as the end of a sentence that begins with "it".
            instead: What is in force without the file, as a sentence.
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
        """Report a file that the disk refuses, until it is `written`; log each reason once.

        Args:
            path: The file.
            error: The disk's error.
            instead: What is in force until the file is written, as a sentence.
        """
        reason = f"cannot be written: {error.strerror or error}"
        before = self._refused.get(path.name)
        if before is None or before.reason != reason:
            self._refused[path.name] = DamagedFile(path.name, self._clock(), reason, instead)
            _log.warning("file.not_written", file=str(path), reason=f"it {reason}", instead=instead)

    def written(self, path: Path) -> None:
        """Remove a written file from the report."""
        if (refused := self._refused.pop(path.name, None)) is not None:
            _log.info("file.written", file=str(path), late_s=round(self._clock() - refused.at, 1))

    def not_yet_written(self) -> list[DamagedFile]:
        """Return the files that the disk refuses."""
        return list(self._refused.values())

    def all(self) -> list[DamagedFile]:
        """Return damaged files and files that the disk refuses."""
        return [*self._found.values(), *self._refused.values()]
