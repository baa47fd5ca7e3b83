"""What a gateway went back from by rule: what is to be recorded of it, and when it is over. Pure.

The gateway decides alone, and holds the alias from the bytes that it left. Here it becomes what an
operator's rollback is: a hold that ends when the registry moves the alias to another version.
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
    """Return what the gateway went back from and nobody has recorded yet, the oldest first."""
    found = [one for one in node.holds if one.to_version is not None and not _known(one, ledger)]
    return sorted(found, key=lambda one: one.since)


def over(node: NodeState, ledger: LedgerView) -> Iterator[AliasHold]:
    """Yield what the gateway holds still, although the registry or an operator has ended that."""
    for held in node.holds:
        standing = ledger.holds.get((held.model, held.alias))
        if (standing is None or standing.asked_by != AskedBy.RULE) and _known(held, ledger):
            yield held


def _known(held: AliasHold, ledger: LedgerView) -> bool:
    """Whether it was recorded; of what an older gateway wrote down, too little is known."""
    return held.version is None or (held.model, held.alias, held.since) in ledger.went_back


def rollback_of(
    held: AliasHold, standing: Hold | None, ledger: LedgerView, *, own: bool
) -> Rollback:
    """Return what is to be recorded.

    Args:
        held: What the gateway says; complete.
        standing: What holds the alias so far: where the gateway went back twice, the registry
            wishes what it wished when it did so first.
        ledger: What is remembered.
        own: Whether the version that it left ran in an environment of its own.
    """
    version, to_version, to_digest = held.version or 0, held.to_version or 0, held.to_digest or ""
    again = standing is not None and standing.asked_by == AskedBy.RULE
    aspired = standing.aspired_version if standing is not None and again else version
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
            aspired_version=aspired,
            target_version=to_version,
            target_digest=to_digest,
            asked_by=AskedBy.RULE,
            at=held.since,
            aspired_creation=standing.aspired_creation if standing and again else left,
            target_creation=creation,
        ),
    )
