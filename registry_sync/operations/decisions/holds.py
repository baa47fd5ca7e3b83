"""Keep an alias where an operator wants it, and wait until that serves, or cannot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from registry_sync.domain import AskedBy, Hold, Outcome, aspired_version, find
from registry_sync.planning import quarantine_of
from registry_sync.reconcile import Reconciler, Trial


def new_hold(
    spine: Reconciler,
    key: tuple[str, str],
    version: int,
    digest: str,
    *,
    of_creation: str | None,
    lasting: bool = False,
) -> Hold:
    """Return an operator's decision of now: an alias (``key``) stays at these bytes.

    Args:
        spine: Knows what the registry wishes now.
        key: Model and alias.
        version: Where it stays.
        digest: The bytes that are meant.
        of_creation: The creation of the version that is meant; None: unknown.
        lasting: See `Hold`.
    """
    aspired = aspired_version(spine.listings.aspired, *key)
    return Hold(
        model=key[0],
        alias=key[1],
        aspired_version=aspired,
        target_version=version,
        target_digest=digest,
        asked_by=AskedBy.OPERATOR,
        at=spine.clock(),
        lasting=lasting,
        aspired_creation=spine.look(key[0]).creation_of(key[0], aspired) if aspired else None,
        target_creation=of_creation,
    )


@dataclass(frozen=True, slots=True)
class Held:
    """How a hold went.

    Attributes:
        reason: Why not better; None: the alias is there.
        not_recorded: Why the ledger does not have it yet, and where it waits; None: it has.
    """

    outcome: Outcome
    reason: str | None
    not_recorded: str | None


async def hold_until_served(spine: Reconciler, hold: Hold, *, patience_s: float) -> Held:
    """Hold the alias, and wait for it to be there, or for another decision about it.

    A target that can never serve is let go: what held the alias before holds it again.

    Args:
        spine: Does the work.
        hold: Which alias, where.
        patience_s: Seconds to wait for the outcome; the hold stays after that.
    """
    key = (hold.model, hold.alias)
    trial = spine.trials[key] = Trial(hold, _kept(spine, key))
    not_recorded = None
    try:
        not_recorded = await spine.hold(hold)
        async with asyncio.timeout(patience_s):
            await spine.in_force()
            outcome, reason = await _outcome(spine, trial)
            return Held(outcome, reason, not_recorded)
    except TimeoutError:
        return Held("pending", _trouble(spine, hold), not_recorded)
    finally:
        if spine.trials.get(key) is trial:
            del spine.trials[key]


def _kept(spine: Reconciler, key: tuple[str, str]) -> Hold | None:
    """Return what holds the alias, or did before somebody tried what may never serve."""
    standing, trial = spine.journal.view.holds.get(key), spine.trials.get(key)
    return trial.before if trial and trial.hold.is_same(standing) else standing


async def _outcome(spine: Reconciler, trial: Trial) -> tuple[Outcome, str | None]:
    """Wait until the hold serves, cannot, or holds no more."""
    hold = trial.hold
    while True:
        standing = spine.journal.view.holds.get((hold.model, hold.alias))
        if not hold.is_same(standing):
            return "refused", _replaced(standing)
        if _serves(spine, hold):
            return "active", None
        if refusal := _refusal(spine, hold):
            await _let_go(spine, trial)
            return "refused", refusal
        await spine.any_decision()


def _replaced(standing: Hold | None) -> str:
    if standing is None:
        return "the alias was let follow the registry again meanwhile"
    how = "pinned" if standing.lasting else "held"
    return (
        f"another decision has replaced this one: the alias is {how} at version "
        f"{standing.target_version} by {standing.asked_by}"
    )


async def _let_go(spine: Reconciler, trial: Trial) -> None:
    """End a hold that can never serve."""
    if trial.before is not None:
        await spine.replace_hold(trial.hold, trial.before)
    else:
        await spine.unhold(trial.hold)


def _serves(spine: Reconciler, hold: Hold) -> bool:
    active = spine.observation.active_of(hold.model).get(hold.alias)
    wanted = (hold.target_version, hold.target_digest)
    return active is not None and (active.version, active.digest) == wanted


def _refusal(spine: Reconciler, hold: Hold) -> str | None:
    """Why the target can never serve, as it is."""
    view = spine.journal.view
    world = spine.look(hold.model)
    rejected = world.why_rejected(
        hold.model, hold.target_version, hold.target_digest, by_operator=True
    )
    if reason := rejected or world.why_other_bytes(hold):
        return reason
    listed = find(spine.listings.aspired, hold.model, hold.target_version)
    found = quarantine_of(listed, view) if listed is not None else None
    if found is None and listed is not None and hold.target_digest not in world.stored:
        return listed.stamp_problem
    return found.reason if found else None


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
