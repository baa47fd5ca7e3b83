"""Retention: the artifacts that must stay, and those that are removed now. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Set as AbstractSet

from gateway.contract import NodeState
from registry_sync.artifacts import StoredArtifact
from registry_sync.domain import Aspired, LedgerView, find
from registry_sync.planning.admissibility import admissible_digest


def what_stays(
    node: NodeState, aspired: Aspired, ledger: LedgerView, *, since: float
) -> dict[str, AbstractSet[str]]:
    """Return the digests that must stay, by reason; a reason completes "so many bytes are …".

    ``since`` (epoch seconds) is the begin of the rollback retention: bytes that an alias has left
    or lost after it stay.
    """

    def admissible(versions: Iterable[tuple[str, int]]) -> AbstractSet[str]:
        found = (find(aspired, *version) for version in versions)
        return {d for one in found if one and (d := admissible_digest(one, ledger))}

    return {
        "active": {one.digest for one in node.active},
        "staged or waited for": {one.digest for one in node.standbys}
        | admissible((one.model, one.version) for one in node.wanted),
        "resident on the gateway": set(node.resident),
        "left by an alias within the rollback window": {
            one.previous_digest for one in node.active if one.previous_digest and one.since > since
        },
        "last known good": {
            one.digest
            for one in ledger.last_active.values()
            if one.retired_at is None or one.retired_at > since
        },
        "meant by an alias of the registry": admissible(
            (model.name, version)
            for model in aspired.models.values()
            for version in model.aliases.values()
        ),
        "held or pinned": {one.target_digest for one in ledger.holds.values()},
    }


def choose_removed(
    artifacts: Mapping[str, StoredArtifact],
    kept: Iterable[AbstractSet[str]],
    *,
    listed: Container[str | None],
    needed_at: Mapping[str, float],
    since: float,
    disk_bytes: int = 0,
    budget_bytes: int = 0,
) -> list[str]:
    """Return the digests to remove now, in order.

    Unlisted artifacts go first, and always after the rollback retention. Listed ones follow, the
    least recently needed first, only as far as bytes are missing. Artifacts that were stored within
    the retention go only for the budget: else a small budget would block fetches for as long.

    Args:
        artifacts: All artifacts in the store, by digest.
        kept: Digests that must stay.
        listed: Digests of listed versions, which callers may call by number.
        needed_at: Epoch seconds of the last need, by digest; by default the time of storing.
        since: Epoch seconds of the begin of the rollback retention.
        disk_bytes: Bytes that are missing to the floor of the disk.
        budget_bytes: Bytes above the store's budget, fetches under way included.
    """

    def order(digest: str) -> tuple[bool, float, str]:
        needed = max(artifacts[digest].stored_at, needed_at.get(digest, 0.0))
        return digest in listed, needed, digest

    going: list[str] = []
    freed_bytes = 0
    for digest in sorted(artifacts.keys() - set().union(*kept), key=order):
        came_lately = artifacts[digest].stored_at > since
        may_stay = digest in listed and disk_bytes <= freed_bytes
        if budget_bytes > freed_bytes or not (came_lately or may_stay):
            going.append(digest)
            freed_bytes += artifacts[digest].size_bytes
    return going
