"""Tables for terminals of any width: a name or a version is never cut.

Where a table is wider than the terminal, columns are left out, those of the highest rank first.
Where the others are too wide still, a first cell that is too long gets a line of its own. Reasons
are lines below their row. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

_GAP = "  "
_INDENT = "    "
_LEAST_WIDTH = 20
_WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True, slots=True)
class Column:
    """A column; one of rank 0 is never left out."""

    title: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A row: a cell for each column, and lines below it."""

    cells: Sequence[Text]
    notes: Sequence[Text] = ()


def lay_out(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> Iterator[Text]:
    """Yield the lines of a table; ``width`` is the terminal's, or None for a file or a pipe."""
    shown = _shown(columns, rows, width)
    widths = _widths(columns, rows, shown)
    if width is not None:  # the first column gets what the others leave
        least = columns[shown[0]].title
        widths[0] = max(len(least), min(widths[0], width - _total(widths[1:]) - len(_GAP)))
    yield from _lines([Text(columns[at].title, "bold") for at in shown], widths)
    for row in rows:
        yield from _lines([row.cells[at] for at in shown], widths)
        for note in row.notes:
            yield from wrapped(note, width, _INDENT)


def _shown(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> list[int]:
    """Return the columns that fit, by their numbers."""
    shown = list(range(len(columns)))
    while width is not None and _total(_widths(columns, rows, shown)) > width:
        last = max(shown, key=lambda at: columns[at].rank)
        if columns[last].rank == 0:
            break
        shown.remove(last)
    return shown


def _widths(columns: Sequence[Column], rows: Sequence[Row], shown: Sequence[int]) -> list[int]:
    return [
        max(len(columns[at].title), *(row.cells[at].cell_len for row in rows), 0) for at in shown
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _lines(cells: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
    """Yield the line of a row, or two if the first cell is longer than its column."""
    if cells[0].cell_len <= widths[0]:
        yield _joined(cells, widths)
        return
    yield cells[0]
    if rest := _joined(cells[1:], widths[1:]):
        yield Text(_INDENT) + rest


def _joined(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell)
        line.append(" " * (width - cell.cell_len) + _GAP)
    line.rstrip()
    return line


def wrapped(text: Text, width: int | None, indent: str = "") -> Iterator[Text]:
    """Yield the lines of a sentence, broken between words; a word is never cut."""
    if width is None:
        yield Text(indent) + text
        return
    room = max(_LEAST_WIDTH, width - len(indent))
    for line in text.divide(_breaks(text.plain, room)):
        line.rstrip()
        yield Text(indent) + line


def _breaks(text: str, room: int) -> Iterator[int]:
    """Yield where lines begin: before each word that does not fit beside those before it."""
    start = 0
    for word in _WORD.finditer(text):
        if word.start() > start and cell_len(text[start : word.end()].rstrip()) > room:
            start = word.start()
            yield start
