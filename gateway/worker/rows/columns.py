"""Converts one JSON column to one array, by the column's type in the signature.

The rules are those of MLflow's strict enforcement: whole numbers become ``double``, and nothing
else is converted silently. Two rules are stricter: a string never becomes a number, and null is
allowed in optional columns only. Base64 may have the line breaks that MLflow writes.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from gateway.worker.errors import MAX_DETAILS, Detail, refuse_if_any

_WIDTHS = {"integer": 32, "long": 64}
_NUMPY_TYPES = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int32",
    "boolean": "bool",
}
WHOLE_TYPES = frozenset(_WIDTHS)
"""Types whose arrays have no null."""
SCALAR_TYPES = frozenset({*_NUMPY_TYPES, "string", "binary", "datetime"})
PLAIN_TYPES: dict[str, frozenset[type]] = {
    "double": frozenset({float, int}),
    "float": frozenset({float, int}),
    "long": frozenset({int}),
    "integer": frozenset({int}),
    "boolean": frozenset({bool}),
    "string": frozenset({str}),
}
"""The Python types of JSON values that need no conversion, by the column's type."""
_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_NO_LINE_BREAKS = str.maketrans("", "", "\r\n")
_NOT_A_MOMENT = "a string that is not an ISO 8601 date and time"
_FRACTION = re.compile(
    r"(.*[0-9]{2}:?[0-9]{2}:?[0-9]{2})[.,]([0-9]+)((?:[^0-9.,][^.,]*)?)", re.DOTALL
)
"""The time up to its seconds, the digits of their fraction, and the zone."""
_MOST_DIGITS = 9
_OLDEST = dt.datetime(1677, 9, 22)  # noqa: DTZ001  # bounds of nanoseconds in 64 bits, without a zone
_NEWEST = dt.datetime(2262, 4, 11)  # noqa: DTZ001  # as above


def to_array(name: str, values: Sequence[Any], kind: str, *, required: bool) -> Any:
    """Return ``values``, one JSON value per row, as a one-dimensional array of the type ``kind``.

    Values of types outside `SCALAR_TYPES` are not converted. A required column must have no null.

    Raises:
        RequestRefusedError: A value is not of the type; the details name row and field.
    """
    import numpy as np

    types = set(map(type, values))
    if kind not in SCALAR_TYPES:
        return _objects(values)
    if not types <= PLAIN_TYPES.get(kind, frozenset()):
        values = _convert(name, values, kind, required=required)
    if kind in {"double", "float"}:
        return _floats(name, values, kind)
    if kind == "datetime":
        return np.array(values, dtype="datetime64[ns]")
    if kind in {"string", "binary"} or None in values:  # booleans may be null
        return _objects(values)
    if kind in _WIDTHS:
        _refuse_wide(name, values, _WIDTHS[kind])
    return np.array(values, dtype=_NUMPY_TYPES[kind])


def plain_array(values: Sequence[Any], kind: str) -> Any:
    """Return values of `PLAIN_TYPES`, within the type's bounds, as `to_array` does."""
    import numpy as np

    if kind == "string":
        return _objects(values)
    if kind == "float":  # rounded twice, as in `to_array`
        return np.array(values, dtype=np.float64).astype(np.float32)
    return np.array(values, dtype=_NUMPY_TYPES[kind])


def infer(values: Sequence[Any]) -> Any:
    """Return ``values`` as an array of the narrowest type that fits, without a signature."""
    import numpy as np

    types = set(map(type, values))
    if type(None) in types and types & {int, float} and types <= {int, float, type(None)}:
        return np.array([math.nan if one is None else one for one in values], dtype=np.float64)
    if types == {int} and (array := whole_numbers(values)) is not None:
        return array
    if types == {bool} or (float in types and types <= {int, float}):
        return np.array(values, dtype=np.bool_ if bool in types else np.float64)
    return _objects(values)


def whole_numbers(values: Sequence[int]) -> Any:
    """Return an int64 or a uint64 array of ``values``, or None if neither type holds them all."""
    import numpy as np

    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        return None if min(values) < 0 else np.array(values, dtype=np.uint64)


def describe_type(value: Any) -> str:
    """Return the JSON type of ``value``, without the value."""
    return _NAMES.get(type(value), "a value")


def _objects(values: Sequence[Any]) -> Any:
    import numpy as np

    return np.fromiter(values, dtype=object, count=len(values))


def _convert(name: str, values: Sequence[Any], kind: str, *, required: bool) -> list[Any]:
    """Return each value as the type's Python value; null is allowed in optional columns."""
    one = _ONE[kind]
    converted: list[Any] = []
    details: list[Detail] = []
    for row, value in enumerate(values):
        try:
            if value is None:
                _check_null(kind, required=required)
            converted.append(None if value is None else one(value))
        except ValueError as error:
            details.append((row, name, str(error)))
            if len(details) >= MAX_DETAILS:
                break
    refuse_if_any(details)
    return converted


def _check_null(kind: str, *, required: bool) -> None:
    if required:
        raise ValueError("null in a required column")
    if kind in WHOLE_TYPES:  # a column of nulls only was left out before
        raise ValueError(f"null beside whole numbers: a column of type {kind} has no null")


