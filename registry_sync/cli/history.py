"""The command history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from registry_sync.cli.arguments import AsJson
from registry_sync.cli.client import call
from registry_sync.cli.output import (
    print_answer,
    print_note,
    table_console,
)
from registry_sync.domain import History, HistoryEntry


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
        table_console().print(history_table(answer.entries))
    else:
        print_note(f"There is no history of {model or 'any model'}.")


def history_table(entries: list[HistoryEntry]) -> Table:
    """Return a table with a row for each entry."""
    table = Table(
        "when", "model", "what", "version", "by", "outcome", "duration", "reason", box=None
    )
    for entry in entries:
        table.add_row(*_history_row(entry))
    return table


def _history_row(entry: HistoryEntry) -> list[Text]:
    what = f"{entry.what} @{entry.alias}" if entry.alias else entry.what
    version = "-" if entry.version is None else str(entry.version)
    if entry.previous is not None:
        version = f"{entry.previous} → {version}"
    styles = {"complete": "green", "failed": "yellow", "refused": "red"}
    return [
        Text(datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")),
        Text(entry.model or "(this node)"),
        Text(what),
        Text(version),
        Text(entry.asked_by or "-"),
        Text(entry.outcome, style=styles.get(entry.outcome, "")),
        Text(_duration(entry.durations_s)),
        Text(entry.reason or ""),
    ]


def _duration(durations_s: dict[str, float]) -> str:
    """Return the duration in all, and that of each phase if there are several."""
    if not durations_s:
        return ""
    whole_s = sum(seconds for phase, seconds in durations_s.items() if "." not in phase)
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in durations_s.items())
    return f"{whole_s:.2f} s" + (f" ({phases})" if len(durations_s) > 1 else "")
