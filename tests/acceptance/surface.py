"""Where the gateway's documents say what; the only place of the tests that knows their shape."""

from typing import Any


def alias_of(document: dict[str, Any] | None, alias: str) -> dict[str, Any]:
    """What ``GET /models/{m}`` says of an alias: ``active``, ``aspired``, ``why`` …"""
    assert document is not None
    shown: dict[str, Any] = document["aliases"][alias]
    return shown


def active_version(document: dict[str, Any] | None, alias: str) -> int | None:
    """The version that ``GET /models/{m}`` shows as active for ``alias``."""
    if document is None:
        return None
    shown = document["aliases"].get(alias)
    return None if shown is None else shown["active"]
