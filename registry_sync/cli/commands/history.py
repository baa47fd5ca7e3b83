"""The command history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from registry_sync.cli.arguments import AsJson
from registry_sync.cli.client import call
from registry_sync.cli.output import print_answer, print_note, print_table
from registry_sync.cli.tables import Column, Row
from registry_sync.domain import History, HistoryEntry

_COLUMNS = (
    Column("when", 1),
    Column("subject"),
    Column("what"),
    Column("version"),
    Column("outcome"),
    Column("by", 2),
    Column("duration", 3),
)


def history(
    model: Annotated[str | None, typer.Argument(help="A model; by default all.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Newest entries to show.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show every change: initiator, old and new version, outcome and duration."""
    query: dict[str, Any] = {"limit": limit} | ({"model": model} if model else {})
    answer = call("GET", "/history", History, params=query)
    print_answer(answer, lambda found: _print_history(found, model), as_json=as_json)


def _print_history(answer: History, model: str | None) -> None:
    if answer.entries:
        print_entries(answer.entries)
    else:
        print_note(f"There is no history of {model or 'any model'}.")


def print_entries(entries: Iterable[HistoryEntry]) -> None:
    """Print a table with a row for each entry, and its reason and its phases below it."""
    print_table(_COLUMNS, map(_row, entries))


def _row(entry: HistoryEntry) -> Row:
    styles = {"complete": "green", "failed": "yellow", "refused": "red"}
    cells = [
        Text(datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")),
        Text(_subject(entry)),
        Text(entry.what),
        Text(_version(entry)),
        Text(entry.outcome, style=styles.get(entry.outcome, "")),
        Text(entry.asked_by or "-"),
        Text(_whole_duration(entry.durations_s)),
    ]
    notes = [Text(one) for one in (entry.reason, _phases(entry.durations_s)) if one]
    return Row(cells, notes)


def _subject(entry: HistoryEntry) -> str:
    if entry.model is None:
        return "(this node)"
    return f"{entry.model}@{entry.alias}" if entry.alias else entry.model


def _version(entry: HistoryEntry) -> str:
    version = "-" if entry.version is None else str(entry.version)
    return version if entry.previous is None else f"{entry.previous} → {version}"


def _whole_duration(durations_s: dict[str, float]) -> str:
    whole_s = sum(seconds for phase, seconds in durations_s.items() if "." not in phase)
    return f"{whole_s:.2f} s" if durations_s else "-"


def _phases(durations_s: dict[str, float]) -> str:
    """Return the seconds of each phase if there are several; a part is named after its phase."""
    if len(durations_s) < 2:  # noqa: PLR2004  # one is the whole
        return ""
    return ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in durations_s.items())
