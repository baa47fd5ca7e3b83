"""Look at one model now: list, let nothing of it wait, and see where its aliases get."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from registry_sync.operations.bodies import SyncAnswer
from registry_sync.operations.refusals import UnknownError
from registry_sync.operations.state import last_failure, model_state
from registry_sync.plan import Explanation, Why, explain
from registry_sync.reconcile import Reconciler

_SETTLED = frozenset({Why.FOLLOWS, Why.PINNED, Why.HELD, Why.FROZEN, Why.GONE})


async def sync_model(
    spine: Reconciler, model: str, *, poll: Callable[[], Awaitable[None]], patience_s: float
) -> SyncAnswer:
    """List the registry, try everything of the model that waits, and wait for the outcome.

    A freeze counts: what an operator asks to look at is not what an operator asks to promote.

    Args:
        spine: Does the work.
        model: Which model.
        poll: Lists the registry.
        patience_s: Seconds to wait for the outcome; the work goes on after that.

    Raises:
        UnknownError: Neither the registry nor this node knows the model.
    """
    await poll()
    spine.try_now(model)
    await spine.next_decision()
    state = model_state(spine, model)
    if state is None:
        raise unknown_model(spine, model)
    try:
        async with asyncio.timeout(patience_s):
            while _moves(spine, model, [alias.alias for alias in state.aliases]):
                await spine.any_decision()
    except TimeoutError:
        pass  # what is not done is pending
    state = model_state(spine, model) or state
    whys = {explain(spine.look(), model, alias.alias).why for alias in state.aliases}
    refused = spine.listings.error is not None or whys - _SETTLED - {Why.UNDER_WAY}
    return SyncAnswer(
        outcome="refused" if refused else "pending" if Why.UNDER_WAY in whys else "done",
        model=model,
        aliases=state.aliases,
        reason=spine.listings.error,
    )


def unknown_model(spine: Reconciler, model: str) -> UnknownError:
    """Return the error that says that nobody knows the model."""
    problem = spine.listings.error
    return UnknownError(
        f"neither the registry nor this node knows a model {model!r}"
        + (f"; the registry could not be listed: {problem}" if problem else "")
    )


def _moves(spine: Reconciler, model: str, aliases: list[str]) -> bool:
    """Whether waiting helps: something is under way that has not failed yet."""
    if any(subject[1] == model for subject in spine.busy):
        return True
    world = spine.look()
    return any(_is_on_its_way(spine, model, one, explain(world, model, one)) for one in aliases)


def _is_on_its_way(spine: Reconciler, model: str, alias: str, found: Explanation) -> bool:
    return (
        found.why is Why.UNDER_WAY
        and found.target is not None
        and spine.observation.unreachable is None
        and last_failure(spine, model, alias, found) is None
    )
