"""Reads the line and headers of a prediction request. Pure but for the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

from gateway.contract import InvalidReferenceError, Selector, parse_model_name, parse_selector
from gateway.errors import (
    InvalidInputError,
    InvalidSelectorError,
    InvalidTimeoutError,
    MediaTypeError,
)
from gateway.http.problems import new_request_id

URL = re.compile(
    rb"/models/([^/?#\x80-\xff]+)(?:/versions/([^/?#\x80-\xff]+))?/predict/?(?:\?([^#]*))?\Z"
)
"""The path of a prediction: model, version if it names one, and query."""
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")
_MAX_MEDIA_TYPE_BYTES = 1024
_MAX_SELECTOR_BYTES = 4 * 1024
_MAX_QUERY_BYTES = 1024
"""Longer than any legal selector or query. A bound, since escapes take time to decode."""
_CACHED_BYTES = 256
_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")


class Target(NamedTuple):
    """The version by path and header, which must agree, and whether to add probabilities."""

    model: str
    selector: Selector | None
    second_selector: Selector | None
    probabilities: bool


class RequestHead(NamedTuple):
    """The line and headers of a prediction request.

    Attributes:
        deadline: The caller's deadline (``CLOCK_MONOTONIC``, seconds), or None.
    """

    target: Target
    deadline: float | None
    content_type: str
    content_encoding: str


def read(
    model: bytes,
    version: bytes | None,
    query: bytes,
    pairs: Sequence[tuple[bytes, bytes]],
    headers: Mapping[bytes, bytes],
) -> RequestHead:
    """Read a request's line and headers; ``headers`` are ``pairs`` by name.

    Raises:
        InvalidSelectorError: Model, version or alias is malformed, or the header is given twice.
        InvalidTimeoutError: The time-out is malformed, or the header is given twice.
        InvalidInputError: The query is too long, or a parameter is invalid.
        MediaTypeError: A media type is too long.
    """
    if len(headers) < len(pairs):
        _refuse_duplicates(pairs)
    deadline = _deadline(headers.get(b"x-request-timeout"))
    header = headers.get(b"x-model-version")
    short = len(model) + len(version or b"") + len(query) + len(header or b"") < _CACHED_BYTES
    target = (_cached_target if short else _target)(model, version, query, header)
    return RequestHead(
        target, deadline, _media(headers, b"content-type"), _media(headers, b"content-encoding")
    )


def _target(model: bytes, version: bytes | None, query: bytes, header: bytes | None) -> Target:
    selector, second_selector = _selectors(version, header)
    return Target(_decode_name(model), selector, second_selector, _probabilities(query))


_cached_target = lru_cache(maxsize=1024)(_target)
"""Requests repeat; refusals are not cached."""


def _media(headers: Mapping[bytes, bytes], name: bytes) -> str:
    """Return a header that goes to the worker, whose frame headers are small."""
    value = headers.get(name, b"")
    if len(value) > _MAX_MEDIA_TYPE_BYTES:
        raise MediaTypeError(f"{name.decode()} is longer than {_MAX_MEDIA_TYPE_BYTES} bytes")
    return value.decode("latin-1")


def _decode_name(raw: bytes) -> str:
    try:
        return parse_model_name(_decode_utf8(raw))
    except (UnicodeDecodeError, InvalidReferenceError) as error:
        raise InvalidSelectorError(f"not a model's name: {error}") from error


def _selectors(path: bytes | None, header: bytes | None) -> tuple[Selector | None, Selector | None]:
    """Return the selector, and the header's if the path has one too.

    In a path an alias has its ``@``; in the header it may. Both are UTF-8 and may be
    percent-encoded. Other encodings are refused, since the same bytes may name another alias.
    """
    try:
        by_header = _header_selector(header) if header is not None else None
        if path is None:
            return by_header, None
        return parse_selector(_decode_utf8(path)), by_header
    except InvalidReferenceError as error:
        raise InvalidSelectorError(f"not a version or alias: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidSelectorError(
            "not a version or alias: it is not UTF-8; percent-encode what is not ASCII, such as "
            "%C3%BC for \u00fc"
        ) from error


def _header_selector(header: bytes) -> Selector:
    if len(header) > _MAX_SELECTOR_BYTES:
        raise InvalidReferenceError(
            f"the header X-Model-Version must have at most {_MAX_SELECTOR_BYTES} bytes"
        )
    return parse_selector(_decode_utf8(header.strip()))


def _decode_utf8(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8")


def _refuse_duplicates(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse two headers of one name: they may disagree."""
    if sum(name == b"x-model-version" for name, _ in headers) > 1:
        raise InvalidSelectorError("the header X-Model-Version is given more than once")
    if sum(name == b"x-request-timeout" for name, _ in headers) > 1:
        raise InvalidTimeoutError("the header X-Request-Timeout is given more than once")


def _deadline(header: bytes | None) -> float | None:
    """Return the deadline of a request from its timeout in seconds."""
    if header is None:
        return None
    if not _SECONDS.match(header):
        raise InvalidTimeoutError("the header X-Request-Timeout must be a number of seconds")
    return time.monotonic() + float(header)


def _probabilities(query: bytes) -> bool:
    if not query:
        return False
    if len(query) > _MAX_QUERY_BYTES:
        raise InvalidInputError(f"the query must have at most {_MAX_QUERY_BYTES} bytes")
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("probabilities", [])
    if not values:
        return False
    value = values[-1].lower()
    if value not in (*_TRUE, *_FALSE):
        raise InvalidInputError("query parameter 'probabilities' must be 'true' or 'false'")
    return value in _TRUE


# --- request ids ----------------------------------------------------------------------------------


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's ``X-Request-Id`` if it is printable and short, else a new one."""
    own = headers.get(b"x-request-id")
    if own is not None and _REQUEST_ID.match(own):
        return own.decode("ascii")
    return new_request_id()
