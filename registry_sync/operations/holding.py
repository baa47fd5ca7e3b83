"""Keep an alias where an operator wants it, and wait until that serves, or cannot."""

from __future__ import annotations

import asyncio

from registry_sync.operations.bodies import Outcome
from registry_sync.reconcile import Reconciler
from registry_sync.records import Hold
from registry_sync.standing import find, is_quarantined


async def hold_until_served(
    spine: Reconciler, hold: Hold, *, patience_s: float
) -> tuple[Outcome, str | None]:
    """Hold the alias, and wait for it to be there.

    A target that can never serve is let go: what held the alias before holds it again.

    Args:
        spine: Does the work.
        hold: Which alias, where.
        patience_s: Seconds to wait for the outcome; the hold stays after that.

    Returns:
        How it went, and why not better.
    """
    before = spine.journal.view.holds.get((hold.model, hold.alias))
    if not await spine.hold(hold):
        return "refused", spine.journal.trouble
    try:
        async with asyncio.timeout(patience_s):
            while not _serves(spine, hold):
                if refusal := _refusal(spine, hold):
                    await _let_go(spine, hold, before)
                    return "refused", refusal
                await spine.any_decision()
    except TimeoutError:
        return "pending", _trouble(spine, hold)
    return "active", None


async def _let_go(spine: Reconciler, hold: Hold, before: Hold | None) -> None:
    if before is not None:
        await spine.hold(before)
    else:
        await spine.unhold(hold.model, hold.alias)


def _serves(spine: Reconciler, hold: Hold) -> bool:
    node = spine.observation.node
    wanted = (hold.model, hold.alias, hold.target_version, hold.target_digest)
    return node is not None and any(
        (one.model, one.alias, one.version, one.digest) == wanted for one in node.active
    )


def _refusal(spine: Reconciler, hold: Hold) -> str | None:
    """Why the target can never serve, as it is."""
    view = spine.journal.view
    rejected = spine.look().why_rejected(hold.model, hold.target_version, hold.target_digest)
    if rejected is not None:
        return rejected
    listed = find(spine.listings.aspired, hold.model, hold.target_version)
    if listed is not None and is_quarantined(listed, view):
        return view.quarantines[(hold.model, hold.target_version)].reason
    return None


def _trouble(spine: Reconciler, hold: Hold) -> str:
    """What is in the way for now."""
    subjects = (
        ("activate", hold.model, hold.alias),
        ("environment", hold.model, hold.target_version, hold.target_digest),
        ("stage", hold.model, hold.target_version, hold.target_digest),
        ("fetch", hold.model, hold.target_version),
    )
    failures = (spine.steps.backoff.get(subject) for subject in subjects)
    found = next((failure.reason for failure in failures if failure), None)
    return found or spine.observation.unreachable or "it is still being brought up"
