"""A table on any terminal: names and versions are whole, reasons have lines of their own."""

import pytest
from rich.text import Text

from registry_sync.cli.tables import Column, Row, lay_out

COLUMNS = [Column("alias"), Column("version"), Column("since", 1), Column("digest", 2)]
LONG = "a-model-whose-name-is-as-long-as-a-whole-line-of-a-terminal-from-the-eighties@champion"
REASON = "version 3 was rejected: its warm-up failed with a ValueError in the model's own code"


def row(name: str, *notes: str) -> Row:
    cells = [name, "2 → 3", "3 min ago", "sha256:0123456789ab"]
    return Row([Text(one) for one in cells], [Text(one) for one in notes])


def table(width: int | None, *rows: Row) -> list[str]:
    return [line.plain for line in lay_out(COLUMNS, rows, width)]


def test_a_wide_terminal_shows_every_column() -> None:
    assert table(100, row("churn@champion")) == [
        "alias           version  since      digest",
        "churn@champion  2 → 3    3 min ago  sha256:0123456789ab",
    ]


def test_a_narrow_terminal_leaves_columns_out_by_their_rank() -> None:
    assert table(40, row("churn@champion"))[1] == "churn@champion  2 → 3    3 min ago"
    assert table(25, row("churn@champion"))[1] == "churn@champion  2 → 3"


def test_a_name_that_is_too_long_beside_others_has_a_line_of_its_own() -> None:
    beside = " " * (80 - len("  version"))
    assert table(80, row("churn@champion"), row(LONG)) == [
        f"alias{beside[5:]}  version",
        f"churn@champion{beside[14:]}  2 → 3",
        LONG,
        "    2 → 3",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200, None])
def test_nothing_of_a_name_a_version_or_a_reason_is_cut(width: int | None) -> None:
    text = "\n".join(table(width, row("churn@champion", REASON), row(LONG, REASON)))
    assert "churn@champion" in text
    assert LONG in text
    assert text.count("2 → 3") == 2
    assert " ".join(text.split()).count(REASON) == 2


def test_a_reason_is_broken_between_words_on_a_terminal_and_is_one_line_in_a_pipe() -> None:
    lines = table(40, row("churn@champion", REASON))[2:]
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("    ") for line in lines)
    assert table(None, row("churn@champion", REASON))[2] == f"    {REASON}"


def test_a_table_without_rows_has_its_titles() -> None:
    assert table(80) == ["alias  version  since  digest"]
