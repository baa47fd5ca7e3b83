"""Check the answers that a publisher expects, in ``warmup.jsonl`` in the artifact's root.

One JSON object per line: ``request``, a body as callers send it; ``expected``, the ``predictions``
of its answer; optionally ``tolerance``. A line with another answer, or a malformed line, fails the
warm-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.worker.codecs import strict_json
from gateway.worker.loading import input_example
from gateway.worker.loading.input_example import WarmUpFailedError
from gateway.worker.rows.columns import describe_type
from gateway.worker.served_model import ServedModel

FILE = "warmup.jsonl"
TOLERANCE = 1e-5
"""Single precision differs by less if another machine's library sums in another order."""
MAX_BYTES = 8 * 1024 * 1024
MAX_LINES = 1000
_FIELDS = frozenset({"request", "expected", "tolerance"})
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class CheckedAnswers:
    """The number of lines of a check that passed, and whether an answer was not one per row."""

    count: int
    whole: bool


def check(model: ServedModel, artifact: Path) -> CheckedAnswers:
    """Predict every line as a request and compare its answer.

    Raises:
        WarmUpFailedError: A line is malformed or has another answer; names the first one.
    """
    path = artifact / FILE
    if not path.is_file():
        return CheckedAnswers(0, whole=False)
    per_row = [_check(model, *numbered) for numbered in _lines(path)]
    return CheckedAnswers(len(per_row), whole=not all(per_row))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of the file with their numbers, from 1; skip empty ones."""
    data = _bytes(path)
    lines = data.split(b"\n")
    if not data.strip():
        raise WarmUpFailedError(f"{FILE} is empty")
    if len(lines) > MAX_LINES + 1 or (len(lines) == MAX_LINES + 1 and lines[-1]):
        raise WarmUpFailedError(f"{FILE} has more than {MAX_LINES} lines")
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WarmUpFailedError(f"{FILE} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise WarmUpFailedError(f"{FILE} is larger than {MAX_BYTES // (1024 * 1024)} MiB")
    return data


def _check(model: ServedModel, number: int, line: bytes) -> bool:
    """Compare one line; return whether its answer has one item per row."""
    try:
        value = strict_json.loads(line)
    except strict_json.InvalidJsonError as error:
        raise _failed(number, "cannot be read: it is not strict JSON") from error
    if type(value) is not dict or not {"request", "expected"} <= value.keys() <= _FIELDS:
        raise _failed(
            number, "cannot be read: it must be an object of 'request', 'expected' and 'tolerance'"
        )
    tolerance = value.get("tolerance", TOLERANCE)
    if type(value["request"]) is not dict:
        raise _failed(number, "cannot be read: 'request' must be an object")
    if type(tolerance) not in {int, float} or tolerance < 0:
        raise _failed(number, "cannot be read: 'tolerance' must be a number of at least 0")
    request = strict_json.dumps(value["request"])
    answer, prediction = input_example.answer(model, request, f"{FILE}, line {number}")
    got = strict_json.loads(answer)["predictions"]
    if found := difference(got, value["expected"], tolerance):
        raise _failed(number, found, ",")
    return prediction.divisible


def _failed(line: int, reason: str, comma: str = "") -> WarmUpFailedError:
    return WarmUpFailedError(f"{FILE}, line {line}{comma} {reason}"[:_MOST_CHARACTERS])


def difference(got: Any, expected: Any, tolerance: float, where: str = "") -> str | None:
    """Return where two ``predictions`` differ and by how much, or None if they are equal.

    The text has no values. Strings, booleans and whole numbers must be equal, other numbers must
    be within the tolerance: absolute, or relative to the expected number if that allows more.
    """
    numbers, at = {int, float}, where or "the answer"
    if type(got) in numbers and type(expected) in numbers:
        return _off(got, expected, tolerance, at)
    if type(got) is not type(expected):
        return f"{at}: {describe_type(got)} where {describe_type(expected)} is expected"
    if isinstance(got, list):
        if len(got) != len(expected):
            counted = f"{where}: {len(got)} values" if where else f"{len(got)} rows"
            return f"{counted} where {len(expected)} are expected"
        items = enumerate(zip(got, expected, strict=True))
        pairs = [(f"{where}[{n}]" if where else f"row {n}", *both) for n, both in items]
    elif isinstance(got, dict):
        if got.keys() != expected.keys():
            return f"{at}: other fields than expected"
        pairs = [(f"{at}, {name[:40]!r}", got[name], expected[name]) for name in expected]
    else:
        return None if got == expected else f"{at}: another {_KINDS[type(got)]} than expected"
    found = (difference(one, other, tolerance, position) for position, one, other in pairs)
    return next((one for one in found if one), None)


def _off(got: float, expected: float, tolerance: float, where: str) -> str | None:
    if type(got) is int and type(expected) is int:
        return None if got == expected else f"{where}: off by {abs(got - expected)}"
    off, allowed = abs(got - expected), tolerance * max(1.0, abs(expected))
    if off <= allowed:
        return None
    return f"{where}: off by {off:.4g}, where {allowed:.4g} is allowed"


_KINDS = {str: "string", bool: "boolean"}
