"""Configures the log of both planes: structured lines without secrets and local variables.

Lines of libraries and uncaught exceptions pass the same processors.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog
from structlog.processors import ExceptionRenderer

from gateway.system.logs.redaction import printable, redacted
from gateway.system.logs.repeated_lines import RepeatedLines
from gateway.system.logs.writer import LogWriter

if TYPE_CHECKING:
    from structlog.typing import ExcInfo, Processor

_MOST_FRAMES = 30
_MOST_TRACEBACK_CHARACTERS = 16_384
_MOST_DEPTH = 6
_TRACEBACKS = ("exception", "stack")
_log = structlog.get_logger("process")


class _ComponentLogger(structlog.WriteLogger):
    """A logger that knows its component: the name by which it was asked for."""

    def __init__(self, lines: TextIO, component: str) -> None:
        super().__init__(lines)
        self.component = component


def configure_logging(
    *,
    level: str,
    form: str,
    libraries: int = logging.WARNING,
    quiet: Mapping[str, int] | None = None,
) -> LogWriter:
    """Send structured lines to standard error, written by a thread; return its writer.

    At its normal end, the process waits for that thread for a moment.

    Args:
        level: The least level that is logged.
        form: ``json``, ``console``, or ``auto``: console on a terminal, JSON elsewhere.
        libraries: The least level of libraries' own lines.
        quiet: The least levels of some of these libraries, by the names of their loggers.
    """
    repeated = RepeatedLines(lambda line, times: _log.info("log.repeated", line=line, times=times))
    lines = LogWriter(
        sys.stderr.fileno(),
        lambda left_out: _log.warning("log.lines_dropped", lines=left_out),
        repeated.log_counts,
    )
    lines.start()
    atexit.register(lines.end)
    shared: list[Processor] = [
        _with_component,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered = _rendered(console=form == "console" or (form == "auto" and sys.stderr.isatty()))
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[repeated.process, *shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda component: _ComponentLogger(cast("TextIO", lines), component),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.addFilter(repeated.filter)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(least, libraries), force=True)
    logging.captureWarnings(capture=True)  # Python writes them to standard error itself
    for name, at_least in (quiet or {}).items():
        logging.getLogger(name).setLevel(at_least)
    _log_uncaught()
    return lines


def _rendered(*, console: bool) -> list[Processor]:
    """Return the processors between a line's fields and its text."""
    safe: list[Processor] = [ExceptionRenderer(_traceback), _without_secrets]
    if console:
        return [*safe, _in_one_line, structlog.dev.ConsoleRenderer()]
    return [*safe, structlog.processors.JSONRenderer()]


def _log_uncaught() -> None:
    """Log uncaught exceptions, which Python would write as they are."""

    def of_process(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        _log.critical("process.crashed", exc_info=(kind, error, trace))

    def of_thread(raised: threading.ExceptHookArgs) -> None:
        if raised.exc_type is not SystemExit:
            _log.error("thread.crashed", exc_info=raised.exc_value)

    def of_collector(raised: sys.UnraisableHookArgs) -> None:
        _log.error("error.unraisable", exc_info=raised.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = of_process, of_thread, of_collector


# --- processors -----------------------------------------------------------------------------------


def _with_component(
    logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the component that logs: a logger of ours, or a library's."""
    record = fields.get("_record")
    fields.setdefault("component", logger.component if record is None else record.name)
    return fields


def _traceback(exc_info: ExcInfo) -> str:
    """Return a bounded traceback without local variables."""
    text = "".join(traceback.format_exception(*exc_info, limit=-_MOST_FRAMES)).rstrip()
    if len(text) <= _MOST_TRACEBACK_CHARACTERS:
        return text
    half = _MOST_TRACEBACK_CHARACTERS // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _without_secrets(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {name: _safe(value, _MOST_DEPTH) for name, value in fields.items()}


def _safe(value: Any, depth: int) -> Any:
    """Return a field's value without secrets; a type unknown to JSON becomes a text."""
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, Mapping):
        return {redacted(str(key)): _safe(one, depth - 1) for key, one in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_safe(one, depth - 1) for one in value]
    return redacted(repr(value))


def _in_one_line(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape control characters in event and tracebacks; the renderer escapes other fields."""
    fields["event"] = printable(str(fields["event"]))
    for name in _TRACEBACKS:
        if name in fields:
            fields[name] = "\n".join(map(printable, str(fields[name]).split("\n")))
    return fields
