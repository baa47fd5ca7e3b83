"""scikit-learn estimators called directly, on arrays instead of DataFrames."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gateway.worker.inputs import COLUMNS, TENSOR, TENSOR_NAME, Inputs

_NUMBERS = frozenset("fiu")


def direct(model: Any, predict_fn: str) -> Callable[[Inputs], Any] | None:
    """Return a function that predicts with the bare estimator; None if that cannot be right."""
    estimator = _estimator(model)
    predict = getattr(estimator, predict_fn, None)
    if predict is None:
        return None
    names = getattr(estimator, "feature_names_in_", None)

    def call(inputs: Inputs) -> Any:
        return predict(matrix(inputs, names))

    # Said once per call, for every call: the names are known to be in order, see ``matrix``.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    return call


def matrix(inputs: Inputs, names: Any = None) -> Any:
    """Return the inputs as a matrix, columns in the order of the signature.

    Raises:
        ValueError: A column holds no numbers, or ``names`` are in another order.
    """
    if inputs.kind == TENSOR:
        return inputs.arrays[TENSOR_NAME]
    if inputs.kind != COLUMNS or any(a.dtype.kind not in _NUMBERS for a in inputs.arrays.values()):
        raise ValueError("a column holds no numbers")
    if names is not None and list(names) != list(inputs.arrays):
        raise ValueError("the columns are not those of the training, in that order")
    import numpy as np

    return np.column_stack(list(inputs.arrays.values()))


def probabilities(model: Any) -> tuple[Callable[[Any], Any], list[Any]] | None:
    """Return ``predict_proba`` and the class names, if the estimator has both, and one output.

    With several outputs both are lists, one item for each output rather than for each row.
    """
    estimator = _estimator(model)
    classes = getattr(estimator, "classes_", None)
    function = getattr(estimator, "predict_proba", None)
    if classes is None or isinstance(classes, list) or function is None:
        return None
    return function, list(classes.tolist())


def _estimator(model: Any) -> Any:
    """Return the bare estimator in a ``PyFuncModel``."""
    return model.get_raw_model()
