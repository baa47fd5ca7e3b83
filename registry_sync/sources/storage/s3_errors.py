"""What an S3 storage means when it refuses: botocore has one class for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_GONE = frozenset({"404", "NoSuchKey", "NotFound"})
_CHANGED = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_UNKNOWN = frozenset({"501", "NotImplemented"})


def is_gone(error: ClientError) -> bool:
    """Whether there is no such object."""
    return _code(error) in _GONE


def is_changed(error: ClientError) -> bool:
    """Whether the object is not the one that the request's condition meant."""
    return _code(error) in _CHANGED


def is_unknown(error: ClientError) -> bool:
    """Whether the storage does not know what was asked of it, such as a condition."""
    return _code(error) in _UNKNOWN


def _code(error: ClientError) -> str:
    """Return the word that the storage gave, or the status where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))
