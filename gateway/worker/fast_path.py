"""Calling a model without MLflow's wrapping, where that is proved to answer exactly the same."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker import warmup
from gateway.worker.flavors import NotTakenError, pytorch, scikit_learn
from gateway.worker.inputs import Inputs
from gateway.worker.served_model import Call

_TRIED_ROWS = 8
"""Of inputs of which the model does not bear every row."""
_DIRECT = {"mlflow.sklearn": scikit_learn.direct, "mlflow.pytorch": pytorch.direct}


@dataclass(frozen=True)
class CallPath:
    """How a model is called: ``fast`` or ``pyfunc``, and why."""

    path: str
    reason: str
    call: Call


def choose(
    pyfunc: Any,
    pyfunc_call: Call,
    loader: str,
    predict_fn: str,
    proofs: Sequence[Inputs],
    *,
    further: Sequence[Inputs] = (),
) -> CallPath:
    """Return the fast path if it answers every one of ``proofs`` exactly like the pyfunc.

    Of a scikit-learn estimator so do its probabilities and scores, but for rounding: they show
    what labels, of which there are few, do not. And some answers differ: equal ones tell nothing.

    Args:
        pyfunc: The ``PyFuncModel``.
        pyfunc_call: Its call, the one to equal.
        loader: The loader module in the description.
        predict_fn: The method that the pyfunc calls.
        proofs: Inputs to compare on; none means nothing can be proved.
        further: More of them, of which the pyfunc need not bear every row.
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that nobody sent
            why_not = (
                None if _same(direct, pyfunc_call, proofs) else "the bare model answers differently"
            )
            if why_not is None and loader == "mlflow.sklearn":
                why_not = _why_not_estimator(pyfunc, direct, pyfunc_call, [*proofs, *further])
    except NotTakenError as error:
        return CallPath("pyfunc", f"the bare model is not given the example: {error}", pyfunc_call)
    except Exception as error:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return CallPath("pyfunc", f"the bare model raised {type(error).__name__}", pyfunc_call)
    if why_not is not None:
        return CallPath("pyfunc", why_not, pyfunc_call)
    if loader == "mlflow.sklearn":
        scikit_learn.ignore_missing_names()
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
    on_native, on_arrays = _on_native(function), _on_arrays(function, names)
    try:
        same = bool(proofs) and _same(on_arrays, on_native, proofs)
    except Exception:  # noqa: BLE001  # whatever it raises on arrays, it is not called with them
        same = False
    return _unless_not_taken(on_arrays, on_native) if same else on_native


def _why_not_estimator(
    pyfunc: Any, direct: Call, usual: Call, proofs: Sequence[Inputs]
) -> str | None:
    """Say why an estimator is not called on arrays; None: it is the same on all that it bears."""
    said = _said(usual, proofs)
    if not _answers(direct, said, identical):
        return "the bare model answers other numbers differently"
    told = warmup.differ([answer for _, answer in said])
    names = scikit_learn.feature_names(pyfunc)
    for function in scikit_learn.behind_labels(pyfunc):
        said = _said(_on_native(function), proofs)
        if not _answers(_on_arrays(function, names), said, warmup.close):
            return "the bare model's probabilities or scores are different"
        told = told or (bool(said) and warmup.differ([answer for _, answer in said]))
    return None if told else "the answers to the example and to what it was varied to are all equal"


_Said = list[tuple[Inputs, Any]]
"""Inputs, and what is answered to them."""


def _said(call: Call, proofs: Sequence[Inputs]) -> _Said:
    """Return the answers to what a call bears: inputs, or else some of their rows."""
    said: _Said = []
    for one in proofs:
        if answer := _try(call, one):
            said.append((one, *answer))
        elif one.rows > 1:
            rows = [one.take([row]) for row in range(min(one.rows, _TRIED_ROWS))]
            said += [(row, *answer) for row in rows if (answer := _try(call, row))]
    return said


def _try(call: Call, inputs: Inputs) -> tuple[Any] | None:
    """Return the answer as the only item; None: there is none."""
    try:
        return (call(inputs.copy()),)
    except BaseException:  # noqa: BLE001  # a model may raise SystemExit too
        return None


def _answers(call: Call, said: _Said, equal: Callable[[Any, Any], bool]) -> bool:
    """Whether a call answers the same; what it does not take goes the usual way."""
    for inputs, answer in said:
        with contextlib.suppress(NotTakenError):
            if not equal(call(inputs.copy()), answer):
                return False
    return True


def _on_native(function: Callable[[Any], Any]) -> Call:
    return lambda inputs: function(inputs.native())


def _on_arrays(function: Callable[[Any], Any], names: Any) -> Call:
    return lambda inputs: function(scikit_learn.matrix(inputs, names))


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
