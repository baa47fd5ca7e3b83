"""scikit-learn estimators called directly, on arrays instead of DataFrames."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gateway.worker.flavors import NotTakenError
from gateway.worker.rows.inputs import COLUMNS, TENSOR, TENSOR_NAME, Inputs

_NUMBERS = frozenset("fiu")
_LARGEST_EXACT = 2**53
"""A double holds every whole number up to this one."""


def direct(model: Any, predict_fn: str) -> Callable[[Inputs], Any] | None:
    """Return a function that predicts with the bare estimator, or None if it lacks the method."""
    predict = getattr(model.get_raw_model(), predict_fn, None)
    if predict is None:
        return None
    names = feature_names(model)

    def call(inputs: Inputs) -> Any:
        return predict(matrix(inputs, names))

    return call


def ignore_missing_names() -> None:
    """Silence the warning about arrays without column names: `matrix` checks the order."""
    warnings.filterwarnings("ignore", message="X does not have valid feature names")


def matrix(inputs: Inputs, names: Any = None) -> Any:
    """Return the inputs as a matrix, columns in the order of the signature.

    Raises:
        NotTakenError: A column is not numeric, or has a number that would be rounded beside the
            others; ``names`` have another order; or the caller labelled the rows.
    """
    if inputs.index is not None:
        raise NotTakenError("the caller labelled the rows")
    if inputs.kind == TENSOR:
        return inputs.arrays[TENSOR_NAME]
    columns = list(inputs.arrays.values())
    dtypes = {column.dtype for column in columns}
    if inputs.kind != COLUMNS or any(dtype.kind not in _NUMBERS for dtype in dtypes):
        raise NotTakenError("a column is not numeric")
    if names is not None and list(names) != list(inputs.arrays):
        raise NotTakenError("the columns differ from the training's, or have another order")
    if len(dtypes) > 1 and any(map(_would_be_rounded, columns)):
        raise NotTakenError("a whole number is too large to become a double")
    import numpy as np

    return np.array(columns).T  # column by column in memory, as in pandas, so that sums are equal


def _would_be_rounded(column: Any) -> bool:
    """Whether a column has whole numbers that a double cannot hold."""
    if column.dtype.kind == "f" or column.dtype.itemsize < 8:  # noqa: PLR2004  # bytes of 64 bits
        return False
    return bool(column.max() > _LARGEST_EXACT or column.min() < -_LARGEST_EXACT)


def feature_names(model: Any) -> Any:
    """Return the names of the training's columns in order, or None if they are unknown."""
    return getattr(model.get_raw_model(), "feature_names_in_", None)


def behind_labels(model: Any) -> list[Callable[[Any], Any]]:
    """Return the estimator's ``predict_proba`` and ``decision_function``, if it has them."""
    estimator = model.get_raw_model()
    found = (getattr(estimator, name, None) for name in ("predict_proba", "decision_function"))
    return [function for function in found if function is not None]
