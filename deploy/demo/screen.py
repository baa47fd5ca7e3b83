"""Output of the demonstration: colour and a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table

MOST_LINES = 24
"""Lines of an answer that are shown."""


class Screen:
    """Prints the story. Lines that a reader may copy are never wrapped."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, text: str) -> None:
        """Print the headline of the demonstration."""
        self._console.print()
        self._console.print(Rule(f"[bold cyan]{escape(text)}[/]"))

    def step(self, number: int, of: int, name: str, title: str) -> None:
        """Print the headline of a step."""
        self._console.print()
        left = f"[bold]step {number} of {of} · {escape(name)}[/]"
        self._console.print(Rule(f"{left} · {escape(title)}", align="left", style="cyan"))

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def shell(self, command: str) -> None:
        """Print a command that the reader could type."""
        self._console.print()
        self._console.print(
            f"[bold green]$[/] [bold]{escape(command)}[/]", highlight=False, soft_wrap=True
        )

    def output(self, text: str) -> None:
        """Print the output of a command."""
        for line in text.strip().splitlines():
            self._console.print(f"  [dim]{escape(line)}[/]", highlight=False, soft_wrap=True)

    def answer(self, status: int, reason: str, headers: Mapping[str, str], body: Any) -> None:
        """Print an answer: its status, the headers that name the version, and its body."""
        colour = "green" if status < 300 else "yellow"  # noqa: PLR2004 (HTTP's success)
        self._console.print(f"  [{colour}]{status} {escape(reason)}[/]", highlight=False)
        for name, value in headers.items():
            line = f"  [magenta]{escape(name)}[/]: {escape(value)}"
            self._console.print(line, highlight=False, soft_wrap=True)
        lines = body.splitlines() if isinstance(body, str) else _pretty(body)
        for line in lines[:MOST_LINES]:
            self._console.print(f"  {escape(line)}", soft_wrap=True)
        if len(lines) > MOST_LINES:
            self._console.print(f"  … and {len(lines) - MOST_LINES} lines more", style="dim")

    def held(self, text: str) -> None:
        """Print a condition that was checked and holds."""
        self._console.print(f"[bold green]✔[/] {escape(text)}", highlight=False, soft_wrap=True)

    def failed(self, text: str) -> None:
        """Print a failure."""
        self._console.print()
        self._console.print(f"[bold red]✘ {escape(text)}[/]", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show for the block that it takes a while."""
        if self._console.is_terminal:
            with self._console.status(escape(text)):
                yield
        else:
            self._console.print(f"… {escape(text)}", highlight=False, soft_wrap=True)
            yield

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a small table."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._console.print()
        self._console.print(table)


def _pretty(body: Any) -> list[str]:
    """Return JSON as lines, with short lists and objects on one line."""
    short = json.dumps(body, ensure_ascii=False)
    if len(short) <= 96:  # noqa: PLR2004 (fits a terminal)
        return [short]
    if not isinstance(body, dict | list) or not body:
        return [short]
    if isinstance(body, list):
        return json.dumps(body, ensure_ascii=False, indent=2).splitlines()
    lines = ["{"]
    for name, value in body.items():
        inner = _pretty(value)
        lines.append(f"  {json.dumps(name)}: {inner[0]}")
        lines += [f"  {line}" for line in inner[1:]]
        lines[-1] += ","
    lines[-1] = lines[-1].removesuffix(",")
    return [*lines, "}"]
