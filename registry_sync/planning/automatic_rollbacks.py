"""Automatic rollbacks of the gateway: their records, and which digests are allowed again. Pure.

The gateway decides alone, and refuses the alias the digest that it left. The record is a hold, as
after an operator's rollback: it ends when the registry moves the alias to another version.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.contract import NodeState, RefusedDigest
from registry_sync.domain import (
    LIVE_FAILURE,
    Activation,
    Hold,
    Initiator,
    LedgerView,
    Rejection,
    Rollback,
    creation_of_bytes,
)


def unrecorded(node: NodeState, ledger: LedgerView) -> list[RefusedDigest]:
    """Return the refused digests whose rollbacks are not recorded yet, oldest first."""
    found = [
        one
        for one in node.refused_digests
        if one.to_version is not None and not _known(one, ledger)
    ]
    return sorted(found, key=lambda one: one.since)


def over(node: NodeState, ledger: LedgerView) -> Iterator[RefusedDigest]:
    """Yield the refused digests whose hold the registry or an operator has ended."""
    for refused in node.refused_digests:
        hold = ledger.holds.get(refused.alias_ref)
        if (hold is None or hold.asked_by != Initiator.GATEWAY) and _known(refused, ledger):
            yield refused


def _known(refused: RefusedDigest, ledger: LedgerView) -> bool:
    """Whether a rollback is recorded, or lacks what a record needs (of an older gateway)."""
    return (
        refused.version is None or (refused.alias_ref, refused.since) in ledger.automatic_rollbacks
    )


def rollback_of(refused: RefusedDigest, ledger: LedgerView, *, own: bool) -> Rollback:
    """Return the record of an automatic rollback that is not recorded yet.

    ``own`` says whether the version that the alias left ran in an environment of its own.
    """
    version, to_version, to_digest = (
        refused.version or 0,
        refused.to_version or 0,
        refused.to_digest or "",
    )
    left = creation_of_bytes(ledger, refused.model, version, refused.digest)
    creation = creation_of_bytes(ledger, refused.model, to_version, to_digest)
    return Rollback(
        activation=Activation(
            model=refused.model,
            alias=refused.alias,
            version=to_version,
            digest=to_digest,
            previous_version=version,
            previous_digest=refused.digest,
            asked_by=Initiator.GATEWAY,
            at=refused.since,
            generation=refused.generation,
            reason=refused.reason,
            creation=creation,
        ),
        rejection=Rejection(
            model=refused.model,
            version=version,
            digest=refused.digest,
            failure=LIVE_FAILURE,
            reason=refused.reason,
            at=refused.since,
            own=own,
        ),
        hold=Hold(
            model=refused.model,
            alias=refused.alias,
            aspired_version=version,
            target_version=to_version,
            target_digest=to_digest,
            asked_by=Initiator.GATEWAY,
            at=refused.since,
            aspired_creation=left,
            target_creation=creation,
        ),
    )
