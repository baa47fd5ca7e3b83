"""What `make mutants` makes of a function."""

from dataclasses import dataclass, field

import pytest

from tests.mutants.operators import Mutant, mutants
from tests.mutants.workshop import Workshop

CODE = b'''
class Shelf:
    def __init__(self, most):
        self.most = most

    def put(self, book, *, lend=1):
        """Text."""
        if book is None and self.most < 3:
            raise ValueError("no book")
        with contextlib.suppress(OSError):
            self.books += 1
        _log.info("book.put")
        self._telemetry.books.labels("x").inc()
        try:
            os.fsync(self.file)
        finally:
            self.close()
            self.note(min(self.most, 7))
        return self.books - 1

    def is_full(self) -> bool:
        return not self.left
'''


def _sabotages() -> dict[str, str]:
    """Return by operator and number what each one makes of its text."""
    found = list(mutants("shelf", CODE))
    assert len({one.key for one in found}) == len(found)
    return {one.key.partition(" | ")[2]: one.text for one in found}


def test_conditions_bounds_and_answers_are_changed() -> None:
    found = _sabotages()
    condition = "book is None and self.most < 3"
    assert found[f"negate | {condition}"] == f"(not ({condition}))"
    assert found[f"and to or | {condition}"] == "((book is None) or (self.most < 3))"
    assert found[f"bound | self.most < 3 in if {condition}:"] == "(self.most <= 3)"
    assert found[f"off by one | 3 in if {condition}:"] == "(3 + 1)"
    assert found[f"opposite | book is None in if {condition}:"] == "(book is not None)"
    assert found["opposite answer | not self.left in return not self.left"] == "(self.left)"
    assert found["no answer | self.books - 1 in return self.books - 1"] == "None"
    assert found["other end | min in self.note(min(self.most, 7))"] == "max"


def test_calls_refusals_and_cleanups_are_dropped() -> None:
    found = _sabotages()
    assert found['drop | raise ValueError("no book")'] == "pass"
    assert found["drop | os.fsync(self.file) in os.fsync(self.file)"] == "pass"
    assert found["drop finally | self.close() self.note(min(self.most, 7))"] == "pass"
    assert found["unsuppress | contextlib.suppress(OSError)"] == "contextlib.suppress()"


def test_reports_and_what_a_constructor_stores_stay() -> None:
    kept = ("_log", "_telemetry", "self.most = most")
    assert not [key for key in _sabotages() if any(text in key for text in kept)]


def test_a_sabotage_changes_its_text_only() -> None:
    for one in mutants("shelf", CODE):
        assert one.applied == CODE[: one.start] + one.text.encode() + CODE[one.end :]
        compile(one.applied, "shelf", "exec")


@dataclass
class Bench(Workshop):
    """A workshop in which a test fails as the case says, without pytest."""

    noticing: frozenset[str]
    failing: frozenset[str]
    ran: list[list[str]] = field(default_factory=list)

    def _sabotaged(self, mutant: Mutant, groups: list[dict[str, float]]) -> str | None:
        return next((one for of in groups for one in of if one in self.noticing), None)

    def _first_killer(self, groups: list[dict[str, float]]) -> str | None:
        self.ran.append([one for of in groups for one in of])
        return next((one for one in self.ran[-1] if one in self.failing), None)


@pytest.mark.parametrize(
    ("noticing", "failing", "killer", "ran"),
    [
        ({"tests/a.py::b"}, set(), "tests/a.py::b", [["tests/a.py::b"]]),
        ({"tests/a.py::b"}, {"tests/a.py::b"}, None, [["tests/a.py::b"]]),
        (
            {"tests/a.py::b", "tests/a.py::c"},
            {"tests/a.py::b"},
            "tests/a.py::c",
            [["tests/a.py::b"], ["tests/a.py::c"]],
        ),
    ],
)
def test_what_fails_without_the_sabotage_has_noticed_nothing(
    noticing: set[str], failing: set[str], killer: str | None, ran: list[list[str]]
) -> None:
    bench = Bench(frozenset(noticing), frozenset(failing))
    mutant = next(iter(mutants("shelf", CODE)))
    groups = [{"tests/a.py::b": 0.1}, {"tests/a.py::c": 0.1}]
    assert bench.run(mutant, groups).killer == killer
    assert bench.ran == ran
