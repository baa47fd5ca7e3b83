"""Errors of requests in the worker."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from gateway.worker.protocol.messages import bounded

MAX_DETAILS = 20
"""Bounds the answer to a body with a million bad rows."""

MOST_OF_A_NAME = 64
"""Most characters of a caller's or a signature's name."""

MOST_OF_A_DETAIL = 200
"""Most characters of a detail's field and of its reason. JSON spells one character with up to
twelve bytes, and twenty details must fit into one header."""

MISFIT = "the input does not fit the model's signature"

Detail = tuple["int | None", "str | None", str]
"""Row (0-based) or None, field or None, and reason."""


class RequestRefusedError(Exception):
    """A request that fails.

    Attributes:
        code: A code of `gateway.worker.protocol.messages.Failed`.
        message: A message for the caller, without the caller's data and without a traceback.
        details: At most `MAX_DETAILS`.
    """

    def __init__(self, code: str, message: str, details: list[Detail] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = bounded(message)
        self.details = (details or [])[:MAX_DETAILS]

    def as_lists(self) -> list[list[Any]]:
        """Return the details for a message, with long texts cut."""
        return [
            [row, None if name is None else _cut(name), _cut(reason)]
            for row, name, reason in self.details
        ]


def _cut(text: str) -> str:
    if len(text) > MOST_OF_A_DETAIL:
        text = f"{text[: MOST_OF_A_DETAIL - 1]}…"
    return bounded(text)


def invalid(message: str, *details: Detail) -> RequestRefusedError:
    """Return the error of an invalid body."""
    return RequestRefusedError("invalid_input", message, list(details))


def refuse_if_any(details: Iterable[Detail], message: str = MISFIT) -> None:
    """Refuse a body if there are any details; never hold a million of them.

    Raises:
        RequestRefusedError: ``invalid_input``, with the first details.
    """
    if first := list(islice(details, MAX_DETAILS)):
        raise invalid(message, *first)


def model_error(message: str) -> RequestRefusedError:
    """Return the error of a model that failed on a valid request."""
    return RequestRefusedError("model_error", message)


def listed(names: Collection[str]) -> str:
    """Return names for a message, bounded in count and length."""
    first = [repr(name[:MOST_OF_A_NAME]) for name in islice(names, MAX_DETAILS)]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
