"""Calling a model without MLflow's wrapping, where that is proved to answer exactly the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker.flavors import pytorch, scikit_learn
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
        same = all(identical(direct(inputs), pyfunc_call(inputs)) for inputs in proofs)
    except Exception as error:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return CallPath("pyfunc", f"the bare model raised {type(error).__name__}", pyfunc_call)
    if not same:
        return CallPath("pyfunc", "the bare model answers differently", pyfunc_call)
    return CallPath("fast", "equal to the pyfunc on the input example", direct)


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
