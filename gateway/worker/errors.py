"""Why a request has no answer, as the worker's own code says it to itself."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

from gateway.worker.protocol.messages import bounded

MAX_DETAILS = 20
"""More of them help nobody, and a body of a million bad rows would make an answer as big."""

MOST_OF_A_NAME = 64
"""Characters of a name that a caller or a signature gives."""

MOST_OF_A_DETAIL = 200
"""Characters of a detail's field, and of its reason: a caller may choose both, and JSON spells one
character with up to twelve bytes. Twenty details of full length must fit into one header."""

Detail = tuple["int | None", "str | None", str]
"""Row (0-based), field and reason; the first two only where there is one."""


class RequestRefusedError(Exception):
    """A request that has no answer.

    Attributes:
        code: One of the codes of `gateway.worker.messages.Failed`.
        message: What to tell the caller: never the caller's data, never a traceback.
        details: At most `MAX_DETAILS`.
    """

    def __init__(self, code: str, message: str, details: list[Detail] | None = None) -> None:
        """Store what to tell."""
        super().__init__(message)
        self.code = code
        self.message = bounded(message)
        self.details = (details or [])[:MAX_DETAILS]

    def as_lists(self) -> list[list[Any]]:
        """Return the details as they travel in a message, long texts cut."""
        return [
            [row, None if name is None else _cut(name), _cut(reason)]
            for row, name, reason in self.details
        ]


def _cut(text: str) -> str:
    if len(text) > MOST_OF_A_DETAIL:
        text = f"{text[: MOST_OF_A_DETAIL - 1]}…"
    return bounded(text)


def invalid(message: str, *details: Detail) -> RequestRefusedError:
    """Return the refusal of a body that the caller must change."""
    return RequestRefusedError("invalid_input", message, list(details))


def model_error(message: str) -> RequestRefusedError:
    """Return the refusal for a model that failed on a request which was valid."""
    return RequestRefusedError("model_error", message)


def listed(names: Collection[str]) -> str:
    """Return names for a message: not more of them, nor longer ones, than help anybody."""
    first = [repr(name[:MOST_OF_A_NAME]) for name in islice(names, MAX_DETAILS)]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def not_finite(field: str, row: int | None) -> RequestRefusedError:
    """Return the refusal of an answer with a number that is not finite, where that is refused.

    Args:
        field: The answer's member that holds it.
        row: Its row there, if it is a list of them.
    """
    detail: Detail = (row, field, "a number that is not finite")
    return RequestRefusedError(
        "not_finite", "the model's answer has a number that is not finite", [detail]
    )
