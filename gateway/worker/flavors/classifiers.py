"""Class probabilities of classifiers with ``predict_proba``.

They have one item per row. For a model with one output, it is a list with a number per class, or
per label if rows may have several; for a model with several outputs, one such list per output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

_LOADERS = frozenset({"mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost"})


class Probabilities(NamedTuple):
    """The class probabilities of a classifier.

    Attributes:
        function: Predicts them for a DataFrame or an array.
        class_names: The names of its classes, or a list of such for each of several outputs; empty
            if it has no names, as a mixture, whose components are numbered from 0.
    """

    function: Callable[[Any], Any]
    class_names: list[Any]


def probabilities(model: Any, loader: str) -> Probabilities | str:
    """Return the class probabilities of a ``PyFuncModel``, or why it has none."""
    if loader not in _LOADERS:
        return (
            "the model has no class probabilities: classifiers of scikit-learn, XGBoost, LightGBM "
            f"and CatBoost have them, and this one is loaded by {loader or 'a loader of its own'}"
        )
    bare = model.get_raw_model()
    function = getattr(bare, "predict_proba", None)
    if function is None:
        name = type(bare).__name__
        return f"the model has no class probabilities: {name} has no predict_proba"
    classes = getattr(bare, "classes_", None)
    if isinstance(classes, list):
        named = [_plain(one) for one in _by_output(bare, classes)]
        return Probabilities(_of_outputs(function), named)
    return Probabilities(function, [] if classes is None else _plain(classes))


def names_of(class_names: list[Any], likely: Any) -> list[Any]:
    """Return the name of each column of probabilities: its class, or its number.

    If rows may have several labels, the columns are labels, and a library names only two classes.
    """
    first = likely[0] if isinstance(likely, list) and likely else None
    if not isinstance(first, list) or len(first) == len(class_names):
        return class_names
    return list(range(len(first)))


def _by_output(model: Any, classes: list[Any]) -> list[Any]:
    """Return the classes of each output in the order of the outputs.

    A chain lists them in the order in which it calls its classifiers.
    """
    order = getattr(_innermost(model), "order_", None)
    if order is None:
        return classes
    return [one for _, one in sorted(zip(order, classes, strict=True), key=lambda pair: pair[0])]


def _innermost(model: Any) -> Any:
    """Return the last step of a pipeline, the best estimator of a search, or the model itself."""
    while True:
        if steps := getattr(model, "steps", None):
            model = steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            return model


def _of_outputs(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return ``function`` with its answer by row instead of by output."""

    def call(data: Any) -> Any:
        import numpy as np

        answer = function(data)
        if not isinstance(answer, list):  # of a chain: only the second class of each output
            return np.stack([1 - answer, answer], axis=-1)
        if len({output.shape[1] for output in answer}) == 1:
            return np.stack(answer, axis=1)
        return [list(row) for row in zip(*answer, strict=True)]

    return call


def _plain(classes: Any) -> list[Any]:
    return list(classes.tolist() if hasattr(classes, "tolist") else classes)
