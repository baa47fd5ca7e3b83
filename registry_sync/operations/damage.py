"""What of this node's files and copies was found damaged, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from registry_sync.planning import admissible_digest, is_quarantined
from registry_sync.reconcile import Reconciler

_MOST_TOLD = 20
_SHORT = 19
"""Characters of a digest that people tell apart: its kind, and twelve more."""


class _DamagedFile(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def instead(self) -> str: ...
    @property
    def set_aside(self) -> str | None: ...


def read_damage(spine: Reconciler) -> list[str]:
    """Return a sentence for each damaged file of either plane, and for each damaged copy."""
    node = spine.observation.node
    files = [_file("gateway", one) for one in (node.damaged_files if node else ())]
    files += [_file("control plane", one) for one in spine.damaged_files.all()]
    told = [f"{_names(spine, digest)}: {why}" for digest, why in sorted(copies(spine).items())]
    more = len(told) - _MOST_TOLD
    if more > 0:
        told[_MOST_TOLD:] = [f"{more} more copies of this node are damaged"]
    return [*files, *told]


def copies(spine: Reconciler) -> dict[str, str]:
    """Return the digests of damaged copies, and a sentence for each."""
    node = spine.observation.node
    found = {one.digest: one.reason for one in (node.damaged if node else ())}
    found |= spine.store.damaged()
    if not found:
        return {}
    admissible = set(_admissible(spine))
    return {
        digest: f"this node's copy is damaged: {reason}; {_prospect(spine, digest in admissible)}"
        for digest, reason in found.items()
    }


def _admissible(spine: Reconciler) -> Iterator[str | None]:
    view = spine.journal.view
    for listed in spine.listings.aspired.versions():
        if not is_quarantined(listed, view):
            yield admissible_digest(listed, view)


def _prospect(spine: Reconciler, comes_again: bool) -> str:
    if spine.listings.error is not None or not spine.listings.count:
        return "it is fetched again when the registry answers"
    if comes_again:
        return "it is fetched again"
    return "the registry has no version with these bytes, so it cannot be fetched again"


def _names(spine: Reconciler, digest: str) -> str:
    """Return the versions that have these bytes, as far as is known."""
    node = spine.observation.node
    pins = spine.journal.view.pins.values()
    names = {f"{one.model}/{one.version}" for one in pins if one.digest == digest}
    if node:
        names |= {f"{one.model}/{one.version}" for one in node.active if one.digest == digest}
        names |= {f"{one.model}/{one.version}" for one in node.damaged if one.digest == digest}
    return ", ".join(sorted(names)) or digest[:_SHORT]


def _file(plane: str, one: _DamagedFile) -> str:
    kept = f", and is kept as {one.set_aside}" if one.set_aside else ""
    return f"{plane}: {one.name} {one.reason}{kept}; {one.instead}"