def _checker(*types: type, needed: str) -> Callable[[Any], Any]:
    """Return a function that returns a value of these types and refuses others."""

    def checked(value: Any) -> Any:
        if type(value) not in types:
            raise ValueError(f"{describe_type(value)} where {needed} is needed")
        return value

    return checked


_number = _checker(int, float, needed="a number")
_boolean = _checker(bool, needed="a boolean")
_string = _checker(str, needed="a string")
_whole_number = _checker(int, needed="a whole number")


def _whole(value: Any) -> Any:
    return _whole_number(int(value) if type(value) is float and value.is_integer() else value)


def _binary(value: Any) -> bytes:
    text = _string(value).translate(_NO_LINE_BREAKS)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("a string that is not base64 where bytes are needed") from error


def moment(text: str) -> dt.datetime:
    """Return the date and time in ``text``, with its time zone if it names one.

    Raises:
        ValueError: It is not ISO 8601, or finer than a microsecond. The message has no data.
    """
    one, nanoseconds = _moment(text)
    if nanoseconds:
        raise ValueError("a date and time finer than a microsecond")
    return one


def _moment(text: str) -> tuple[dt.datetime, int]:
    """Return the date and time in ``text``, and the nanoseconds beyond its microseconds.

    Python 3.10, which a model may use, does not read Z, and reads fractions of three or six digits
    only. Later versions truncate fractions, and read those of a minute as of a second.
    """
    if text[-1:] in {"Z", "z"}:
        text = text[:-1] + "+00:00"
    nanoseconds = 0
    if "." in text or "," in text:
        parts = _FRACTION.fullmatch(text)
        if parts is None:
            raise ValueError(_NOT_A_MOMENT)
        time, digits, zone = parts.groups()
        if len(digits) > _MOST_DIGITS:
            raise ValueError("a date and time finer than a nanosecond")
        digits = digits.ljust(_MOST_DIGITS, "0")
        text, nanoseconds = f"{time}.{digits[:6]}{zone}", int(digits[6:])
    try:
        return dt.datetime.fromisoformat(text), nanoseconds
    except ValueError as error:
        raise ValueError(_NOT_A_MOMENT) from error


def _datetime(value: Any) -> Any:
    """Return a moment in UTC without a zone; with nanoseconds, as numpy's type."""
    one, nanoseconds = _moment(_string(value))
    try:
        if one.tzinfo is not None:
            one = one.astimezone(dt.timezone.utc).replace(tzinfo=None)  # noqa: UP017  # 3.10
    except OverflowError as error:
        raise ValueError(_NOT_A_MOMENT) from error
    if not _OLDEST <= one <= _NEWEST:
        raise ValueError("a date outside of 1677-09-22 to 2262-04-11")
    if not nanoseconds:
        return one
    import numpy as np

    return np.datetime64(one, "ns") + np.timedelta64(nanoseconds, "ns")


_ONE: dict[str, Callable[[Any], Any]] = {
    "double": _number,
    "float": _number,
    "long": _whole,
    "integer": _whole,
    "boolean": _boolean,
    "string": _string,
    "binary": _binary,
    "datetime": _datetime,
}


def scalar(kind: str, value: Any) -> Any:
    """Return one JSON value as Python's value of a scalar type; other types are not checked.

    Raises:
        ValueError: It is not of the type. The message has the reason, without the value.
    """
    one = _ONE.get(kind)
    return value if one is None else one(value)


def narrow(kind: str, value: Any) -> Any:
    """Return a value of `scalar` in the type that MLflow takes for ``kind``.

    Raises:
        ValueError: It is beyond the type's bounds.
    """
    import numpy as np

    if kind == "double":
        return float(value)
    if kind == "float":
        with np.errstate(over="ignore"):
            single = np.float32(value)
        if np.isinf(single):
            raise ValueError("a number beyond float32")
        return single
    if kind in _WIDTHS:
        bits = _WIDTHS[kind]
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise ValueError(f"a whole number beyond {bits} bits")
        return np.int32(value) if kind == "integer" else value
    return np.datetime64(value, "ns") if kind == "datetime" else value


def _floats(name: str, values: Sequence[Any], kind: str) -> Any:
    import numpy as np

    with np.errstate(over="ignore"):
        array = np.array(
            [math.nan if value is None else value for value in values]
            if None in values
            else values,
            dtype=np.float64,
        ).astype(_NUMPY_TYPES[kind], copy=False)
    infinite = np.flatnonzero(np.isinf(array))
    refuse_if_any((int(row), name, f"a number beyond {_NUMPY_TYPES[kind]}") for row in infinite)
    return array


def _refuse_wide(name: str, values: Sequence[int], bits: int) -> None:
    limit = 2 ** (bits - 1)
    if values and not (-limit <= min(values) and max(values) < limit):
        refuse_if_any(
            (row, name, f"a whole number beyond {bits} bits")
            for row, value in enumerate(values)
            if not -limit <= value < limit
        )
