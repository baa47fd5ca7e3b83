"""Converts a model's output to JSON values, as MLflow spells them except dates in arrays."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_DEPTH = 62
"""Levels below the outermost list. With the envelope, an answer has 64 levels, as a body may."""


def row_count(output: Any) -> int | None:
    """Return the number of rows of ``output``, or None if it is not a sequence of rows."""
    if isinstance(output, (str, bytes, Mapping)):
        return None
    shape = getattr(output, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    return len(output) if isinstance(output, (list, tuple)) else None


def rows_of(output: Any, start: int, stop: int) -> Any:
    """Return the rows from ``start`` to before ``stop``, in the model's own type."""
    positional = getattr(output, "iloc", None)
    return output[start:stop] if positional is None else positional[start:stop]


def rows_at(output: Any, positions: Sequence[int]) -> Any:
    """Return the rows at ``positions``, in that order, in the model's own type."""
    positional = getattr(output, "iloc", None)
    if positional is not None:
        return positional[list(positions)]
    if isinstance(output, (list, tuple)):
        return [output[position] for position in positions]
    return output[list(positions)]


def to_json(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as lists, dicts, strings and numbers.

    A DataFrame becomes records. So does a Series, as a DataFrame of one column, as in MLflow.

    Raises:
        TypeError: JSON cannot express a part of it.
    """
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if depth > _MAX_DEPTH:
        raise TypeError("nested too deep")
    if hasattr(value, "to_dict"):
        table = value.to_frame() if depth == 0 and _is_series(value) else value
        if hasattr(table, "columns"):
            return [to_json(record, depth + 1) for record in table.to_dict(orient="records")]
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
    if isinstance(value, Mapping):
        return {
            key if type(key) is str else _name(key): to_json(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [to_json(item, depth + 1) for item in value]
    return _foreign(value, depth)


def _is_series(value: Any) -> bool:
    return not hasattr(value, "columns") and hasattr(value, "to_frame") and hasattr(value, "iloc")


def only_not_finite(output: Any) -> bool:
    """Whether ``output`` has numbers that are not finite, and otherwise only nulls."""
    found, pending = False, [to_json(output)]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, float) and not math.isfinite(item):
            found = True
        elif item is not None:
            return False
    return found


def _foreign(value: Any, depth: int) -> Any:
    """Return arrays, series and scalars of numerical libraries as plain values."""
    dtype = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", "")
    if kind in {"M", "m"}:
        return _without_nat(to_json(value.astype(str), depth + 1))
    if callable(to_list := getattr(value, "tolist", None)):
        plain = to_list()
        numpys = kind in {"f", "i", "u", "b", "U"} and hasattr(dtype, "isbuiltin")
        return plain if numpys else to_json(plain, depth + 1)
    if callable(to_text := getattr(value, "isoformat", None)):
        return to_text()
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration, str() would return the member's name
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    return _convert_object(value, depth)


def _name(key: Any) -> str:
    """Return a member's name as ``json`` spells it: ``true``, ``null``, ``NaN``, or its text."""
    if isinstance(key, str):
        return str.__str__(key)
    spelled = key is None or isinstance(key, (int, float))
    return json.dumps(key) if spelled else str(key)


def _without_nat(value: Any) -> Any:
    """Return dates with None for each NaT."""
    if isinstance(value, list):
        return [_without_nat(one) for one in value]
    return None if value == "NaT" else value


def _convert_object(value: Any, depth: int) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(value).decode("ascii")
    if type(value).__name__ == "NAType":  # pandas' missing value of any type
        return None
    if callable(to_fields := getattr(value, "model_dump", None)):  # a pydantic model
        return to_json(to_fields(), depth + 1)
    raise TypeError("a value of a type that JSON does not have")
