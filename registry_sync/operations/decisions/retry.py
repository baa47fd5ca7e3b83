"""Try a rejected version once more, and wait for what becomes of it."""

from __future__ import annotations

import asyncio

from registry_sync.domain import AskedBy, Hold, RetryAnswer, RetryOutcome, RetryRequest
from registry_sync.operations.errors import NotRejectedError, not_recorded
from registry_sync.planning import Explanation, Why, explain
from registry_sync.reconcile import Reconciler

_OUTCOMES: tuple[RetryOutcome, ...] = ("active", "released", "pending", "refused")
"""The worst last."""
_KEPT_AWAY = frozenset({Why.FROZEN, Why.AWAITS_WINDOW, Why.PINNED, Why.HELD})
"""Why an alias is kept where it is by an operator or the rule, whatever the version is like."""


async def retry(spine: Reconciler, request: RetryRequest, *, patience_s: float) -> RetryAnswer:
    """Release the rejections of a version, and have the aliases that want it try it again.

    What failed on live traffic is no longer held away from the version either. A version that
    fails again is rejected again.

    Args:
        spine: Does the work.
        request: Which version.
        patience_s: Seconds to wait for the outcome; the tries go on after that.

    Raises:
        NotRejectedError: There is nothing to try again.
        LedgerError: The ledger does not take it.
    """
    key = (request.model, request.version)
    if not _is_rejected(spine, key):
        raise NotRejectedError(_why_not(spine, key))
    held_away = _held_away(spine, key)
    if not await spine.retry(*key):
        raise not_recorded(spine, f"{key[0]}/{key[1]} stays rejected")
    for hold in held_away:
        await spine.unhold(hold)
    answer = RetryAnswer(outcome="active", model=key[0], version=key[1], aliases=[])
    try:
        async with asyncio.timeout(patience_s):
            await _end_of(spine, key)
    except TimeoutError:
        pass  # what is not done is pending
    found = _concerned(spine, key)
    worst = max(found.values(), key=lambda one: _OUTCOMES.index(_outcome(one)), default=None)
    if worst is None:
        none = "the registry points no alias at it"
        return answer.model_copy(update={"outcome": "released", "reason": none})
    outcome = _outcome(worst)
    reason = None if outcome == "active" else worst.reason
    news = {"outcome": outcome, "reason": reason, "aliases": sorted(found)}
    return answer.model_copy(update=news)


async def _end_of(spine: Reconciler, key: tuple[str, int]) -> None:
    """Wait until no alias is on its way to a version any more."""
    await spine.next_decision()
    while _on_their_way(spine, key):
        await spine.any_decision()
        if not _on_their_way(spine, key):  # of a pass that may have begun before the last step
            await spine.next_decision()


def _outcome(found: Explanation) -> RetryOutcome:
    if found.why is Why.FOLLOWS:
        return "active"
    if found.why is Why.ON_DEMAND or found.why in _KEPT_AWAY:
        return "released"
    return "pending" if found.why in (Why.UNDER_WAY, Why.FAILING) else "refused"


def _is_rejected(spine: Reconciler, key: tuple[str, int]) -> bool:
    return any((model, version) == key for model, version, _ in spine.journal.view.rejections)


def _held_away(spine: Reconciler, key: tuple[str, int]) -> list[Hold]:
    """Return the holds by which the gateway's rule keeps aliases away from a version."""
    return [
        hold
        for hold in spine.journal.view.holds.values()
        if (hold.model, hold.aspired_version) == key and hold.asked_by == AskedBy.RULE
    ]


def _concerned(spine: Reconciler, key: tuple[str, int]) -> dict[str, Explanation]:
    """Return the aliases that the registry wants at a version, each with what became of it."""
    model, version = key
    listed = spine.listings.aspired.models.get(model)
    world, active = spine.look(model), spine.observation.active_of(model)
    return {
        alias: explain(world, model, alias, active.get(alias))
        for alias, wanted in (listed.aliases if listed else {}).items()
        if wanted == version
    }


def _on_their_way(spine: Reconciler, key: tuple[str, int]) -> bool:
    return any(one.why is Why.UNDER_WAY for one in _concerned(spine, key).values())


def _why_not(spine: Reconciler, key: tuple[str, int]) -> str:
    """Say what stands in the way of a version instead, if anything does."""
    model, version = key
    for alias, one in _concerned(spine, key).items():
        if one.why is not Why.FOLLOWS:
            return f"version {version} of {model} is not rejected; {model}@{alias}: {one.reason}"
    return f"version {version} of {model} is not rejected; `registry-gateway explain` says what is"
