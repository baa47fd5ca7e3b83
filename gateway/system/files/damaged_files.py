"""Files of the node that a plane could not use, or not write: logged, and reported.

A damaged file is set aside, and costs its own content only. A file that cannot be read may be
whole, so it stays. A file that the disk refuses is reported until it has been written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.system.files.atomic_files import set_aside

_MOST_REMEMBERED = 32
_log = structlog.get_logger("gateway.system.files.damaged_files")


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that cannot be read or written.

    Attributes:
        name: Its name in the node's folder.
        at: Epoch seconds when the damage was found.
        reason: What is wrong with it, as the end of a sentence that begins with "it".
        instead: The replacement of the content and the loss, as a sentence.
        set_aside: The name under which it is kept, or None if it is not.
    """

    name: str
    at: float
    reason: str
    instead: str
    set_aside: str | None = None


class DamagedFiles:
    """Damaged files since the start, and files that are not written. Any thread.

    ``clock`` returns epoch seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._found: dict[str, DamagedFile] = {}
        self._refused: dict[str, DamagedFile] = {}

    def found(self, path: Path, reason: str, *, instead: str, keep: bool = True) -> None:
        """Report a damaged file, and set it aside if the disk allows that.

        Args:
            path: The file.
            reason: What is wrong with it, as the end of a sentence that begins with "it".
            instead: What counts instead, as a sentence.
            keep: Whether to set it aside: not if it is missing or may be whole.
        """
        aside = set_aside(path) if keep else None
        aside_name = aside.name if aside else None
        self._found.pop(path.name, None)
        self._found[path.name] = DamagedFile(path.name, self._clock(), reason, instead, aside_name)
        if len(self._found) > _MOST_REMEMBERED:
            del self._found[next(iter(self._found))]
        _log.error(
            "file.damaged",
            file=str(path),
            reason=f"it {reason}",
            instead=instead,
            set_aside=aside_name,
        )

    def not_written(self, path: Path, error: OSError, *, instead: str) -> None:
        """Report that the disk refuses a file, until it is `written`. A new reason is logged.

        Args:
            path: The file.
            error: The disk's error.
            instead: What counts until it is written, as a sentence.
        """
        reason = f"cannot be written: {error.strerror or error}"
        before = self._refused.get(path.name)
        if before is None or before.reason != reason:
            self._refused[path.name] = DamagedFile(path.name, self._clock(), reason, instead)
            _log.warning(
                "file.write_failed", file=str(path), reason=f"it {reason}", instead=instead
            )

    def written(self, path: Path) -> None:
        """End the report of a file that the disk refused."""
        if (refused := self._refused.pop(path.name, None)) is not None:
            _log.info("file.written", file=str(path), late_s=round(self._clock() - refused.at, 1))

    def not_yet_written(self) -> list[DamagedFile]:
        """Return the files that the disk refuses now."""
        return list(self._refused.values())

    def all(self) -> list[DamagedFile]:
        """Return the damaged files, and those that the disk refuses now."""
        return [*self._found.values(), *self._refused.values()]
