"""The table from error class to HTTP status, and the shape of errors on our own routes.

Errors are RFC 9457 problems with three extensions: the machine ``code``, the ``request_id`` and,
for bad input, ``errors`` with row, field and reason.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import orjson

from gateway import errors
from gateway.errors import GatewayError
from gateway.system.http1 import RefusedError, problem_of
from gateway.system.logs import for_public

_IDS_AT_ONCE = 256

STATUS: dict[type[GatewayError], int] = {
    GatewayError: 500,
    errors.RequestError: 400,
    errors.ModelNotFoundError: 404,
    errors.VersionNotFoundError: 404,
    errors.AliasNotFoundError: 404,
    errors.NoDefaultVersionError: 404,
    errors.VersionDeletedError: 410,
    errors.InvalidSelectorError: 400,
    errors.InvalidTimeoutError: 400,
    errors.VersionConflictError: 400,
    errors.MediaTypeError: 415,
    errors.InvalidInputError: 422,
    errors.CapacityError: 503,
    errors.ModelLoadingError: 503,
    errors.ModelOverloadedError: 429,
    errors.GatewayOverloadedError: 429,
    errors.InsufficientMemoryError: 507,
    errors.DrainingError: 503,
    errors.ServingError: 503,
    errors.RegistryUnavailableError: 503,
    errors.ModelLoadFailedError: 503,
    errors.VersionQuarantinedError: 503,
    errors.WorkerDiedError: 503,
    errors.DeadlineExceededError: 504,
    errors.ModelRaisedError: 500,
    errors.NotFiniteAnswerError: 422,
}
"""A test shows that it has every class of `gateway.errors` that reaches a caller."""


_WITH_REASONS = (errors.ServingError, errors.ModelLoadingError, errors.VersionDeletedError)
"""Errors whose messages may quote a registry, a storage or a library."""


def _random_ids() -> Iterator[str]:
    """Yield ids, from randomness that is read for many at once."""
    while True:
        digits = os.urandom(16 * _IDS_AT_ONCE).hex()
        for start in range(0, len(digits), 32):
            yield digits[start : start + 32]


new_request_id = _random_ids().__next__
"""Returns a new request id."""


def status_of(error: GatewayError | RefusedError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, RefusedError) else STATUS[type(error)]


def retry_after(error: GatewayError | RefusedError) -> str | None:
    """Return ``Retry-After`` in whole seconds, at least 1, or None if it is unknown."""
    if error.retry_after_s is None:
        return None
    return str(max(1, math.ceil(error.retry_after_s)))


def problem(error: GatewayError | RefusedError, request_id: str) -> dict[str, Any]:
    """Return the problem of an error."""
    detail = for_public(error.message) if isinstance(error, _WITH_REASONS) else error.message
    body = problem_of(status_of(error), error.code, detail, request_id)
    if isinstance(error, GatewayError) and error.details:
        body["errors"] = [
            {"row": row, "field": field, "reason": reason} for row, field, reason in error.details
        ]
    return body


def render(error: GatewayError | RefusedError, request_id: str) -> bytes:
    """Return the encoded problem of an error."""
    return orjson.dumps(problem(error, request_id))
