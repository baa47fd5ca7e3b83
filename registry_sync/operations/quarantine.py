"""What is quarantined, and how an operator has it checked once more."""

from __future__ import annotations

from registry_sync.errors import LedgerError
from registry_sync.operations.bodies import (
    Quarantines,
    QuarantineState,
    ReleaseAnswer,
    ReleaseRequest,
)
from registry_sync.operations.pinning import bring
from registry_sync.operations.refusals import NotQuarantinedError
from registry_sync.reconcile import Reconciler
from registry_sync.records import AskedBy
from registry_sync.standing import find


def read_quarantines(spine: Reconciler) -> Quarantines:
    """Return what is quarantined on this node, the newest first."""
    found = spine.journal.view.quarantines.values()
    return Quarantines(
        quarantines=[
            QuarantineState(
                model=one.model,
                version=one.version,
                reason=one.reason,
                at=one.at,
                expected_digest=one.expected_digest,
                found_digest=one.found_digest,
                asked_by=one.asked_by,
                listed=find(spine.listings.aspired, one.model, one.version) is not None,
            )
            for one in sorted(found, key=lambda one: one.at, reverse=True)
        ]
    )


async def release(
    spine: Reconciler, request: ReleaseRequest, *, patience_s: float
) -> ReleaseAnswer:
    """Release a quarantine, and have the bytes fetched and checked once more.

    It says nothing of what they must be: wrong ones are quarantined again.

    Args:
        spine: Does the work.
        request: Which version.
        patience_s: Seconds to wait for the bytes; the fetch goes on after that.

    Raises:
        NotQuarantinedError: There is nothing to release.
        LedgerError: The ledger does not take it: nothing has changed.
    """
    key = (request.model, request.version)
    if key not in spine.journal.view.quarantines:
        raise NotQuarantinedError(
            f"version {request.version} of {request.model} is not quarantined; "
            "`registry-gateway quarantine list` shows what is"
        )
    released = await spine.journal.write(
        spine.ledger.release_quarantine, *key, str(AskedBy.OPERATOR)
    )
    if not released:
        raise LedgerError(spine.journal.trouble or "the ledger did not take it")
    await spine.next_decision()
    answer = ReleaseAnswer(outcome="accepted", model=request.model, version=request.version)
    if find(spine.listings.aspired, *key) is None:
        reason = "the registry no longer lists it"
        return answer.model_copy(update={"outcome": "released", "reason": reason})
    reason_not = await bring(spine, *key, patience_s=patience_s)
    if reason_not is None:
        return answer
    again = key in spine.journal.view.quarantines
    outcome = "refused" if again else "pending"
    return answer.model_copy(update={"outcome": outcome, "reason": reason_not})
