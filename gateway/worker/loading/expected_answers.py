"""The answers that a publisher expects of a version, in ``warmup.jsonl`` in its artifact's root.

One JSON object per line: ``request``, a body as callers send it; ``expected``, the ``predictions``
of its answer; and ``tolerance``, where the usual one does not fit. A line that is not answered as
it says, or that cannot be read, fails the warm-up.
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
"""Single precision, summed in another order by another machine's library, differs by less."""
MAX_BYTES = 8 * 1024 * 1024
MAX_LINES = 1000
_FIELDS = frozenset({"request", "expected", "tolerance"})
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Expectation:
    """One line of the file.

    Attributes:
        line: Its number, from 1.
        tolerance: By how much a number may be off, absolutely or, where that is more, in relation
            to the expected one. 0: not at all.
    """

    line: int
    request: bytes
    predictions: Any
    tolerance: float


@dataclass(frozen=True)
class Checked:
    """What is known once every line was answered as it says.

    Attributes:
        count: How many lines there are.
        whole: Whether an answer among them was not one per row: none of the model's are divided.
    """

    count: int
    whole: bool


def check(model: ServedModel, artifact: Path) -> Checked:
    """Have the model answer every line as a request would be.

    Raises:
        WarmUpFailedError: The first line that is answered otherwise, or cannot be read.
    """
    path = artifact / FILE
    if not path.is_file():
        return Checked(0, whole=False)
    per_row = [_check(model, one) for one in read(_bytes(path))]
    return Checked(len(per_row), whole=not all(per_row))


def read(data: bytes) -> Iterator[Expectation]:
    """Yield the lines of the file; empty ones count, and say nothing.

    Raises:
        WarmUpFailedError: There is none, there are too many, or the next one cannot be read.
    """
    lines = data.split(b"\n")
    if not data.strip():
        raise WarmUpFailedError(f"{FILE} holds no line")
    if len(lines) > MAX_LINES + 1 or (len(lines) == MAX_LINES + 1 and lines[-1]):
        raise WarmUpFailedError(f"{FILE} has more than {MAX_LINES} lines")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _expectation(number, line)


def difference(got: Any, expected: Any, tolerance: float) -> str | None:
    """Say where two ``predictions`` differ and by how much; None: they do not.

    The values themselves are not said. Strings, truth values and whole numbers are compared
    exactly, other numbers with the tolerance.
    """
    if type(got) is list and type(expected) is list:
        if len(got) != len(expected):
            return f"{len(got)} rows where {len(expected)} are expected"
        for row, (one, other) in enumerate(zip(got, expected, strict=True)):
            if told := _difference(one, other, tolerance, f"row {row}"):
                return told
        return None
    return _difference(got, expected, tolerance, "the answer")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WarmUpFailedError(f"{FILE} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise WarmUpFailedError(f"{FILE} is larger than {MAX_BYTES // (1024 * 1024)} MiB")
    return data


def _expectation(number: int, line: bytes) -> Expectation:
    try:
        value = strict_json.loads(line)
    except strict_json.InvalidJsonError as error:
        raise _failed(number, "cannot be read: it is not strict JSON") from error
    if type(value) is not dict or not {"request", "expected"} <= value.keys() <= _FIELDS:
        raise _failed(
            number, "cannot be read: it is no object of 'request', 'expected' and 'tolerance'"
        )
    tolerance = value.get("tolerance", TOLERANCE)
    if type(value["request"]) is not dict:
        raise _failed(number, "cannot be read: 'request' is not an object")
    if type(tolerance) not in {int, float} or tolerance < 0:
        raise _failed(number, "cannot be read: 'tolerance' is no number from 0 on")
    request = strict_json.dumps(value["request"])
    return Expectation(number, request, value["expected"], float(tolerance))


def _check(model: ServedModel, one: Expectation) -> bool:
    """Compare one line; return whether its answer was one per row."""
    answer, prediction = input_example.answer(model, one.request, f"{FILE}, line {one.line}")
    got = strict_json.loads(answer)["predictions"]
    if told := difference(got, one.predictions, one.tolerance):
        raise _failed(one.line, told, ",")
    return prediction.divisible


def _failed(line: int, reason: str, comma: str = "") -> WarmUpFailedError:
    return WarmUpFailedError(f"{FILE}, line {line}{comma} {reason}"[:_MOST_CHARACTERS])


def _difference(got: Any, expected: Any, tolerance: float, where: str) -> str | None:
    numbers = {int, float}
    if type(got) in numbers and type(expected) in numbers:
        return _off(got, expected, tolerance, where)
    if type(got) is not type(expected):
        return f"{where}: {describe_type(got)} where {describe_type(expected)} is expected"
    if isinstance(got, list):
        if len(got) != len(expected):
            return f"{where}: {len(got)} values where {len(expected)} are expected"
        pairs = [(f"{where}[{n}]", *both) for n, both in enumerate(zip(got, expected, strict=True))]
    elif isinstance(got, dict):
        if got.keys() != expected.keys():
            return f"{where}: other fields than are expected"
        pairs = [(f"{where}, {name[:40]!r}", got[name], expected[name]) for name in expected]
    else:
        return None if got == expected else f"{where}: another {_KINDS[type(got)]} than is expected"
    told = (_difference(one, other, tolerance, place) for place, one, other in pairs)
    return next((one for one in told if one), None)


def _off(got: float, expected: float, tolerance: float, where: str) -> str | None:
    if type(got) is int and type(expected) is int:
        return None if got == expected else f"{where}: off by {abs(got - expected)}"
    off, allowed = abs(got - expected), tolerance * max(1.0, abs(expected))
    if off <= allowed:
        return None
    return f"{where}: off by {off:.4g}, where {allowed:.4g} is allowed"


_KINDS = {str: "string", bool: "truth value"}
