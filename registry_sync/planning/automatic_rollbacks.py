"""Automatic rollbacks of the gateway: their records, and the end of their holds. Pure.

The gateway decides alone, and holds the alias from the bytes that it left. The record is that of an
operator's rollback: a hold that ends when the registry moves the alias to another version.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.contract import AliasHold, NodeState
from registry_sync.domain import (
    LIVE_FAILURE,
    OWN_FAILURE,
    Activation,
    AskedBy,
    Hold,
    LedgerView,
    Rejection,
    Rollback,
    creation_of_bytes,
)


def unrecorded(node: NodeState, ledger: LedgerView) -> list[AliasHold]:
    """Return the holds of rollbacks that are not recorded yet, the oldest first."""
    found = [one for one in node.holds if one.to_version is not None and not _known(one, ledger)]
    return sorted(found, key=lambda one: one.since)


def over(node: NodeState, ledger: LedgerView) -> Iterator[AliasHold]:
    """Yield the gateway's holds that the registry or an operator has ended."""
    for held in node.holds:
        standing = ledger.holds.get((held.model, held.alias))
        if (standing is None or standing.asked_by != AskedBy.RULE) and _known(held, ledger):
            yield held


def _known(held: AliasHold, ledger: LedgerView) -> bool:
    """Return whether a rollback was recorded. An older gateway wrote down too little of it."""
    alias_and_time = (held.model, held.alias, held.since)
    return held.version is None or alias_and_time in ledger.automatic_rollbacks


def rollback_of(held: AliasHold, ledger: LedgerView, *, own: bool) -> Rollback:
    """Return the record of an automatic rollback.

    Args:
        held: The gateway's hold; complete.
        ledger: The creations of both versions are in it.
        own: Whether the version that was left ran in an environment of its own.
    """
    version, to_version, to_digest = held.version or 0, held.to_version or 0, held.to_digest or ""
    left = creation_of_bytes(ledger, held.model, version, held.digest)
    creation = creation_of_bytes(ledger, held.model, to_version, to_digest)
    return Rollback(
        activation=Activation(
            model=held.model,
            alias=held.alias,
            version=to_version,
            digest=to_digest,
            previous_version=version,
            previous_digest=held.digest,
            asked_by=AskedBy.RULE,
            at=held.since,
            generation=held.generation,
            reason=held.reason,
            creation=creation,
        ),
        rejection=Rejection(
            model=held.model,
            version=version,
            digest=held.digest,
            failure=f"{OWN_FAILURE if own else ''}{LIVE_FAILURE}",
            reason=held.reason,
            at=held.since,
        ),
        hold=Hold(
            model=held.model,
            alias=held.alias,
            aspired_version=version,
            target_version=to_version,
            target_digest=to_digest,
            asked_by=AskedBy.RULE,
            at=held.since,
            aspired_creation=left,
            target_creation=creation,
        ),
    )
