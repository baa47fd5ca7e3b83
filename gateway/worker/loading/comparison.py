"""Compare outputs of a model, rounding excepted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gateway.worker.rows import outputs

_RELATIVE_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""Libraries sum in another order for another number of rows. A larger difference is a fault."""


def differ(answers: Sequence[Any]) -> bool:
    """Whether any two rows of ``answers`` differ; equal answers prove nothing."""
    first = outputs.rows_of(answers[0], 0, 1)
    return any(
        not close(outputs.rows_of(answer, row, row + 1), first)
        for answer in answers
        for row in range(outputs.row_count(answer) or 0)
    )


def close(one: Any, other: Any) -> bool:
    """Whether two outputs are equal, rounding excepted."""
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
