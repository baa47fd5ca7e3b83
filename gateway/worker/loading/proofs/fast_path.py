"""The proof that a model called without MLflow's wrapper gives exactly the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.worker.flavors import NotTakenError, pytorch, scikit_learn
from gateway.worker.loading import comparison
from gateway.worker.loading.proofs.prover import Asking, Question
from gateway.worker.rows.inputs import Inputs
from gateway.worker.served_model import Call

_TRIED_ROWS = 8
"""The most rows that are tried one by one if the model rejects an input as a whole."""
UNCALLABLE = "the bare model cannot be called"
_SCIKIT_LEARN = "mlflow.sklearn"
_DIRECT = {_SCIKIT_LEARN: scikit_learn.direct, "mlflow.pytorch": pytorch.direct}


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
) -> Asking[tuple[Call | None, str]]:
    """Return a path that answers all ``proofs`` exactly like the pyfunc, or None; and why.

    The probabilities and scores of a scikit-learn estimator must be equal too, rounding excepted:
    they reveal differences that do not change a label. Some answers must differ from each other,
    since equal answers prove nothing.

    Args:
        pyfunc: The ``PyFuncModel``.
        pyfunc_call: Its call.
        loader: The loader module in the description.
        predict_fn: The method that the pyfunc calls.
        proofs: Inputs to compare on; without any, nothing is proved.
        further: More inputs; rows that the pyfunc rejects are skipped.
    """
    if loader not in _DIRECT:
        return None, f"{loader or 'this loader'} has no fast path"
    if not proofs:
        return None, "there is no input example to prove another path"
    if any(inputs.params for inputs in proofs):
        return None, "the model takes params"
    try:
        direct = _DIRECT[loader](pyfunc, predict_fn)
        if direct is None:
            return None, UNCALLABLE
        answered = yield from _identical(direct, pyfunc_call, proofs)
        why_not = "the bare model answers differently" if answered is None else None
        if answered is not None and loader == _SCIKIT_LEARN:
            answered += yield from _accepted(pyfunc_call, further)
            why_not = yield from _why_not_estimator(
                pyfunc, direct, answered, proved=len(proofs), tried=[*proofs, *further]
            )
    except NotTakenError as error:
        return None, f"the bare model cannot take the example: {error}"
    except Exception as error:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return None, f"the bare model raised {type(error).__name__}"
    if why_not is not None:
        return None, why_not
    return _taken(direct, pyfunc_call, loader), "equal to the pyfunc on the input example"


def take(pyfunc: Any, pyfunc_call: Call, loader: str, predict_fn: str) -> Call | None:
    """Return the fast path proved earlier for these bytes, or None if it cannot be built."""
    try:
        direct = _DIRECT[loader](pyfunc, predict_fn)
    except Exception:  # noqa: BLE001  # whatever a bare model raises, the pyfunc serves
        return None
    return None if direct is None else _taken(direct, pyfunc_call, loader)


def _taken(direct: Call, pyfunc_call: Call, loader: str) -> Call:
    if loader == _SCIKIT_LEARN:
        scikit_learn.ignore_missing_names()
    return _unless_not_taken(direct, pyfunc_call)


def choose_probabilities(
    pyfunc: Any, function: Callable[[Any], Any], proofs: Sequence[Inputs]
) -> Asking[bool]:
    """Return whether ``predict_proba`` on arrays answers ``proofs`` exactly the same.

    Without any proofs it is given DataFrames.
    """
    on_arrays = _on_arrays(function, scikit_learn.feature_names(pyfunc))
    try:
        answered = yield from _identical(on_arrays, _on_native(function), proofs)
        return bool(answered)
    except Exception:  # noqa: BLE001  # an estimator that fails on arrays gets DataFrames
        return False


def probabilities(pyfunc: Any, function: Callable[[Any], Any], *, on_arrays: bool) -> Call:
    """Return the call of ``predict_proba``, on arrays if that was proved equal."""
    native = _on_native(function)
    if not on_arrays:
        return native
    return _unless_not_taken(_on_arrays(function, scikit_learn.feature_names(pyfunc)), native)


_Answered = list[tuple[Inputs, Any]]
"""Inputs with their answers."""


def _identical(direct: Call, usual: Call, proofs: Sequence[Inputs]) -> Asking[_Answered | None]:
    """Return the answers of both calls, or None if they differ in one bit."""
    answered: _Answered = []
    for one in proofs:
        bare = yield from _answer_of(direct, one)
        output = yield from _answer_of(usual, one)
        if not identical(bare, output):
            return None
        answered.append((one, output))
    return answered


def _answer_of(call: Call, inputs: Inputs) -> Asking[Any]:
    """Return an answer, or raise what the call raised."""
    answer = yield Question(call, inputs)
    if isinstance(answer.raised, Exception):
        raise answer.raised
    if answer.raised is not None:  # SystemExit and the like would end the worker
        raise RuntimeError(type(answer.raised).__name__) from answer.raised
    return answer.output


def _why_not_estimator(
    pyfunc: Any, direct: Call, answered: _Answered, *, proved: int, tried: Sequence[Inputs]
) -> Asking[str | None]:
    """Return why an estimator is not called on arrays, or None if its answers are equal.

    The first ``proved`` answers of the pyfunc were compared already. Probabilities and scores are
    compared on ``tried``.
    """
    if not (yield from _are_equal(direct, answered[proved:], identical)):
        return "the bare model answers other numbers differently"
    differ = comparison.differ([answer for _, answer in answered])
    names = scikit_learn.feature_names(pyfunc)
    for function in scikit_learn.behind_labels(pyfunc):
        scored = yield from _accepted(_on_native(function), tried)
        if not (yield from _are_equal(_on_arrays(function, names), scored, comparison.close)):
            return "the bare model's probabilities or scores are different"
        differ = differ or (bool(scored) and comparison.differ([answer for _, answer in scored]))
    return (
        None if differ else "the answers to the example and to what it was varied to are all equal"
    )


def _accepted(call: Call, proofs: Sequence[Inputs]) -> Asking[_Answered]:
    """Return a call's answers to the inputs that it accepts, or to some of their rows."""
    answered: _Answered = []
    for one in proofs:
        answer = yield Question(call, one)
        if answer.raised is None:
            answered.append((one, answer.output))
        elif one.rows > 1:
            for number in range(min(one.rows, _TRIED_ROWS)):
                row = one.take([number])
                answer = yield Question(call, row)
                if answer.raised is None:
                    answered.append((row, answer.output))
    return answered


def _are_equal(call: Call, answered: _Answered, equal: Callable[[Any, Any], bool]) -> Asking[bool]:
    """Whether a call gives equal answers; inputs that it cannot take are skipped."""
    for inputs, expected in answered:
        answer = yield Question(call, inputs)
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
    """Return a call that uses ``usual`` for inputs that ``direct`` cannot take.

    For rows of several requests it raises instead: many rows are proved for ``direct`` only.
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
