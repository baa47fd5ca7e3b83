"""The logged input example through the path of a request, and what it proves.

A failed example is a nack. A passed one also decides, by trying, whether requests may be joined
and whether the fast path may be taken.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.worker import outputs
from gateway.worker.inputs import Inputs, join
from gateway.worker.refusals import RequestRefusedError
from gateway.worker.served_model import Call, ServedModel, log_without_data

_RELATIVE_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""Libraries sum in another order for another number of rows; more than that is an influence."""
_MAX_PROOF_ROWS = 16
_SCATTERED_ROWS = 16
_LARGEST_SCATTERED = 2**52
"""Whole numbers beyond it are not all ones in double precision."""


class WarmUpFailedError(Exception):
    """The model does not answer its own example as it should. The message says how."""


@dataclass(frozen=True)
class Batching:
    """``joined``, or ``alone``, and why."""

    mode: str
    reason: str


def predict_example(model: ServedModel, example: bytes) -> Inputs:
    """Answer the example as a request would be; return its inputs, as the model got them.

    Raises:
        WarmUpFailedError: There is no answer, or not one finite answer per row.
    """
    answer(model, example, "the input example")
    return join([model.decode(example)])  # anew: a model may change what it is given


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


def scatter(example: Inputs) -> list[Inputs]:
    """Return rows around the example's in which no column goes with another one.

    They tell a model that looks for its columns by their names from one that looks for them by
    their places. The second of them have the values of the first in other columns. The same for
    the same example, and of its types.
    """
    import numpy as np

    dice = np.random.default_rng(0)
    rows = [row % example.rows for row in range(_SCATTERED_ROWS)] if example.rows else []
    base = example.take(rows)
    arrays = {name: _scattered(array, dice) for name, array in base.arrays.items()}
    scattered = [Inputs(base.kind, arrays, base.rows, base.params)]
    by_type: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.dtype.kind in "fiu":
            by_type.setdefault(str((array.dtype, array.shape)), []).append(name)
    swapped = {
        name: arrays[other]
        for names in by_type.values()
        for name, other in zip(names, [*names[1:], names[0]], strict=True)
        if name != other
    }
    if swapped:
        scattered.append(Inputs(base.kind, arrays | swapped, base.rows, base.params))
    return scattered


def _scattered(array: Any, dice: Any) -> Any:
    """Return other numbers about as large, none below zero where there is none; or other rows."""
    import numpy as np

    rows = array[dice.permutation(len(array))]
    if array.dtype.kind not in "fiu":
        return rows
    numbers = array.astype("float64")
    spread = max(3.0, float(np.max(np.abs(numbers), initial=0.0, where=np.isfinite(numbers))))
    moved = numbers + spread * dice.uniform(-1, 1, numbers.shape)
    if not (numbers < 0).any():
        moved = np.abs(moved)
    if array.dtype.kind != "f":
        if spread > _LARGEST_SCATTERED:
            return rows
        limits = np.iinfo(array.dtype)
        moved = np.clip(np.rint(moved), limits.min, limits.max)
    with np.errstate(over="ignore"):
        return moved.astype(array.dtype)


def vary_far(example: Inputs, *, whole: bool) -> list[Inputs]:
    """Return rows that are nothing like the example's, and may be nonsense to the model.

    Beside them a row shows by how much others influence it.

    Args:
        example: Inputs; what follows from them has their types.
        whole: Whether whole numbers are changed too. They may be positions in a table, beyond
            the end of which some libraries do worse than raise.
    """
    far = []
    for factor, offset in ((-8, -1000), (100, 1000)):
        arrays = {
            name: _far(array, factor, offset, whole=whole) for name, array in example.arrays.items()
        }
        if any(arrays[name] is not array for name, array in example.arrays.items()):
            far.append(Inputs(example.kind, arrays, example.rows, example.params))
    return far


def _far(array: Any, factor: int, offset: int, *, whole: bool) -> Any:
    """Return ``array`` far away, or itself where its type has no such numbers."""
    import numpy as np

    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            moved = (array * factor + offset).astype(array.dtype)
        return array if np.isinf(moved).any() else moved
    if whole and array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(array.dtype)
        ends = [int(end) * factor + offset for end in (array.min(), array.max())]
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return array * factor + offset
    return array


def prove_joining(
    model: ServedModel,
    varied: Sequence[Inputs],
    far: Sequence[Inputs] = (),
    scores: Call | None = None,
) -> Batching:
    """Find out whether inputs answer the same alone and joined with others.

    Args:
        model: The model, on the call paths that will serve.
        varied: Inputs that differ, the example first.
        far: More to join the example with; what the model does not bear is left out.
        scores: What labels are made of; it shows an influence that has changed no label yet.
    """
    if len(varied) + len(far) < 2:  # noqa: PLR2004  # two are the fewest that can be joined
        return Batching("alone", "the input example cannot be varied")
    example = varied[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that nobody sent
            more = [call for call in (model.probabilities_call, scores) if call is not None]
            calls = [model.call, *(call for call in more if _bears([call], example))]
            return _prove(calls, varied, [one for one in far if _bears(calls, one)])
    except BaseException as error:  # noqa: BLE001  # whatever the model's objects raise
        return Batching("alone", f"joined rows cannot be predicted: {type(error).__name__}")


def _prove(calls: Sequence[Call], varied: Sequence[Inputs], far: Sequence[Inputs]) -> Batching:
    alone = {id(inputs): _say(calls, inputs) for inputs in (*varied, *far)}
    if any(outputs.row_count(output) is None for said in alone.values() for output in said):
        return Batching("alone", "the model does not answer row by row")
    sound = set(map(id, varied))
    beside = [group for one in far for group in ([varied[0], one], [one, varied[0]])]
    for group in [list(varied), list(reversed(varied)), *beside]:
        together = _say(calls, join(group))
        start = 0
        for inputs in group:
            stop = start + inputs.rows
            own = (outputs.rows_of(said, start, stop) for said in together)
            if id(inputs) in sound and not all(map(close, own, alone[id(inputs)])):
                return Batching("alone", "rows influence each other")
            start = stop
    if not any(map(differ, zip(*alone.values(), strict=True))):
        return Batching("alone", "the example's answers do not differ")
    return Batching("joined", "the input example answers the same alone and joined")


def _say(calls: Sequence[Call], inputs: Inputs) -> list[Any]:
    """Return what each of ``calls`` says to ``inputs``, which stay as they are."""
    said = [call(inputs.copy()) for call in calls]
    if any(outputs.row_count(output) not in {None, inputs.rows} for output in said):
        raise ValueError("another number of rows")
    return said


def _bears(calls: Sequence[Call], inputs: Inputs) -> bool:
    """Whether there is an answer at all."""
    try:
        _say(calls, inputs)
    except BaseException:  # noqa: BLE001  # a model may raise SystemExit too
        return False
    return True


def differ(answers: Sequence[Any]) -> bool:
    """Whether not all rows of all ``answers`` are equal: from equal ones nothing is learned."""
    first = outputs.rows_of(answers[0], 0, 1)
    return any(
        not close(outputs.rows_of(answer, row, row + 1), first)
        for answer in answers
        for row in range(outputs.row_count(answer) or 0)
    )


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
