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
import re
from typing import Any

MAX_DEPTH = 64
# The pattern matches an unfinished string up to the end of the body. Otherwise the search would
# start again at every quotation mark in it, and a short body would take minutes.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_NOT_BRACKETS_OR_QUOTES = bytes(byte for byte in _NOT_BRACKETS if byte != ord('"'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_SHORT_BYTES = 4 * 1024
_CHUNK_BYTES = 64 * 1024


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


def loads(body: bytes, levels: int = MAX_DEPTH) -> Any:
    """Return the value of ``body``, which may have at most ``levels`` levels.

    Raises:
        InvalidJsonError: The body breaks the contract.
    """
    import orjson

    check_depth(body, levels)
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise InvalidJsonError("the body is not JSON") from error


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


def check_depth(body: bytes, levels: int = MAX_DEPTH) -> None:
    """Refuse a body with more than ``levels`` levels before it is parsed.

    Raises:
        InvalidJsonError: It has more levels.
    """
    if len(body) <= _CHUNK_BYTES and body.count(b"[") + body.count(b"{") <= levels:
        return
    deepest_of = _deepest_of_short if len(body) <= _SHORT_BYTES else _deepest_of_long
    if deepest_of(body, levels) > levels:
        raise InvalidJsonError(f"the body is nested more than {levels} levels deep, or not JSON")


def _deepest_of_short(body: bytes, levels: int) -> int:
    """Return ``levels``, or more if a short body is deeper or its brackets are not balanced.

    Each pass removes the innermost pairs of brackets. The brackets that remain are too many.
    """
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, delete=_NOT_BRACKETS)
    for _ in range(levels):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    return levels + len(brackets)


def _deepest_of_long(body: bytes, levels: int) -> int:
    """Return the depth of a long body; stop reading where it exceeds ``levels``.

    The time depends on the size alone: 16 MiB take a tenth of a second. A body that closes more
    brackets than it opens counts as too deep.
    """
    import numpy as np

    depth, quoted, cut, deepest = 0, 0, b"", 0
    for start in range(0, len(body), _CHUNK_BYTES):
        part = cut + body[start : start + _CHUNK_BYTES]
        # An odd number of backslashes at the end: the chunk ends within an escape.
        cut = b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
        part = part[: len(part) - len(cut)].replace(b"\\\\", b"").replace(b'\\"', b"")
        kept = part.translate(_ONE_KIND, delete=_NOT_BRACKETS_OR_QUOTES)
        marks = np.frombuffer(kept, np.uint8)
        if quoted or b'"' in kept:
            is_quote = marks == ord('"')
            inside = (np.cumsum(is_quote, dtype=np.uint8) + quoted) & 1
            quoted = int(inside[-1]) if inside.size else quoted
            marks = marks[(inside == 0) & ~is_quote]
        if marks.size:
            heights = np.cumsum(ord("\\") - marks.astype(np.int8), dtype=np.int32) + depth
            depth, deepest = int(heights[-1]), max(deepest, int(heights.max()))
            if deepest > levels or int(heights.min()) < 0:
                return max(deepest, levels + 1)
    return deepest


def _dumps_beyond_64_bits(value: Any) -> bytes:
    """Return as JSON a value that ``orjson`` refuses; it may have whole numbers beyond 64 bits."""
    try:
        text = json.dumps(
            _with_nulls(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJsonError("JSON cannot express a value") from error


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
