"""The meaning of S3 error codes; botocore has one class for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_GONE = frozenset({"404", "NoSuchKey", "NotFound"})
_CHANGED = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_UNKNOWN = frozenset({"501", "NotImplemented"})


def is_gone(error: ClientError) -> bool:
    """Whether the object does not exist."""
    return _code(error) in _GONE


def is_changed(error: ClientError) -> bool:
    """Whether the object fails the request's condition."""
    return _code(error) in _CHANGED


def is_unknown(error: ClientError) -> bool:
    """Whether the storage does not support the request, such as a condition."""
    return _code(error) in _UNKNOWN


def _code(error: ClientError) -> str:
    """Return the storage's code, or the status of an answer without a body."""
    return str(error.response.get("Error", {}).get("Code", ""))
