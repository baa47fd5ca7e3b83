"""Calling a model without MLflow's wrapping, where that is proved to answer exactly the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker.flavors import NotTakenError, pytorch, scikit_learn
from gateway.worker.inputs import Inputs
from gateway.worker.served_model import Call

_DIRECT = {"mlflow.sklearn": scikit_learn.direct, "mlflow.pytorch": pytorch.direct}


@dataclass(frozen=True)
class CallPath:
    """How a model is called: ``fast`` or ``pyfunc``, and why."""

    path: str
    reason: str
    call: Call


def choose(
    pyfunc: Any, pyfunc_call: Call, loader: str, predict_fn: str, proofs: Sequence[Inputs]
) -> CallPath:
    """Return the fast path if it answers every one of ``proofs`` exactly like the pyfunc.

    Args:
        pyfunc: The ``PyFuncModel``.
        pyfunc_call: Its call, the one to equal.
        loader: The loader module in the description.
        predict_fn: The method that the pyfunc calls.
        proofs: Inputs to compare on; none means nothing can be proved.
    """
    if loader not in _DIRECT:
        return CallPath("pyfunc", f"{loader or 'this loader'} has no fast path", pyfunc_call)
    if not proofs:
        return CallPath("pyfunc", "there is no input example to prove another path", pyfunc_call)
    if any(inputs.params for inputs in proofs):
        return CallPath("pyfunc", "the model takes params", pyfunc_call)
    try:
        direct = _DIRECT[loader](pyfunc, predict_fn)
        if direct is None:
            return CallPath("pyfunc", "the bare model cannot be called", pyfunc_call)
        same = _same(direct, pyfunc_call, proofs)
    except NotTakenError as error:
        return CallPath("pyfunc", f"the bare model is not given the example: {error}", pyfunc_call)
    except Exception as error:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return CallPath("pyfunc", f"the bare model raised {type(error).__name__}", pyfunc_call)
    if not same:
        return CallPath("pyfunc", "the bare model answers differently", pyfunc_call)
    call = _unless_not_taken(direct, pyfunc_call)
    return CallPath("fast", "equal to the pyfunc on the input example", call)


def choose_probabilities(
    pyfunc: Any, function: Callable[[Any], Any], proofs: Sequence[Inputs]
) -> Call:
    """Return the call of ``predict_proba``, on arrays if it answers ``proofs`` exactly the same.

    Args:
        pyfunc: The ``PyFuncModel`` of a scikit-learn estimator.
        function: The estimator's ``predict_proba``.
        proofs: Inputs to compare on; none: a DataFrame is what it gets.
    """
    names = scikit_learn.feature_names(pyfunc)

    def on_native(inputs: Inputs) -> Any:
        return function(inputs.native())

    def on_arrays(inputs: Inputs) -> Any:
        return function(scikit_learn.matrix(inputs, names))

    try:
        same = bool(proofs) and _same(on_arrays, on_native, proofs)
    except Exception:  # noqa: BLE001  # whatever it raises on arrays, it is not called with them
        same = False
    return _unless_not_taken(on_arrays, on_native) if same else on_native


def _same(direct: Call, usual: Call, proofs: Sequence[Inputs]) -> bool:
    return all(identical(direct(inputs.copy()), usual(inputs.copy())) for inputs in proofs)


def _unless_not_taken(direct: Call, usual: Call) -> Call:
    """Return a call that goes the usual way with inputs that the direct one does not take."""

    def call(inputs: Inputs) -> Any:
        try:
            return direct(inputs)
        except NotTakenError:
            return usual(inputs)

    return call


def identical(one: Any, other: Any) -> bool:
    """Whether two outputs are the same kind of array, bit for bit."""
    import numpy as np

    if type(one) is not type(other) or not isinstance(one, np.ndarray):
        return False
    return bool(
        one.dtype == other.dtype
        and one.shape == other.shape
        and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    )
