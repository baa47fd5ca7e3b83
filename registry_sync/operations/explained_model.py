"""The explanation of a model's selectors on this node, for operators."""

from __future__ import annotations

from gateway.contract import AliasRef, CatalogueVersion, Selector, VersionState
from registry_sync.domain import ExplainAnswer, HistoryEntry, HoldState, ModelState, SelectorState
from registry_sync.errors import LedgerError
from registry_sync.operations.damage import copies
from registry_sync.operations.errors import UnknownError
from registry_sync.operations.state import (
    fetches,
    frozen,
    last_failure,
    model_state,
    read_history,
)
from registry_sync.planning import explain
from registry_sync.reconcile import NodeView

_SHOWN_ATTEMPTS = 8
_SEARCHED_ATTEMPTS = 200
_STATES = {
    VersionState.REGISTERED: "its bytes are not on this node: they are fetched on demand",
    VersionState.FETCHING: "its bytes are being fetched",
    VersionState.AVAILABLE: "its verified bytes are on this node",
}


async def explain_model(view: NodeView, model: str, selector: Selector | None) -> ExplainAnswer:
    """Explain a model's selector or, with None, every alias.

    Raises:
        UnknownError: Neither the registry nor this node knows it.
    """
    doing = view.unfinished(model)
    state = model_state(view, model)
    if state is None and "list" in doing and selector is None:
        state = ModelState(name=model, aliases=[], versions=[])
    if state is None:
        problem = view.source_error
        raise UnknownError(
            f"neither the registry nor this node knows a model {model!r}"
            + (f"; the registry could not be listed: {problem}" if problem else "")
        )
    if selector is None:
        explained = [explain_alias(view, model, alias.alias) for alias in state.aliases]
    elif isinstance(selector, int):
        explained = [explain_version(view, model, selector)]
    else:
        _must_have(state, selector)
        explained = [explain_alias(view, model, selector)]
    attempts, ledger_error = await _attempts(view, model, explained if selector else None)
    return ExplainAnswer(
        model=model,
        listed_at=view.listed_at,
        source_error=view.source_error,
        gateway_error=view.gateway_error,
        ledger_error=ledger_error or view.ledger_error,
        frozen=frozen(view),
        selectors=explained,
        versions=_concerned(view, state, explained),
        fetches=fetches(view, model),
        doing=doing,
        attempts=attempts,
    )


def _must_have(state: ModelState, alias: str) -> None:
    known = [one.alias for one in state.aliases]
    if alias not in known:
        raise UnknownError(
            f"{state.name} has no alias {alias!r}"
            + (f", it has: {', '.join(known)}" if known else "")
        )


def explain_alias(view: NodeView, model: str, alias: str) -> SelectorState:
    """Explain an alias on this node."""
    snapshot = view.snapshot(model)
    active = view.active_of(model).get(alias)
    found = explain(snapshot, model, alias, active)
    failure = last_failure(view, model, alias, found)
    last = snapshot.ledger.last_active.get(AliasRef(model, alias))
    damaged = copies(view).get(active.digest) if active else None
    return SelectorState(
        selector=f"@{alias}",
        version=found.active,
        digest=active.digest if active else None,
        aspired=found.aspired,
        target=found.target,
        why=found.why,
        reason=f"{found.reason}; {damaged}" if damaged else found.reason,
        since=active.since if active else None,
        previous=active.previous_version if active else None,
        asked_by=last.asked_by if last and last.version == found.active else None,
        hold=_hold(view, model, alias),
        doing=_doing(view, model, alias, found.target),
        failures=failure.count if failure else 0,
        failure=failure.reason if failure else None,
        retry_at=failure.retry_at if failure else None,
        signature_change=found.signature_change,
    )


def _hold(view: NodeView, model: str, alias: str) -> HoldState | None:
    hold = view.ledger.holds.get(AliasRef(model, alias))
    if hold is None:
        return None
    return HoldState(
        version=hold.target_version,
        pinned=hold.lasting,
        while_aspired=None if hold.lasting else hold.aspired_version,
        asked_by=hold.asked_by,
        at=hold.at,
    )


def _doing(view: NodeView, model: str, alias: str | None, version: int | None) -> list[str]:
    """Return the steps under way for an alias or a version."""
    found = (one for one in view.doing(model) if one[2] in (alias, version))
    return sorted({str(subject[0]) for subject in found})


def explain_version(view: NodeView, model: str, number: int) -> SelectorState:
    """Explain the state of a version on this node.

    Raises:
        UnknownError: Neither the registry nor this node has it, and no fetch is under way.
    """
    described = view.described.get(model)
    versions = described.versions if described else []
    found = next((one for one in versions if one.version == number), None)
    failure = view.failure("fetch", model, number)
    doing = _doing(view, model, None, number)
    if found is None and not doing and not failure:
        raise UnknownError(f"neither the registry nor this node has a version {number} of {model}")
    state = found.state if found else VersionState.REGISTERED
    listed_reason = found.reason if found else "the registry's last listing does not have it"
    return SelectorState(
        selector=str(number),
        version=number,
        digest=found.digest if found else None,
        why=state,
        reason=listed_reason or _STATES.get(state, "it cannot be fetched for now"),
        doing=doing,
        failures=failure.count if failure else 0,
        failure=failure.reason if failure else None,
        retry_at=failure.retry_at if failure else None,
    )


def _concerned(
    view: NodeView, state: ModelState, explained: list[SelectorState]
) -> list[CatalogueVersion]:
    """Return the versions of explained selectors, and those that may not serve."""
    ledger = view.ledger
    numbers = {n for one in explained for n in (one.version, one.aspired, one.target)}
    if any(one.selector.startswith("@") for one in explained):
        numbers |= {version for model, version in ledger.quarantines if model == state.name}
        numbers |= {version for model, version, _ in ledger.rejections if model == state.name}
    return [
        one.model_copy(update={"description": None})
        for one in state.versions
        if one.version in numbers
    ]


async def _attempts(
    view: NodeView, model: str, explained: list[SelectorState] | None
) -> tuple[list[HistoryEntry], str | None]:
    """Return the last history of the explained selectors, and the ledger's error or None."""
    try:
        history = await read_history(view, model, limit=_SEARCHED_ATTEMPTS)
    except LedgerError as error:
        return [], error.reason
    entries = history.entries
    if explained is not None:
        words = {one.selector.removeprefix("@") for one in explained}
        numbers = {n for one in explained for n in (one.version, one.aspired, one.target)}
        entries = [
            entry
            for entry in entries
            if entry.alias in words
            or (entry.alias is None and entry.version in numbers)
            or entry.model is None
        ]
    return entries[:_SHOWN_ATTEMPTS], None
