"""The logged input example through the path of a request, and what it proves.

A failed example is a nack. A passed one also decides, by trying, whether requests may be joined
and whether the fast path may be taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker import outputs
from gateway.worker.inputs import Inputs, join
from gateway.worker.refusals import RequestRefusedError
from gateway.worker.served_model import ServedModel, log_without_data

_RELATIVE_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""Libraries sum in another order for another number of rows; more than that is an influence."""
_MAX_PROOF_ROWS = 16


class WarmUpFailedError(Exception):
    """The model does not answer its own example as it should. The message says how."""


@dataclass(frozen=True)
class Batching:
    """``joined``, or ``alone``, and why."""

    mode: str
    reason: str


def predict_example(model: ServedModel, example: bytes) -> Inputs:
    """Answer the example as a request would be; return its inputs.

    Raises:
        WarmUpFailedError: There is no answer, or not one finite answer per row.
    """
    return answer(model, example, "the input example")[1]


def answer(model: ServedModel, body: bytes, what: str) -> tuple[bytes, Inputs]:
    """Answer a body as a request would be; return the answer and the body's inputs.

    Raises:
        WarmUpFailedError: There is no answer; says why, and that it was ``what``.
    """
    try:
        return model.answer(body)
    except RequestRefusedError as refusal:
        raise WarmUpFailedError(f"{what}: {_told(refusal)}") from refusal
    except Exception as error:  # whatever the model's objects raise
        log_without_data(error)
        told = f"the model's answer could not be read: {type(error).__name__}"
        raise WarmUpFailedError(f"{what}: {told}") from error


def _told(refusal: RequestRefusedError) -> str:
    """Say a refusal in one line, with the first places where the input is wrong."""
    where = "; ".join(
        ", ".join(
            [
                *([f"row {row}"] if row is not None else []),
                *([f"field {field!r}"] if field is not None else []),
                reason,
            ]
        )
        for row, field, reason in refusal.details[:3]
    )
    return f"{refusal.message} ({where})" if where else refusal.message


def vary(example: Inputs) -> list[Inputs]:
    """Return inputs that differ from each other: rows of the example, and changed numbers.

    Numbers that are not whole are changed a little; the rest may name things, and stays.
    """
    import numpy as np

    rows = min(example.rows, _MAX_PROOF_ROWS)
    first = example.take(range(rows))
    varied = [first]
    if any(array.dtype.kind == "f" for array in first.arrays.values()):
        for step in (1, 2):
            arrays = {
                name: (array * (1 + 0.125 * step) + 0.25 * step).astype(array.dtype)
                if array.dtype.kind == "f"
                else array
                for name, array in first.arrays.items()
            }
            varied.append(Inputs(first.kind, arrays, rows, first.params))
    elif rows > 1:
        varied.extend(
            first.take([row])
            for row in range(1, rows)
            if not all(np.array_equal(a[row], a[0]) for a in first.arrays.values())
        )
    return varied


def prove_joining(model: ServedModel, varied: Sequence[Inputs]) -> Batching:
    """Find out whether inputs answer the same alone and joined with others.

    Args:
        model: The model, on the call path that will serve.
        varied: Inputs that differ, the example first.
    """
    if len(varied) < 2:  # noqa: PLR2004  # two are the fewest that can be joined
        return Batching("alone", "the input example cannot be varied")
    try:
        alone = [model.predict(inputs).output for inputs in varied]
        if any(outputs.row_count(output) is None for output in alone):
            return Batching("alone", "the model does not answer row by row")
        for order in (list(varied), list(reversed(varied))):
            expected = alone if order[0] is varied[0] else list(reversed(alone))
            together = model.predict(join(order)).output
            start = 0
            for inputs, answer in zip(order, expected, strict=True):
                part = outputs.rows_of(together, start, start + inputs.rows)
                if not close(part, answer):
                    return Batching("alone", "rows influence each other")
                start += inputs.rows
    except Exception as error:  # noqa: BLE001  # whatever the model's objects raise
        told = error.message if isinstance(error, RequestRefusedError) else type(error).__name__
        return Batching("alone", f"joined rows cannot be predicted: {told}")
    return Batching("joined", "the input example answers the same alone and joined")


def close(one: Any, other: Any) -> bool:
    """Whether two outputs are equal but for rounding."""
    dtype = str(getattr(one, "dtype", ""))
    if dtype in _RELATIVE_TOLERANCE:
        import numpy as np

        tolerance = _RELATIVE_TOLERANCE[dtype]
        return one.shape == other.shape and bool(
            np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
        )
    return _close_values(outputs.to_json(one), outputs.to_json(other))


def _close_values(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        tolerance = _RELATIVE_TOLERANCE["float64"]
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close_values(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close_values, one, other))
    return bool(one == other)
