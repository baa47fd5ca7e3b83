"""Pin an alias to a version whatever the registry says, and let it follow the registry again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from registry_sync.domain import (
    FreezeAnswer,
    FreezeState,
    PinAnswer,
    PinRequest,
    UnpinAnswer,
    UnpinRequest,
    aspired_version,
    creation_of,
    find,
)
from registry_sync.operations.decisions.holds import hold_until_served, new_hold
from registry_sync.operations.errors import NotHeldError, UnknownError
from registry_sync.planning import expected_digest, quarantine_of
from registry_sync.reconcile import Reconciler


async def pin(spine: Reconciler, request: PinRequest, *, patience_s: float) -> PinAnswer:
    """Pin an alias, and wait until it is there, or cannot get there.

    Args:
        spine: Does the work.
        request: Which alias, and to which version.
        patience_s: Seconds to wait for the bytes, and again for the outcome; a pin that is made
            stays after that.

    Raises:
        UnknownError: Nobody knows the alias.
    """
    node = spine.observation.node
    key = (request.model, request.alias)
    active = {(one.model, one.alias): one.version for one in node.active} if node else {}
    _must_be_known(spine, key, active)
    answer = PinAnswer(
        outcome="refused",
        model=request.model,
        alias=request.alias,
        from_version=active.get(key),
        to_version=request.version,
    )
    reason = _inadmissible(spine, request)
    digest = _digest(spine, request)
    if reason is None and digest is None:
        reason = await bring(spine, request.model, request.version, patience_s=patience_s)
        digest = _digest(spine, request)
    if reason is not None or digest is None:
        return answer.model_copy(update={"reason": reason or spine.journal.trouble})
    of = _creation(spine, request)
    hold = new_hold(spine, key, request.version, digest, of_creation=of, lasting=True)
    held = await hold_until_served(spine, hold, patience_s=patience_s)
    return answer.model_copy(update=asdict(held))


def _must_be_known(
    spine: Reconciler, key: tuple[str, str], active: dict[tuple[str, str], int]
) -> None:
    model, alias = key
    listed = spine.listings.aspired.models.get(model)
    words = {*listed.aliases, *listed.unfollowed} if listed else set()
    if alias in words or key in active or key in spine.journal.view.holds:
        return
    known = sorted(words | {word for name, word in active if name == model})
    raise UnknownError(
        f"{model} has no alias {alias!r}, it has: {', '.join(known)}"
        if known
        else f"neither the registry nor this node knows an alias of {model!r}"
    )


def _inadmissible(spine: Reconciler, request: PinRequest) -> str | None:
    """Why the version may not serve here, as things are."""
    listed = find(spine.listings.aspired, request.model, request.version)
    if listed is None:
        return None
    if found := quarantine_of(listed, spine.journal.view):
        return found.reason
    if listed.stamp_problem:
        return listed.stamp_problem
    if spine.look().require_digest and not listed.stamped:
        return f"nobody has stamped version {request.version}, and this node requires a digest"
    return None


def _digest(spine: Reconciler, request: PinRequest) -> str | None:
    """Return what the version's bytes must be, or were here; None: nobody has seen them."""
    view = spine.journal.view
    listed = find(spine.listings.aspired, request.model, request.version)
    if listed is not None:
        return expected_digest(listed, view)
    known = view.pins.get((request.model, request.version))
    return known.digest if known else None


def _creation(spine: Reconciler, request: PinRequest) -> str | None:
    """Return the creation whose bytes those are; None: unknown."""
    view = spine.journal.view
    listed = find(spine.listings.aspired, request.model, request.version)
    known = view.pins.get((request.model, request.version))
    return creation_of(listed, view) if listed else known.creation if known else None


async def bring(
    spine: Reconciler, model: str, version: int, *, patience_s: float, accepts: str | None = None
) -> str | None:
    """Fetch and check a version now; return why its bytes are not here, or None: they are.

    Args:
        spine: Does the work.
        model: Which model.
        version: Which version.
        patience_s: Seconds to wait; the fetch goes on after that.
        accepts: The digest that an operator accepts; None: whichever is expected.
    """
    try:
        async with asyncio.timeout(patience_s):
            while not spine.bring(model, version, accepts):
                await spine.any_decision()
            while ("fetch", model, version) in spine.steps.busy:
                await spine.any_decision()
            await spine.next_decision()
    except TimeoutError:
        return (
            f"its bytes go on being fetched, and were not here within {patience_s:g} s: ask again"
        )
    failure = spine.steps.backoff.get(("fetch", model, version))
    return failure.reason if failure else None


async def unpin(spine: Reconciler, request: UnpinRequest) -> UnpinAnswer:
    """Let an alias follow the registry again, after a pin or a rollback.

    Raises:
        NotHeldError: It does.
    """
    key = (request.model, request.alias)
    hold = spine.journal.view.holds.get(key)
    if hold is None:
        raise NotHeldError(f"{request.model}@{request.alias} is neither pinned nor held")
    not_recorded = await spine.unhold(hold)
    await spine.next_decision()
    node = spine.observation.node
    active = {(one.model, one.alias): one.version for one in node.active} if node else {}
    return UnpinAnswer(
        model=request.model,
        alias=request.alias,
        was=hold.target_version,
        was_pinned=hold.lasting,
        active=active.get(key),
        aspired=aspired_version(spine.listings.aspired, *key),
        frozen=spine.journal.view.freeze is not None,
        not_recorded=not_recorded,
    )


async def freeze(spine: Reconciler) -> FreezeAnswer:
    """Let no alias of the node follow the registry from now on."""
    before = spine.journal.view.freeze
    not_recorded = await spine.freeze()
    changed = before is None
    return FreezeAnswer(frozen=frozen(spine), changed=changed, not_recorded=not_recorded)


async def unfreeze(spine: Reconciler) -> FreezeAnswer:
    """Let the aliases of the node follow the registry again."""
    before = spine.journal.view.freeze
    not_recorded = await spine.unfreeze()
    return FreezeAnswer(frozen=None, changed=before is not None, not_recorded=not_recorded)


def frozen(spine: Reconciler) -> FreezeState | None:
    """Return since when nothing follows the registry; None: it does."""
    found = spine.journal.view.freeze
    return FreezeState(asked_by=found.asked_by, at=found.at) if found else None
