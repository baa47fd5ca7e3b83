"""Another attempt for the aliases of a rejected version."""

from __future__ import annotations

from registry_sync.domain import Hold, Initiator, RetryAnswer, RetryRequest, SelectorState
from registry_sync.operations.errors import NotRejectedError, not_recorded
from registry_sync.operations.explained_model import explain_alias
from registry_sync.planning import Cause
from registry_sync.reconcile import NodeView, Operators


async def retry(view: NodeView, operators: Operators, request: RetryRequest) -> RetryAnswer:
    """End the rejections of a version, so that its aliases try it again.

    Holds of automatic rollbacks from it end too. A version that fails again is rejected again.

    Raises:
        NotRejectedError: The version is not rejected.
        LedgerError: The ledger did not record the end; nothing has changed.
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
    """Return the holds of automatic rollbacks from a version."""
    return [
        hold
        for hold in view.ledger_of(key[0]).holds.values()
        if (hold.model, hold.aspired_version) == key and hold.asked_by == Initiator.GATEWAY
    ]


def _concerned(view: NodeView, key: tuple[str, int]) -> list[SelectorState]:
    """Explain the aliases that the registry points at a version."""
    model, version = key
    listed = view.aspired.models.get(model)
    aliases = listed.aliases if listed else {}
    return [
        explain_alias(view, model, alias) for alias, of in sorted(aliases.items()) if of == version
    ]


def _why_not(view: NodeView, key: tuple[str, int]) -> str:
    """Return why a version cannot be retried, with another obstacle if there is one."""
    model, version = key
    for one in _concerned(view, key):
        if one.why != Cause.FOLLOWS:
            return (
                f"version {version} of {model} is not rejected; {model}{one.selector}: {one.reason}"
            )
    return f"version {version} of {model} is not rejected; `registry-gateway explain` says what is"
