"""What is quarantined, and how an operator has it checked once more, or accepts it."""

from __future__ import annotations

from registry_sync.domain import (
    AskedBy,
    Quarantine,
    Quarantines,
    QuarantineState,
    ReleaseAnswer,
    ReleaseRequest,
    find,
    is_made_anew,
)
from registry_sync.operations.decisions.pinning import bring
from registry_sync.operations.errors import NotQuarantinedError, not_recorded
from registry_sync.planning import Fetch, incident_of, quarantine_of, way_out, why_not_acceptable
from registry_sync.reconcile import Reconciler


def read_quarantines(spine: Reconciler) -> Quarantines:
    """Return what is quarantined on this node, the newest first."""
    found = spine.journal.view.quarantines.values()
    newest_first = sorted(found, key=lambda one: one.at, reverse=True)
    return Quarantines(quarantines=[_state(spine, one) for one in newest_first])


def _state(spine: Reconciler, one: Quarantine) -> QuarantineState:
    view = spine.journal.view
    listed = find(spine.listings.aspired, one.model, one.version)
    if listed is None:
        incident, end = "gone", "the registry no longer lists it: `quarantine release` forgets it"
    elif quarantine_of(listed, view) is not one:
        incident = "made_anew" if is_made_anew(listed, view) else "over"
        end = "it says nothing of the version as it is now: `quarantine release` forgets it"
    else:
        incident, end = str(incident_of(one, listed, view)), way_out(one, listed, view)
    return QuarantineState(
        model=one.model,
        version=one.version,
        reason=one.reason,
        at=one.at,
        expected_digest=one.expected_digest,
        found_digest=one.found_digest,
        asked_by=one.asked_by,
        listed=listed is not None,
        incident=incident,
        way_out=end,
    )


async def accept(spine: Reconciler, request: ReleaseRequest, *, patience_s: float) -> ReleaseAnswer:
    """Accept the bytes of a version as they were found altered: fetched and checked against that.

    Until these very bytes are here, and can be read, what was accepted before counts.

    Args:
        spine: Does the work.
        request: Which version.
        patience_s: Seconds to wait for the bytes; the fetch goes on after that.

    Raises:
        NotQuarantinedError: There is nothing to accept.
    """
    view = spine.journal.view
    listed = find(spine.listings.aspired, request.model, request.version)
    found = quarantine_of(listed, view) if listed else None
    if listed is None or found is None:
        raise _not_quarantined(request)
    answer = ReleaseAnswer(outcome="refused", model=request.model, version=request.version)
    if reason := why_not_acceptable(found, listed):
        return answer.model_copy(update={"reason": reason})
    return await _bring(spine, request, patience_s=patience_s, accepted=found)


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
    if (request.model, request.version) not in spine.journal.view.quarantines:
        raise _not_quarantined(request)
    released = await spine.journal.write(
        request.model,
        spine.ledger.release_quarantine,
        *(request.model, request.version, str(AskedBy.OPERATOR)),
    )
    if not released:
        raise not_recorded(spine, f"{request.model}/{request.version} stays quarantined")
    return await _bring(spine, request, patience_s=patience_s)


def _not_quarantined(request: ReleaseRequest) -> NotQuarantinedError:
    return NotQuarantinedError(
        f"version {request.version} of {request.model} is not quarantined; "
        "`registry-gateway quarantine list` shows what is"
    )


async def _bring(
    spine: Reconciler,
    request: ReleaseRequest,
    *,
    patience_s: float,
    accepted: Quarantine | None = None,
) -> ReleaseAnswer:
    """Have a version fetched and checked once more, and say how that went.

    ``accepted`` is the quarantine whose bytes an operator accepts; None: it was released.
    """
    key = (request.model, request.version)
    await spine.next_decision()
    answer = ReleaseAnswer(outcome="accepted", model=request.model, version=request.version)
    listed = find(spine.listings.aspired, *key)
    if listed is None:
        reason = "the registry no longer lists it"
        return answer.model_copy(update={"outcome": "released", "reason": reason})
    accepts = accepted.found_digest if accepted else None
    reason_not = await bring(spine, *key, patience_s=patience_s, accepts=accepts)
    if reason_not is None:
        return answer
    standing = quarantine_of(listed, spine.journal.view)
    if standing is None or _is_accepting(spine, *key, accepts):
        return answer.model_copy(update={"outcome": "pending", "reason": reason_not})
    if standing == accepted:  # nothing was found out about the bytes
        again = f"run `registry-gateway quarantine accept {request.model}/{request.version}` again"
        reason_not = f"{reason_not}; nothing has changed: {again}"
    return answer.model_copy(update={"outcome": "refused", "reason": reason_not})


def _is_accepting(spine: Reconciler, model: str, version: int, accepts: str | None) -> bool:
    """Whether bytes that an operator accepts are on their way: they end the quarantine."""
    wanted = (model, version, accepts)
    return accepts is not None and any(
        isinstance(one, Fetch) and (one.model, one.version, one.accepts) == wanted
        for one in spine.steps.doing()
    )
