"""Calling a model without MLflow's wrapping, where that is proved to answer exactly the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker.flavors import NotTakenError, pytorch, scikit_learn
from gateway.worker.loading import comparison
from gateway.worker.loading.proofs.prover import Ask, Asking
from gateway.worker.rows.inputs import Inputs
from gateway.worker.served_model import Call

_TRIED_ROWS = 8
"""Of inputs of which the model does not bear every row."""
_SCIKIT_LEARN = "mlflow.sklearn"
_DIRECT = {_SCIKIT_LEARN: scikit_learn.direct, "mlflow.pytorch": pytorch.direct}


@dataclass(frozen=True)
class CallPath:
    """How a model is called: ``fast`` or ``pyfunc``, and why."""

    path: str
    reason: str
    call: Call


def is_possible(loader: str) -> bool:
    """Whether models with this loader may have a fast path."""
    return loader in _DIRECT


def choose(
    pyfunc: Any,
    pyfunc_call: Call,
    loader: str,
    predict_fn: str,
    proofs: Sequence[Inputs],
    *,
    further: Sequence[Inputs] = (),
) -> Asking[CallPath]:
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
        said = yield from _identical(direct, pyfunc_call, proofs)
        why_not = "the bare model answers differently" if said is None else None
        if said is not None and loader == _SCIKIT_LEARN:
            said += yield from _said(pyfunc_call, further)
            why_not = yield from _why_not_estimator(
                pyfunc, direct, said, proved=len(proofs), tried=[*proofs, *further]
            )
    except NotTakenError as error:
        return CallPath("pyfunc", f"the bare model is not given the example: {error}", pyfunc_call)
    except Exception as error:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return CallPath("pyfunc", f"the bare model raised {type(error).__name__}", pyfunc_call)
    if why_not is not None:
        return CallPath("pyfunc", why_not, pyfunc_call)
    return _taken(direct, pyfunc_call, loader)


def take(pyfunc: Any, pyfunc_call: Call, loader: str, predict_fn: str) -> CallPath | None:
    """Return the fast path, which was proved before for these bytes; None: there is none."""
    try:
        direct = _DIRECT[loader](pyfunc, predict_fn)
    except Exception:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return None
    return None if direct is None else _taken(direct, pyfunc_call, loader)


def _taken(direct: Call, pyfunc_call: Call, loader: str) -> CallPath:
    if loader == _SCIKIT_LEARN:
        scikit_learn.ignore_missing_names()
    call = _unless_not_taken(direct, pyfunc_call)
    return CallPath("fast", "equal to the pyfunc on the input example", call)


def choose_probabilities(
    pyfunc: Any, function: Callable[[Any], Any], proofs: Sequence[Inputs]
) -> Asking[bool]:
    """Return whether ``predict_proba`` on arrays answers ``proofs`` exactly the same.

    Args:
        pyfunc: The ``PyFuncModel`` of a scikit-learn estimator.
        function: The estimator's ``predict_proba``.
        proofs: Inputs to compare on; none: a DataFrame is what it gets.
    """
    on_arrays = _on_arrays(function, scikit_learn.feature_names(pyfunc))
    try:
        said = yield from _identical(on_arrays, _on_native(function), proofs)
        return bool(said)
    except Exception:  # noqa: BLE001  # whatever it raises on arrays, it is not called with them
        return False


def probabilities(pyfunc: Any, function: Callable[[Any], Any], *, on_arrays: bool) -> Call:
    """Return the call of ``predict_proba``, on arrays where that was proved to be the same."""
    native = _on_native(function)
    if not on_arrays:
        return native
    return _unless_not_taken(_on_arrays(function, scikit_learn.feature_names(pyfunc)), native)


_Said = list[tuple[Inputs, Any]]
"""Inputs, and what is answered to them."""


def _identical(direct: Call, usual: Call, proofs: Sequence[Inputs]) -> Asking[_Said | None]:
    """Return what both calls answer; None: not the same, bit for bit."""
    said: _Said = []
    for one in proofs:
        bare = yield from _hear(direct, one)
        output = yield from _hear(usual, one)
        if not identical(bare, output):
            return None
        said.append((one, output))
    return said


def _hear(call: Call, inputs: Inputs) -> Asking[Any]:
    """Return an answer, or raise what the call raised."""
    answer = yield Ask(call, inputs)
    if isinstance(answer.raised, Exception):
        raise answer.raised
    if answer.raised is not None:  # as SystemExit would end us, it is told as what it is
        raise RuntimeError(type(answer.raised).__name__) from answer.raised
    return answer.output


def _why_not_estimator(
    pyfunc: Any, direct: Call, said: _Said, *, proved: int, tried: Sequence[Inputs]
) -> Asking[str | None]:
    """Say why an estimator is not called on arrays; None: it is the same on all that it bears.

    Args:
        pyfunc: The ``PyFuncModel``.
        direct: The call on arrays.
        said: What the pyfunc answers to what it bears.
        proved: How many of these, the first, were compared.
        tried: What probabilities and scores are compared on.
    """
    if not (yield from _answers(direct, said[proved:], identical)):
        return "the bare model answers other numbers differently"
    told = comparison.differ([answer for _, answer in said])
    names = scikit_learn.feature_names(pyfunc)
    for function in scikit_learn.behind_labels(pyfunc):
        scored = yield from _said(_on_native(function), tried)
        if not (yield from _answers(_on_arrays(function, names), scored, comparison.close)):
            return "the bare model's probabilities or scores are different"
        told = told or (bool(scored) and comparison.differ([answer for _, answer in scored]))
    return None if told else "the answers to the example and to what it was varied to are all equal"


def _said(call: Call, proofs: Sequence[Inputs]) -> Asking[_Said]:
    """Return the answers to what a call bears: inputs, or else some of their rows."""
    said: _Said = []
    for one in proofs:
        answer = yield Ask(call, one)
        if answer.raised is None:
            said.append((one, answer.output))
        elif one.rows > 1:
            for number in range(min(one.rows, _TRIED_ROWS)):
                row = one.take([number])
                answer = yield Ask(call, row)
                if answer.raised is None:
                    said.append((row, answer.output))
    return said


def _answers(call: Call, said: _Said, equal: Callable[[Any, Any], bool]) -> Asking[bool]:
    """Whether a call answers the same; what it does not take goes the usual way."""
    for inputs, expected in said:
        answer = yield Ask(call, inputs)
        if isinstance(answer.raised, NotTakenError):
            continue
        if answer.raised is not None or not equal(answer.output, expected):
            return False
    return True


def _on_native(function: Callable[[Any], Any]) -> Call:
    return lambda inputs: function(inputs.native())


def _on_arrays(function: Callable[[Any], Any], names: Any) -> Call:
    return lambda inputs: function(scikit_learn.matrix(inputs, names))


def _unless_not_taken(direct: Call, usual: Call) -> Call:
    """Return a call that goes the usual way with inputs that the direct one does not take.

    Not with rows of several requests: of many rows only the direct one was proved. It raises then.
    """

    def call(inputs: Inputs) -> Any:
        try:
            return direct(inputs)
        except NotTakenError:
            if inputs.together:
                raise
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
