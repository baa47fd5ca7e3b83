"""Where the documents of the gateway say what; the only place of the tests that knows their shape."""

from typing import Any


def active_version(document: dict[str, Any] | None, alias: str) -> int | None:
    """The version that ``GET /models/{m}`` shows as active for ``alias``."""
    if document is None:
        return None
    shown = document["aliases"].get(alias)
    return None if shown is None else shown["active"]
