"""Output of the command: sentences, JSON, tables, progress bars, and exit statuses.

Names and reasons come from strangers, so characters that act on a terminal are escaped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, IntEnum
from io import TextIOWrapper
from typing import Any, NoReturn, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from gateway.system.logs import printable, redacted
from registry_sync.cli.tables import Column, Row, lay_out, wrapped
from registry_sync.domain import Outcome

_SHORT_DIGEST = len("sha256:") + 12
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400

_Answer = TypeVar("_Answer", bound=BaseModel)


class ExitStatus(IntEnum):
    """Exit statuses."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    PENDING = 4


_EXITS: dict[Outcome, ExitStatus] = {
    "active": ExitStatus.DONE,
    "accepted": ExitStatus.DONE,
    "ended": ExitStatus.DONE,
    "done": ExitStatus.DONE,
    "pending": ExitStatus.PENDING,
    "refused": ExitStatus.REFUSED,
}


# --- printing and ending --------------------------------------------------------------------------


def print_answer(answer: _Answer, print_it: Callable[[_Answer], None], *, as_json: bool) -> None:
    """Print the whole answer as JSON, or as text by ``print_it``."""
    if as_json:
        typer.echo(_json(answer))
    else:
        print_it(_printable(answer))


def _printable(value: Any) -> Any:
    """Return an answer, or a part of one, whose texts cannot act on a terminal."""
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _printable(one) for name, one in value})
    if isinstance(value, str) and not isinstance(value, Enum):
        return printable(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_printable, value))
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return value


def _json(answer: BaseModel) -> str:
    """Return an answer as JSON that stdout can spell, and that cannot act on a terminal."""
    lines = answer.model_dump_json(indent=2).split("\n")  # in texts, JSON escapes it
    text = "\n".join(one if one.isprintable() else _escaped(one) for one in lines)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(answer.model_dump(mode="json"), indent=2)
    return text


def _escaped(line: str) -> str:
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)


def escape_unencodable() -> None:
    """Let stdout escape the characters that its encoding lacks: an alias may have any letter."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def text_console() -> Console:
    """Return stdout for sentences: as they are, not highlighted, marked up or broken into lines."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def print_text(text: Text) -> None:
    """Print a sentence: on a terminal broken between words, in a pipe or a file as one line."""
    out = text_console()
    for line in wrapped(text, _width_of(out)):
        out.print(line)


def print_table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print a table as the terminal has room, or whole in a pipe or a file."""
    out = text_console()
    for line in lay_out(columns, list(rows), _width_of(out)):
        out.print(line)


def _width_of(out: Console) -> int | None:
    """Return the width of the terminal, or that of COLUMNS, or None: a pipe has no width."""
    return out.width if out.is_terminal or "COLUMNS" in os.environ else None


def clear_screen() -> None:
    """Clear the terminal; a pipe or a file gets nothing."""
    text_console().clear()


def print_done(done: str, *more: str) -> None:
    """Print a result, and its consequences."""
    out = text_console()
    out.print(Text(printable(done), "green"))
    for line in more:
        out.print(Text(printable(line)))


def print_error(message: str) -> None:
    """Print on stderr that something failed, or is not done yet."""
    print_note(message, style="red")


def print_note(message: str, style: str = "") -> None:
    """Print a message on stderr, redacted: parts of it come from servers."""
    out = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    out.print(Text(printable(redacted(message)), style))


def fail(message: str, code: ExitStatus) -> NoReturn:
    """Print an error, and end the command."""
    print_error(message)
    sys.stderr.flush()
    raise typer.Exit(code)


def end(outcome: Outcome, *, waited: bool = True) -> NoReturn:
    """End the command with the status of an outcome; without waiting, ``pending`` is 0."""
    raise typer.Exit(_EXITS[outcome] if waited or outcome != "pending" else ExitStatus.DONE)


def is_done(outcome: Outcome) -> bool:
    """Whether a decision has had its effect."""
    return _EXITS[outcome] is ExitStatus.DONE


def progress_bars() -> Progress:
    """Return bars of bytes on stderr, which disappear when the work is done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


# --- wording --------------------------------------------------------------------------------------


def ago(at: float) -> str:
    """Return how long ago ``at`` (epoch seconds) was, in the largest unit that fits."""
    seconds = max(0.0, time.time() - at)
    for unit, size_s in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S)):
        if seconds >= size_s:
            return f"{seconds / size_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def failed(failures: int, reason: str, retry_at: float | None) -> str:
    """Return how often a step failed, why, and when it is retried (epoch seconds)."""
    wait_s = max(0.0, (retry_at or 0.0) - time.time())
    times = "once" if failures == 1 else f"{failures} times"
    return f"failed {times}, retried in {wait_s:.0f} s: {reason}"


def short(digest: str | None) -> str:
    """Return the start of a digest, or ``-`` for None."""
    return "-" if digest is None else digest[:_SHORT_DIGEST]
