"""Converts nested JSON lists to one array, by the signature's dtype and shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from gateway.worker.errors import MISFIT, invalid
from gateway.worker.rows import columns
from gateway.worker.rows.columns import describe_type

_MAX_DIMENSIONS = 16
_ALLOWED: dict[str, frozenset[type]] = {
    "f": frozenset({float, int, type(None)}),  # null is NaN, as in MLflow's examples
    "i": frozenset({int, float}),
    "u": frozenset({int, float}),
    "b": frozenset({bool}),
    "U": frozenset({str}),
    "S": frozenset({str}),
    "M": frozenset({str, type(None)}),
    "O": frozenset({str, int, float, bool, dict, type(None)}),
}


def to_tensor(name: str, value: Any, dtype: str, shape: Sequence[int]) -> Any:
    """Return nested lists as an array; the first dimension is the row.

    In ``shape``, -1 allows any length.

    Raises:
        RequestRefusedError: The lists have another shape, or an element has another type.
    """
    import numpy as np

    field = name or None
    if np.dtype(dtype).kind == "O" and tuple(shape) == (-1,):
        return _of_anything(field, value)
    items, actual = _flatten(field, value, len(shape))
    for axis, (is_now, must) in enumerate(zip(actual, shape, strict=True)):
        if must not in (-1, is_now):
            raise _refused(None, field, f"dimension {axis} has length {is_now}, not {must}")
    target = np.dtype(dtype)
    allowed = _ALLOWED.get(target.kind, frozenset())
    per_row = max(1, len(items) // max(1, actual[0] if actual else 1))
    if not set(map(type, items)) <= allowed:
        at = next(index for index, item in enumerate(items) if type(item) not in allowed)
        reason = f"{describe_type(items[at])} where {target.name} is needed"
        raise _refused(at // per_row, field, reason)
    return _cast(field, items, target, per_row).reshape(actual)


def _of_anything(field: str | None, value: Any) -> Any:
    """Return a list as an array of objects; its items may be lists of several lengths."""
    import numpy as np

    if type(value) is not list:
        raise _refused(None, field, f"{describe_type(value)} where a list is needed")
    return np.array(value, dtype=object)


def infer_tensor(value: Any) -> Any:
    """Return nested lists as an array of the type that fits, without a signature.

    Raises:
        RequestRefusedError: The lists have no common shape, or too many dimensions.
    """
    import numpy as np

    depth, probe = 0, value
    while isinstance(probe, list) and depth < _MAX_DIMENSIONS:
        depth, probe = depth + 1, probe[0] if probe else None
    items, shape = _flatten(None, value, max(depth, 1))
    types = set(map(type, items))
    if types == {bool}:
        array = np.array(items, dtype=np.bool_)
    elif types and types <= {bool, int} and (whole := columns.whole_numbers(items)) is not None:
        array = whole
    elif types <= {bool, int, float}:
        array = np.array(items, dtype=np.float64)
    else:
        array = np.fromiter(items, dtype=object, count=len(items))
    return array.reshape(shape)


def _flatten(field: str | None, value: Any, dimensions: int) -> tuple[list[Any], tuple[int, ...]]:
    """Return the elements in order, and the length of each dimension."""
    items: list[Any] = [value]
    shape: list[int] = []
    for axis in range(dimensions):
        lengths = {len(item) if type(item) is list else -1 for item in items}
        if len(lengths) > 1 or -1 in lengths:
            raise _refused(
                _ragged_row(items, shape), field, f"dimension {axis} is not lists of one length"
            )
        shape.append(lengths.pop() if lengths else 0)
        items = list(chain.from_iterable(items))
    if list in set(map(type, items)):
        raise _refused(None, field, f"more than {dimensions} dimensions")
    return items, tuple(shape)


def _ragged_row(items: list[Any], shape: list[int]) -> int | None:
    """Return the row of the first item that is no list or differs from the first in length."""
    if not shape:
        return None
    first = len(items[0]) if type(items[0]) is list else -1
    odd = next(
        (i for i, item in enumerate(items) if type(item) is not list or len(item) != first), 0
    )
    return odd // max(1, len(items) // max(1, shape[0]))


def _cast(field: str | None, items: list[Any], target: Any, per_row: int) -> Any:
    import numpy as np

    if target.kind in "iu":
        limits = np.iinfo(target)
        for at, item in enumerate(items):
            if item != int(item) or not limits.min <= item <= limits.max:
                reason = f"a number that {target.name} cannot hold"
                raise _refused(at // per_row, field, reason)
        return np.array([int(item) for item in items], dtype=target)
    if target.kind == "O":
        return np.fromiter(items, dtype=object, count=len(items))
    if target.kind == "M":
        return _moments(field, items, target, per_row)
    if target.kind == "S":
        _refuse_other_letters(field, items, per_row)
    with np.errstate(over="ignore"):
        array = np.array(items, dtype=target)
    if target.kind == "f":
        infinite = np.flatnonzero(np.isinf(array))
        if len(infinite):
            raise _refused(int(infinite[0]) // per_row, field, f"a number beyond {target.name}")
    return array


def _moments(field: str | None, items: list[Any], target: Any, per_row: int) -> Any:
    import numpy as np

    moments = []
    for at, item in enumerate(items):
        try:
            moments.append(None if item is None else columns.scalar("datetime", item))
        except ValueError as error:
            raise _refused(at // per_row, field, str(error)) from error
    exact = np.array(moments, dtype="datetime64[ns]")
    array = exact.astype(target)
    cut = np.flatnonzero((array != exact) & ~np.isnat(exact))
    if len(cut):
        raise _refused(
            int(cut[0]) // per_row, field, f"a date and time that {target.name} cannot hold"
        )
    return array


def _refuse_other_letters(field: str | None, items: list[str], per_row: int) -> None:
    at = next((index for index, item in enumerate(items) if not item.isascii()), None)
    if at is not None:
        raise _refused(at // per_row, field, "a string with characters beyond ASCII")


def _refused(row: int | None, field: str | None, reason: str) -> Exception:
    return invalid(MISFIT, (row, field, reason))
