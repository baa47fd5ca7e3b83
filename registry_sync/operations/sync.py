"""Look at one model now: list, let nothing of it wait, and see where its aliases get."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from registry_sync.domain import AskedBy, SyncAnswer
from registry_sync.operations.errors import UnknownError
from registry_sync.operations.state import last_failure, model_state
from registry_sync.planning import Explanation, Why, explain
from registry_sync.reconcile import Reconciler

_PENDING = frozenset({Why.UNDER_WAY, Why.FAILING})
_SETTLED = frozenset(
    {
        Why.FOLLOWS,
        Why.PINNED,
        Why.HELD,
        Why.FROZEN,
        Why.AWAITS_WINDOW,
        Why.ON_DEMAND,
        Why.GONE,
    }
)


async def sync_model(
    spine: Reconciler, model: str, *, poll: Callable[[str], Awaitable[None]], patience_s: float
) -> SyncAnswer:
    """List the registry, try everything of the model that waits, and wait for the outcome.

    A freeze counts: what an operator asks to look at is not what an operator asks to promote.

    Args:
        spine: Does the work.
        model: Which model.
        poll: Lists the registry, for whom it is told.
        patience_s: Seconds to wait for the listing and the outcome; the work goes on after that.

    Raises:
        UnknownError: Neither the registry nor this node knows the model.
    """
    listing = asyncio.ensure_future(poll(AskedBy.SYNC))
    try:
        async with asyncio.timeout(patience_s):
            await asyncio.shield(listing)  # others wait for it too
            spine.try_now(model)
            await spine.next_decision()
            while _moves(spine, model):
                await spine.any_decision()
    except TimeoutError:
        pass  # what is not done is pending
    state = model_state(spine, model)
    if state is None:
        raise unknown_model(spine, model)
    answer = SyncAnswer(outcome="done", model=model, aliases=state.aliases)
    if not listing.done():
        reason = f"the registry has not answered within {patience_s:g} s"
        return answer.model_copy(update={"outcome": "pending", "reason": reason})
    whys = {found.why for found in _explained(spine, model).values()}
    refused = spine.listings.error is not None or whys - _SETTLED - _PENDING
    outcome = "refused" if refused else "pending" if whys & _PENDING else "done"
    return answer.model_copy(update={"outcome": outcome, "reason": spine.listings.error})


def unknown_model(spine: Reconciler, model: str) -> UnknownError:
    """Return the error that says that nobody knows the model."""
    problem = spine.listings.error
    return UnknownError(
        f"neither the registry nor this node knows a model {model!r}"
        + (f"; the registry could not be listed: {problem}" if problem else "")
    )


def _moves(spine: Reconciler, model: str) -> bool:
    """Whether waiting helps: something is under way that has not failed yet."""
    if any(subject[1] == model for subject in spine.steps.busy):
        return True
    explained = _explained(spine, model)
    return any(_is_on_its_way(spine, model, *one) for one in explained.items())


def _explained(spine: Reconciler, model: str) -> dict[str, Explanation]:
    state, world = model_state(spine, model), spine.look(model)
    active = spine.observation.active_of(model)
    return {
        one.alias: explain(world, model, one.alias, active.get(one.alias))
        for one in (state.aliases if state else ())
    }


def _is_on_its_way(spine: Reconciler, model: str, alias: str, found: Explanation) -> bool:
    return (
        found.why is Why.UNDER_WAY
        and found.target is not None
        and spine.observation.unreachable is None
        and last_failure(spine, model, alias, found) is None
    )
