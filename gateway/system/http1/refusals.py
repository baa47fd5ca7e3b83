"""Refusals by HTTP itself or by a listener's limits, each with its status and code.

They are rendered as RFC 9457 problems. A message never contains a caller's data.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any, ClassVar

import orjson

MEDIA_TYPE = "application/problem+json"


class RefusedError(Exception):
    """A request is refused.

    Attributes:
        lines: More headers of the answer, each with its line break.
        retry_after_s: Seconds after which the caller may try again, or None if unknown.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_http"
    lines: ClassVar[str] = ""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class InvalidHttpError(RefusedError):
    """The bytes on the connection are not a valid HTTP/1.1 request."""


class TinyChunksError(InvalidHttpError):
    """The chunks of a body are too small for its length. The rest of the body is not read."""


class UnknownCodingError(RefusedError):
    """The body has a transfer coding other than ``chunked``."""

    status = 501
    code = "unknown_transfer_coding"


class UriTooLongError(RefusedError):
    """The request target is too long."""

    status = 414
    code = "uri_too_long"


class HeadTooLargeError(RefusedError):
    """The request's line and headers, or its trailers, are too large or too many."""

    status = 431
    code = "head_too_large"


class HeadTimeoutError(RefusedError):
    """The request's line and headers did not arrive in time."""

    status = 408
    code = "head_timeout"


class BodyTooLargeError(RefusedError):
    """The body is larger than the limit."""

    status = 413
    code = "body_too_large"


class BodyTimeoutError(RefusedError):
    """The body did not arrive in time."""

    status = 408
    code = "body_timeout"


class TooManyConnectionsError(RefusedError):
    """The listener has too many connections."""

    status = 503
    code = "too_many_connections"


class EndingError(RefusedError):
    """The process ends before the request can be answered."""

    status = 503
    code = "draining"

    def __init__(self) -> None:
        super().__init__("the process is shutting down", retry_after_s=1)


class CrashedError(RefusedError):
    """A fault of the process itself."""

    status = 500
    code = "internal_error"


def problem_of(status: int, code: str, detail: str, request_id: str) -> dict[str, Any]:
    """Return the members of a problem."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }


def render(error: RefusedError) -> tuple[bytes, bytes]:
    """Return the header lines and the body of a refusal's answer."""
    request_id = uuid.uuid4().hex
    body = orjson.dumps(problem_of(error.status, error.code, error.message, request_id))
    again = f"retry-after: {error.retry_after_s}\r\n" if error.retry_after_s else ""
    lines = (
        f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\n{again}{error.lines}"
    )
    return lines.encode(), body
