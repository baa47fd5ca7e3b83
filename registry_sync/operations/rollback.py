"""Put an alias back: hold it at what it pointed at before, and wait for it to serve."""

from __future__ import annotations

import asyncio

from gateway.control_contract import ActiveAlias
from registry_sync.errors import LedgerError
from registry_sync.operations.bodies import RollbackAnswer, RollbackRequest
from registry_sync.plan import find, is_quarantined
from registry_sync.reconcile import Reconciler
from registry_sync.records import Activation, AskedBy, Hold

_SEARCHED_ACTIVATIONS = 200


class NothingToRollBackError(Exception):
    """There is no such alias, or nothing that it pointed at before. The message says which."""


async def roll_back(
    spine: Reconciler, request: RollbackRequest, *, patience_s: float
) -> RollbackAnswer:
    """Hold the alias at its target, and wait until that serves, or cannot.

    Args:
        spine: Does the work.
        request: Which alias, and perhaps to which version.
        patience_s: Seconds to wait for the outcome; the hold stays after that.

    Raises:
        NothingToRollBackError: There is no such alias, or nothing before.
    """
    active = _active(spine, request)
    target = await _target(spine, request, active)
    if target.target_version == active.version and target.target_digest == active.digest:
        raise NothingToRollBackError(
            f"{request.model}@{request.alias} points at version {active.version} already"
        )
    answer = RollbackAnswer(
        outcome="active",
        model=request.model,
        alias=request.alias,
        from_version=active.version,
        to_version=target.target_version,
        held_while_aspired=target.aspired_version,
    )
    if not await spine.hold(target):
        return answer.model_copy(update={"outcome": "refused", "reason": spine.journal.trouble})
    return await _await_outcome(spine, target, answer, patience_s)


def _active(spine: Reconciler, request: RollbackRequest) -> ActiveAlias:
    node = spine.observation.node
    for one in node.active if node else ():
        if (one.model, one.alias) == (request.model, request.alias):
            return one
    raise NothingToRollBackError(
        spine.observation.unreachable
        or f"{request.model}@{request.alias} points at nothing on this node"
    )


async def _target(spine: Reconciler, request: RollbackRequest, active: ActiveAlias) -> Hold:
    """Choose the version to go back to."""
    if request.version is not None:
        version, digest = request.version, _pinned(spine, request.model, request.version)
    else:
        version, digest = await _previous(spine, active)
    listed = spine.listings.aspired.models.get(request.model)
    return Hold(
        model=request.model,
        alias=request.alias,
        aspired_version=listed.aliases.get(request.alias) if listed else None,
        target_version=version,
        target_digest=digest,
        asked_by=AskedBy.OPERATOR,
        at=spine.clock(),
    )


def _pinned(spine: Reconciler, model: str, version: int) -> str:
    pin = spine.journal.view.pins.get((model, version))
    if pin is None:
        raise NothingToRollBackError(
            f"version {version} of {model} has never been on this node: call it once by number"
        )
    return pin.digest


async def _previous(spine: Reconciler, active: ActiveAlias) -> tuple[int, str]:
    """Return what the alias pointed at before what it points at now."""
    try:
        history = await spine.journal.read(
            spine.ledger.activations_of,
            active.model,
            active.alias,
            limit=_SEARCHED_ACTIVATIONS,
        )
    except LedgerError:
        history = []
    found = before(history, active.version)
    if found is not None:
        return found.version, found.digest
    # What was rolled back from is no place to go back to. A hold tells where the history is lost.
    held = (active.model, active.alias) in spine.journal.view.holds
    left = {one.previous_version for one in history if one.asked_by == AskedBy.OPERATOR}
    version = active.previous_version
    if held or version is None or version in left or active.previous_digest is None:
        raise NothingToRollBackError(
            f"{active.model}@{active.alias} has pointed at nothing else before"
        )
    return version, active.previous_digest


def before(history: list[Activation], version: int) -> Activation | None:
    """Return the activation to go back to from ``version``; None: there is none.

    What was rolled back from is no place to go back to, until something else activates it again:
    after a rollback from 3 to 2, going back once more means 1; and after 4 was promoted, 2.

    Args:
        history: Newest first.
        version: What is active.
    """
    trail: list[Activation] = []
    for one in reversed(history):
        if one.asked_by == AskedBy.OPERATOR:
            trail = _gone_back(trail, one)
        if trail and trail[-1].version == one.version:
            trail.pop()  # activated anew: the newer bytes count
        trail.append(one)
    while trail and trail[-1].version != version:
        trail.pop()
    return trail[-2] if len(trail) > 1 else None


def _gone_back(trail: list[Activation], back: Activation) -> list[Activation]:
    """Return what is left of a trail, oldest first, once an operator has gone to ``back``."""
    places = [place for place, one in enumerate(trail) if one.version == back.version]
    kept = trail[: places[-1] + 1] if places else trail
    left = {back.previous_version, *(one.version for one in trail[len(kept) :])}
    return [one for one in kept if one.version == back.version or one.version not in left]


async def _await_outcome(
    spine: Reconciler, hold: Hold, answer: RollbackAnswer, patience_s: float
) -> RollbackAnswer:
    try:
        async with asyncio.timeout(patience_s):
            while True:
                if _serves(spine, hold):
                    return answer
                refusal = _refusal(spine, hold)
                if refusal is not None:
                    await spine.journal.write(spine.ledger.release_hold, hold.model, hold.alias)
                    spine.wake()
                    return answer.model_copy(update={"outcome": "refused", "reason": refusal})
                await spine.any_decision()
    except TimeoutError:
        return answer.model_copy(update={"outcome": "pending", "reason": _trouble(spine, hold)})


def _serves(spine: Reconciler, hold: Hold) -> bool:
    node = spine.observation.node
    wanted = (hold.model, hold.alias, hold.target_version, hold.target_digest)
    return node is not None and any(
        (one.model, one.alias, one.version, one.digest) == wanted for one in node.active
    )


def _refusal(spine: Reconciler, hold: Hold) -> str | None:
    """Why the target can never serve, as it is."""
    view = spine.journal.view
    rejected = view.rejections.get((hold.model, hold.target_version, hold.target_digest))
    if rejected is not None:
        return rejected.told
    listed = find(spine.listings.aspired, hold.model, hold.target_version)
    if listed is not None and is_quarantined(listed, view):
        return view.quarantines[(hold.model, hold.target_version)].reason
    return None


def _trouble(spine: Reconciler, hold: Hold) -> str:
    """What is in the way for now."""
    subjects = (
        ("activate", hold.model, hold.alias),
        ("stage", hold.model, hold.target_version, hold.target_digest),
        ("fetch", hold.model, hold.target_version),
    )
    failures = (spine.backoff.get(subject) for subject in subjects)
    found = next((failure.reason for failure in failures if failure), None)
    return found or spine.observation.unreachable or "it is still being brought up"
