"""JSON under one strict contract, read and written with ``orjson``.

The contract: UTF-8 without a byte order mark; no NaN, no infinity and no number beyond a double; no
lone surrogate; at most `MAX_DEPTH` levels. Whole numbers beyond 64 bits become doubles. If an
object has a key twice, the last value counts.

The worker imports ``orjson`` at the first use: a worker under a model's own interpreter starts with
the standard library only. The control plane installs ``orjson`` in each environment that it builds.
"""

from __future__ import annotations

import json
import math
from itertools import chain
from typing import Any

MAX_DEPTH = 64
_CONTAINERS = frozenset({list, dict})


class InvalidJsonError(ValueError):
    """The JSON or the value breaks the contract. The message says how, without the data."""


class NotFiniteError(InvalidJsonError):
    """A number is NaN or infinite, which JSON cannot express.

    Attributes:
        row: The index of the first such row, if the value is a list of rows; else None.
    """

    def __init__(self, row: int | None = None) -> None:
        super().__init__("a number is not finite")
        self.row = row


def loads(body: bytes) -> Any:
    """Return the value of ``body``.

    Raises:
        InvalidJsonError: The body breaks the contract.
    """
    import orjson

    try:
        value = orjson.loads(body)  # which itself ends at 1,024 levels
    except ValueError as error:
        raise InvalidJsonError("the body is not JSON") from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _refuse_deep(value)
    return value


def dumps(value: Any) -> bytes:
    """Return ``value`` as JSON.

    Raises:
        NotFiniteError: A number in it is NaN or infinite.
        InvalidJsonError: JSON cannot express it.
    """
    text = dumps_with_nulls(value)
    if b"null" in text:  # orjson writes null for NaN and infinity
        _refuse_not_finite(value)
    return text


def dumps_with_nulls(value: Any) -> bytes:
    """Return ``value`` as JSON, with null for NaN and infinity.

    Raises:
        InvalidJsonError: JSON cannot express it.
    """
    import orjson

    try:
        return orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return _dumps_beyond_64_bits(value)


def repair_example(text: bytes) -> bytes:
    """Return an example that MLflow wrote, as a body that a caller can send.

    MLflow writes NaN for a missing number; the result has null in its place.

    Raises:
        InvalidJsonError: The example is not JSON apart from that.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_null_for_nan)
    except (ValueError, RecursionError) as error:
        raise InvalidJsonError("the example is not JSON") from error
    return dumps(value)


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        held = [
            item.values() if type(item) is dict else item
            for item in level
            if type(item) in _CONTAINERS
        ]
        level = list(chain.from_iterable(held))
        if _CONTAINERS.isdisjoint(map(type, level)):
            return
    raise InvalidJsonError(f"the body is nested more than {MAX_DEPTH} levels deep")


def _dumps_beyond_64_bits(value: Any) -> bytes:
    """Return as JSON a value that ``orjson`` refuses; it may have whole numbers beyond 64 bits."""
    try:
        text = json.dumps(
            _with_nulls(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJsonError("a value has no spelling in JSON") from error


def _with_nulls(value: Any) -> Any:
    """Return a copy of ``value`` with None for NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _with_nulls(one) for key, one in value.items()}
    return [_with_nulls(one) for one in value] if isinstance(value, list | tuple) else value


def _refuse_not_finite(value: Any) -> None:
    """Raise `NotFiniteError` if a number in ``value`` is NaN or infinite."""
    rows = value if isinstance(value, list) else None
    for row, one in enumerate([value] if rows is None else rows):
        if not _is_finite(one):
            raise NotFiniteError(None if rows is None else row)


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _null_for_nan(name: str) -> None:
    if name != "NaN":
        raise InvalidJsonError("Infinity is not JSON")
