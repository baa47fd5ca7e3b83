"""Damaged files and copies of this node, as sentences for operators."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.contract import DamagedFile as ReportedFile
from registry_sync.planning import admissible_digest, is_quarantined
from registry_sync.reconcile import NodeView
from registry_sync.system import DamagedFile

_MOST_SHOWN = 20
_SHORT = 19
"""Characters of a short digest: its kind, and twelve more."""


def read_damage(view: NodeView) -> list[str]:
    """Return a sentence for each damaged file of either plane, and for each damaged copy."""
    node = view.gateway
    files = [_file("gateway", one) for one in (node.damaged_files if node else ())]
    files += [_file("control plane", one) for one in view.damaged_files()]
    damaged = [f"{_names(view, digest)}: {why}" for digest, why in sorted(copies(view).items())]
    more = len(damaged) - _MOST_SHOWN
    if more > 0:
        damaged[_MOST_SHOWN:] = [f"{more} more copies of this node are damaged"]
    return [*files, *damaged]


def copies(view: NodeView) -> dict[str, str]:
    """Return the digests of damaged copies, and a sentence for each."""
    node = view.gateway
    found = {one.digest: one.reason for one in (node.damaged if node else ())}
    found |= view.damaged_copies()
    if not found:
        return {}
    admissible = set(_admissible(view))
    return {
        digest: f"this node's copy is damaged: {reason}; {_prospect(view, digest in admissible)}"
        for digest, reason in found.items()
    }


def _admissible(view: NodeView) -> Iterator[str | None]:
    ledger = view.ledger
    for listed in view.aspired.versions():
        if not is_quarantined(listed, ledger):
            yield admissible_digest(listed, ledger)


def _prospect(view: NodeView, comes_again: bool) -> str:
    if not view.is_listed:
        return "it is fetched again when the registry answers"
    if comes_again:
        return "it is fetched again"
    return "the registry has no version with these bytes, so it cannot be fetched again"


def _names(view: NodeView, digest: str) -> str:
    """Return the known versions with these bytes, else the start of the digest."""
    node = view.gateway
    accepted = view.ledger.accepted.values()
    names = {f"{one.model}/{one.version}" for one in accepted if one.digest == digest}
    if node:
        names |= {f"{one.model}/{one.version}" for one in node.active if one.digest == digest}
        names |= {f"{one.model}/{one.version}" for one in node.damaged if one.digest == digest}
    return ", ".join(sorted(names)) or digest[:_SHORT]


def _file(plane: str, one: DamagedFile | ReportedFile) -> str:
    kept = f", and is kept as {one.set_aside}" if one.set_aside else ""
    return f"{plane}: {one.name} {one.reason}{kept}; {one.instead}"
