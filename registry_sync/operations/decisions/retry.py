"""Have the aliases that want a rejected version try it once more."""

from __future__ import annotations

from registry_sync.domain import AskedBy, Explained, Hold, RetryAnswer, RetryRequest
from registry_sync.operations.errors import NotRejectedError, not_recorded
from registry_sync.operations.explanation import explain_alias
from registry_sync.planning import Why
from registry_sync.reconcile import NodeView, Operators


async def retry(view: NodeView, operators: Operators, request: RetryRequest) -> RetryAnswer:
    """Release the rejections of a version, and have the aliases that want it try it again.

    What failed on live traffic is no longer held away from the version either. A version that
    fails again is rejected again.

    Raises:
        NotRejectedError: There is nothing to try again.
        LedgerError: The ledger does not take it.
    """
    key = (request.model, request.version)
    if not _is_rejected(view, key):
        raise NotRejectedError(_why_not(view, key))
    held_away = _held_away(view, key)
    if not await operators.retry(*key):
        raise not_recorded(view, f"{key[0]}/{key[1]} stays rejected")
    for hold in held_away:
        await operators.unhold(hold)
    return RetryAnswer(model=key[0], version=key[1], explained=_concerned(view, key))


def _is_rejected(view: NodeView, key: tuple[str, int]) -> bool:
    rejections = view.ledger_of(key[0]).rejections
    return any((model, version) == key for model, version, _ in rejections)


def _held_away(view: NodeView, key: tuple[str, int]) -> list[Hold]:
    """Return the holds by which the gateway's rule keeps aliases away from a version."""
    return [
        hold
        for hold in view.ledger_of(key[0]).holds.values()
        if (hold.model, hold.aspired_version) == key and hold.asked_by == AskedBy.GATEWAY
    ]


def _concerned(view: NodeView, key: tuple[str, int]) -> list[Explained]:
    """Return what became of the aliases that the registry points at a version."""
    model, version = key
    listed = view.aspired.models.get(model)
    aliases = listed.aliases if listed else {}
    return [
        explain_alias(view, model, alias) for alias, of in sorted(aliases.items()) if of == version
    ]


def _why_not(view: NodeView, key: tuple[str, int]) -> str:
    """Say what stands in the way of a version instead, if anything does."""
    model, version = key
    for one in _concerned(view, key):
        if one.why != Why.FOLLOWS:
            return (
                f"version {version} of {model} is not rejected; {model}{one.selector}: {one.reason}"
            )
    return f"version {version} of {model} is not rejected; `registry-gateway explain` says what is"
