"""Where the gateway's documents say what; the only place of the tests that knows their shape."""

from typing import Any

Document = dict[str, Any]
"""A JSON object as the gateway answered it."""


def alias_of(document: Document | None, alias: str) -> Document:
    """What ``GET /models/{m}`` says of an alias: ``active``, ``aspired``, ``why`` …"""
    assert document is not None
    shown: Document = document["aliases"][alias]
    return shown


def active_version(document: Document | None, alias: str) -> int | None:
    """The version that ``GET /models/{m}`` shows as active for ``alias``."""
    if document is None:
        return None
    shown = document["aliases"].get(alias)
    active: int | None = None if shown is None else shown["active"]
    return active
