"""Counts warnings and errors that repeat, instead of writing them again.

A fault a thousand times per second would fill the disk. The first of equal lines is written; the
number of repetitions follows some seconds later, as `log.repeated`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

WINDOW_S = 10.0
"""Seconds in which equal lines are counted after one was written."""
MOST_REMEMBERED = 256
_LEVELS = frozenset({"warning", "error", "critical"})
_OF_ONE_OCCURRENCE = frozenset({"request_id", "stage_id", "pid"})
"""Fields that are ignored when lines are compared."""


@dataclass(slots=True)
class _Line:
    name: str
    written_at: float
    repeated: int = 0


class RepeatedLines:
    """A processor of structlog, and a filter of logging's handlers. Any thread.

    Lines are equal if their fields are, except ids; of an exception, type and message count.
    ``log`` logs how often the line of a name was repeated.
    """

    def __init__(
        self, log: Callable[[str, int], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._clock = clock
        self._counting = threading.Lock()
        self._lines: OrderedDict[int, _Line] = OrderedDict()
        self._due: list[_Line] = []
        self._others = 0  # beyond as many as are remembered

    def process(
        self, _logger: object, method: str, fields: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Let a line pass, or count it.

        Raises:
            structlog.DropEvent: It was counted.
        """
        if method in ("exception", *_LEVELS):
            name = str(fields.get("event"))
            compared = {name: fields[name] for name in fields.keys() - _OF_ONE_OCCURRENCE}
            compared["exc_info"] = _exception(fields.get("exc_info"))
            if self._is_repeated(name, repr(sorted(compared.items(), key=str))):
                raise structlog.DropEvent
        return fields

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a library's line pass, or count it."""
        if record.levelno < logging.WARNING:
            return True
        compared = (record.levelno, record.getMessage(), _exception(record.exc_info))
        return not self._is_repeated(record.name, repr((record.name, *compared)))

    def _is_repeated(self, name: str, line: str) -> bool:
        key, now = hash(line), self._clock()
        with self._counting:
            known = self._lines.get(key)
            if known is not None and now - known.written_at < WINDOW_S:
                known.repeated += 1
                return True
            self._remove(key)
            self._lines[key] = _Line(name, now)
            while len(self._lines) > MOST_REMEMBERED:
                self._remove(next(iter(self._lines)))
        return False

    def _remove(self, key: int) -> None:
        line = self._lines.pop(key, None)
        if line is None or not line.repeated:
            return
        if len(self._due) < MOST_REMEMBERED:
            self._due.append(line)
        else:
            self._others += line.repeated

    def log_counts(self, at_end: bool) -> None:
        """Log how often lines were repeated in past windows; at the end, in all."""
        over = self._clock() - WINDOW_S
        with self._counting:
            for key, line in tuple(self._lines.items()):
                if at_end or line.written_at <= over:
                    self._remove(key)
            due, self._due = self._due, []
            others, self._others = self._others, 0
        for line in due:
            self._log(line.name, line.repeated)
        if others:
            self._log("others", others)


def _exception(exc_info: object) -> str | None:
    """Return type and message of an exception, or None."""
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return repr(error) if isinstance(error, BaseException) else None
