"""Quarantined versions: their listing, another verification, and their acceptance."""

from __future__ import annotations

from registry_sync.domain import (
    Quarantine,
    QuarantineAnswer,
    QuarantineRequest,
    Quarantines,
    QuarantineState,
    find,
    is_made_anew,
)
from registry_sync.operations.errors import CannotServeError, NotQuarantinedError, not_recorded
from registry_sync.operations.explained_model import explain_version
from registry_sync.planning import incident_of, quarantine_of, way_out, why_not_acceptable
from registry_sync.reconcile import NodeView, Operators


def read_quarantines(view: NodeView) -> Quarantines:
    """Return the quarantines of this node, newest first."""
    found = view.ledger.quarantines.values()
    newest_first = sorted(found, key=lambda one: one.at, reverse=True)
    return Quarantines(quarantines=[_state(view, one) for one in newest_first])


def _state(view: NodeView, one: Quarantine) -> QuarantineState:
    ledger = view.ledger
    listed = find(view.aspired, one.model, one.version)
    if listed is None:
        incident, end = "gone", "the registry no longer lists it: `quarantine retry` forgets it"
    elif quarantine_of(listed, ledger) is not one:
        incident = "made_anew" if is_made_anew(listed, ledger) else "over"
        end = "it says nothing of the version as it is now: `quarantine retry` forgets it"
    else:
        incident, end = str(incident_of(one, listed, ledger)), way_out(one, listed, ledger)
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


def accept(view: NodeView, operators: Operators, request: QuarantineRequest) -> QuarantineAnswer:
    """Accept the altered bytes of a version, once they are fetched and verified again.

    Until then the digest that was accepted before stays.

    Raises:
        NotQuarantinedError: The version is not quarantined.
        CannotServeError: No acceptance ends this quarantine.
    """
    listed = find(view.aspired, request.model, request.version)
    ledger = view.ledger_of(request.model)
    found = quarantine_of(listed, ledger) if listed else None
    if listed is None or found is None:
        raise _not_quarantined(request)
    if reason := why_not_acceptable(found, listed):
        raise CannotServeError(reason)
    return _fetched(view, operators, request, accepts=found.found_digest)


async def retry_quarantine(
    view: NodeView, operators: Operators, request: QuarantineRequest
) -> QuarantineAnswer:
    """End a quarantine, and fetch and verify the bytes once more.

    The expected digest stays: wrong bytes are quarantined again.

    Raises:
        NotQuarantinedError: The version is not quarantined.
        LedgerError: The ledger did not record the end; nothing has changed.
    """
    of = (request.model, request.version)
    if of not in view.ledger_of(request.model).quarantines:
        raise _not_quarantined(request)
    if not await operators.end_quarantine(*of):
        raise not_recorded(view, f"{request.model}/{request.version} stays quarantined")
    return _fetched(view, operators, request)


def _fetched(
    view: NodeView,
    operators: Operators,
    request: QuarantineRequest,
    *,
    accepts: str | None = None,
) -> QuarantineAnswer:
    """Fetch and verify a version once more; ``accepts`` as in `Operators.fetch`."""
    answer = QuarantineAnswer(model=request.model, version=request.version, explained=[])
    if find(view.aspired, request.model, request.version) is None:
        update = {"outcome": "ended", "reason": "the registry no longer lists it"}
        return answer.model_copy(update=update)
    operators.fetch(request.model, request.version, accepts)
    explained = explain_version(view, request.model, request.version)
    return answer.model_copy(update={"explained": [explained]})


def _not_quarantined(request: QuarantineRequest) -> NotQuarantinedError:
    return NotQuarantinedError(
        f"version {request.version} of {request.model} is not quarantined; "
        "`registry-gateway quarantine list` shows what is"
    )
