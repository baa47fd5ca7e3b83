"""JSON under one strict contract, whether ``orjson`` can be imported or not.

UTF-8 without a byte order mark; no NaN, no infinity, no number beyond a double; no lone surrogate;
at most `MAX_DEPTH` levels. Whole numbers beyond 64 bits become doubles. Of a key given twice in
one object the last one counts.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, Protocol

MAX_DEPTH = 64
# A string without an end goes on to the end of the body: were it no match, every quotation mark in
# it would be tried as a beginning, and a short body would take minutes.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_NOT_BRACKETS_OR_QUOTES = bytes(byte for byte in _NOT_BRACKETS if byte != ord('"'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_SHORT_BYTES = 4 * 1024
_CHUNK_BYTES = 64 * 1024
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_SAFE_DIGITS, _MOST_DIGITS = 18, 20


class InvalidJsonError(ValueError):
    """Not JSON under the contract. The message says why, without the data."""


class NotFiniteError(InvalidJsonError):
    """A number that is not finite, which JSON has no spelling for.

    Attributes:
        row: Of a list of rows, the first row that holds one; else None.
    """

    def __init__(self, row: int | None = None) -> None:
        """Store where it is."""
        super().__init__("a number is not finite")
        self.row = row


class Json(Protocol):
    """A decoder and encoder that keeps the contract."""

    def loads(self, body: bytes, levels: int = MAX_DEPTH) -> Any:
        """Return the value that ``body`` spells, nested no deeper than ``levels``.

        Raises:
            InvalidJsonError: It spells none.
        """
        ...

    def dumps(self, value: Any) -> bytes:
        """Return ``value`` as JSON.

        Raises:
            InvalidJsonError: JSON has no spelling for it.
        """
        ...

    def dumps_with_nulls(self, value: Any) -> bytes:
        """Return ``value`` as JSON, with null for each number that is not finite.

        Raises:
            InvalidJsonError: JSON has no spelling for it otherwise.
        """
        ...


class OrjsonJson:
    """The contract kept with ``orjson``."""

    def __init__(self) -> None:
        """Import the library.

        Raises:
            ImportError: It is not installed.
        """
        import orjson

        self._orjson = orjson

    def loads(self, body: bytes, levels: int = MAX_DEPTH) -> Any:
        """Return the value that ``body`` spells."""
        check_depth(body, levels)
        try:
            return self._orjson.loads(body)
        except ValueError as error:
            raise InvalidJsonError("the body is not JSON") from error

    def dumps(self, value: Any) -> bytes:
        """Return ``value``, without numbers that are not finite, as JSON."""
        text = self.dumps_with_nulls(value)
        if b"null" in text:  # it may stand for such a number
            refuse_non_finite(value)
        return text

    def dumps_with_nulls(self, value: Any) -> bytes:
        """Return ``value`` as JSON, with null for each number that is not finite."""
        try:
            text: bytes = self._orjson.dumps(value)
        except (TypeError, ValueError, RecursionError):
            return StandardJson().dumps_with_nulls(value)  # it has whole numbers beyond 64 bits
        return text


class StandardJson:
    """The contract kept with the standard library alone."""

    def loads(self, body: bytes, levels: int = MAX_DEPTH) -> Any:
        """Return the value that ``body`` spells."""
        check_depth(body, levels)
        try:
            text = body.decode("utf-8")
            value = json.loads(
                text, parse_constant=_refuse_constant, parse_float=_float, parse_int=_int
            )
            if _SURROGATE_ESCAPE.search(text):
                json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise InvalidJsonError("the body is not JSON") from error
        return value

    def dumps(self, value: Any) -> bytes:
        """Return ``value``, without numbers that are not finite, as JSON."""
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            return text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, ValueError):
                refuse_non_finite(value)
            raise InvalidJsonError("a value has no spelling in JSON") from error

    def dumps_with_nulls(self, value: Any) -> bytes:
        """Return ``value`` as JSON, with null for each number that is not finite."""
        try:
            return self.dumps(value)
        except NotFiniteError:
            return self.dumps(with_nulls(value))


def repair_example(text: bytes) -> bytes:
    """Return an example as MLflow writes it, as a body that a caller can send.

    MLflow spells a missing number NaN, which is no JSON; here it is null.

    Raises:
        InvalidJsonError: It is not JSON otherwise.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_null_for_nan)
    except (ValueError, RecursionError) as error:
        raise InvalidJsonError("the example is not JSON") from error
    return StandardJson().dumps(value)


def best() -> Json:
    """Return the faster of the implementations that are installed."""
    try:
        return OrjsonJson()
    except ImportError:
        return StandardJson()


def check_depth(body: bytes, levels: int = MAX_DEPTH) -> None:
    """Refuse a body with more than ``levels`` levels, before anything is made of it.

    Raises:
        InvalidJsonError: It is nested deeper.
    """
    if len(body) <= _CHUNK_BYTES and body.count(b"[") + body.count(b"{") <= levels:
        return
    deepest_of = _deepest_of_short if len(body) <= _SHORT_BYTES else _deepest_of_long
    if deepest_of(body, levels) > levels:
        raise InvalidJsonError(f"the body is nested more than {levels} levels deep, or not JSON")


def _deepest_of_short(body: bytes, levels: int) -> int:
    """Return ``levels``, or more where a short body is deeper or not balanced.

    Each pass takes away the innermost brackets. What is left in the end is too much.
    """
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, delete=_NOT_BRACKETS)
    for _ in range(levels):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    return levels + len(brackets)


def _deepest_of_long(body: bytes, levels: int) -> int:
    """Return how deep a long body is, as far as it has to be read for that.

    Its time does not depend on what is in it: 16 MiB take a tenth of a second, and one that is too
    deep from the beginning a millisecond. A body that closes more than it opens is too deep.
    """
    import numpy as np

    depth, quoted, cut, deepest = 0, 0, b"", 0
    for start in range(0, len(body), _CHUNK_BYTES):
        part = cut + body[start : start + _CHUNK_BYTES]
        cut = (
            b"\\" if (len(part) - len(part.rstrip(b"\\"))) % 2 else b""
        )  # in the midst of an escape
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


def refuse_non_finite(value: Any) -> None:
    """Raise for a number anywhere in ``value`` that is not finite; ``orjson`` writes null for it.

    Raises:
        NotFiniteError: There is one; names the row, if ``value`` is a list of them.
    """
    rows = value if isinstance(value, list) else None
    for row, one in enumerate([value] if rows is None else rows):
        if not _is_finite(one):
            raise NotFiniteError(None if rows is None else row)


def with_nulls(value: Any) -> Any:
    """Return a copy of ``value`` with None for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: with_nulls(one) for key, one in value.items()}
    return [with_nulls(one) for one in value] if isinstance(value, list | tuple) else value


def _is_finite(value: Any) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return False
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
    return True


def _refuse_constant(_name: str) -> NoReturn:
    raise InvalidJsonError("NaN and Infinity are not JSON")


def _null_for_nan(name: str) -> None:
    if name != "NaN":
        _refuse_constant(name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJsonError("a number is beyond a double")
    return value


def _int(text: str) -> int | float:
    if len(text) <= _SAFE_DIGITS:
        return int(text)
    if len(text) <= _MOST_DIGITS and _INT64_MIN <= (exact := int(text)) <= _UINT64_MAX:
        return exact
    return _float(text)
