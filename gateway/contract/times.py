"""Times in JSON answers: RFC 3339 in UTC, with milliseconds. Inside, they are epoch seconds.

Times that the planes compare stay epoch seconds in their bodies, since rounding would change them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_LATEST_S = 253_402_300_799.0
"""The last second of the year 9999, the last that the format has."""


def to_rfc3339(at: float | None) -> str | None:
    """Return epoch seconds as RFC 3339, or None for None. Times beyond the format are clamped."""
    if at is None:
        return None
    within = at if 0.0 <= at <= _LATEST_S else 0.0 if at < 0.0 else _LATEST_S
    return datetime.fromtimestamp(within, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _to_epoch_s(given: Any) -> Any:
    return datetime.fromisoformat(given).timestamp() if isinstance(given, str) else given


Timestamp = Annotated[
    float,
    BeforeValidator(_to_epoch_s),
    PlainSerializer(to_rfc3339, return_type=str, when_used="json"),
]
"""Epoch seconds in Python, RFC 3339 in JSON."""
