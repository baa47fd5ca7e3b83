"""Rollback of an alias: a hold at its previous version."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.contract import ActiveAlias, AliasRef
from registry_sync.domain import (
    Activation,
    Hold,
    Initiator,
    RollbackAnswer,
    RollbackRequest,
    creation_of_bytes,
)
from registry_sync.errors import LedgerError
from registry_sync.operations.decisions.holds import known_bytes, must_be_able, new_hold
from registry_sync.operations.errors import CannotServeError, NothingToRollBackError
from registry_sync.operations.explained_model import explain_alias
from registry_sync.planning import predecessor_is_over
from registry_sync.reconcile import NodeView, Operators

_SEARCHED_ACTIVATIONS = 200


async def roll_back(
    view: NodeView, operators: Operators, request: RollbackRequest
) -> RollbackAnswer:
    """Hold the alias at its target until the registry moves it.

    Raises:
        NothingToRollBackError: The alias does not exist, or has no previous version.
        CannotServeError: The target may not serve on this node now.
    """
    active = _active(view, request)
    target = await _target(view, request, active)
    if target.target_version == active.version and target.target_digest == active.digest:
        raise NothingToRollBackError(
            f"{request.model}@{request.alias} points at version {active.version} already"
        )
    if target.target_version == active.version and view.snapshot(request.model).why_other_bytes(
        target
    ):
        raise CannotServeError(predecessor_is_over(active.version))
    must_be_able(view, target)
    alias = AliasRef(request.model, request.alias)
    former = view.ledger_of(request.model).holds.get(alias)
    not_recorded = await operators.hold(target)
    return RollbackAnswer(
        model=request.model,
        alias=request.alias,
        from_version=active.version,
        to_version=target.target_version,
        was_pinned=former is not None and former.lasting,
        explained=[explain_alias(view, *alias)],
        not_recorded=not_recorded,
    )


def _active(view: NodeView, request: RollbackRequest) -> ActiveAlias:
    active = view.active_of(request.model).get(request.alias)
    if active is None:
        raise NothingToRollBackError(
            view.gateway_error or f"{request.model}@{request.alias} points at nothing on this node"
        )
    return active


async def _target(view: NodeView, request: RollbackRequest, active: ActiveAlias) -> Hold:
    """Return a hold at the version to go back to."""
    alias = AliasRef(request.model, request.alias)
    if request.version is not None:
        known = known_bytes(view, request.model, request.version)
        if known is None:
            raise NothingToRollBackError(
                f"version {request.version} of {request.model} has never been on this node: call "
                "it once by number"
            )
        return new_hold(view, alias, request.version, known[0], of_creation=known[1])
    version, digest, creation = await _previous(view, active)
    return new_hold(view, alias, version, digest, of_creation=creation)


async def _previous(view: NodeView, active: ActiveAlias) -> tuple[int, str, str | None]:
    """Return the previous version of the alias, its digest and creation."""
    unread = None
    try:
        history = await view.activations(active.model, active.alias, limit=_SEARCHED_ACTIVATIONS)
    except LedgerError as error:
        history, unread = [], error.reason
    found = before(history, active.version)
    if found is not None:
        return found.version, found.digest, found.creation
    # A version that was rolled back from is no target. A hold shows that if the history is lost.
    hold = view.ledger.holds.get(active.alias_ref)
    held = hold is not None and not hold.lasting
    left = {one.previous_version for one in history if _goes_back(one)}
    version = active.previous_version
    if held or version is None or version in left or active.previous_digest is None:
        name = f"{active.model}@{active.alias}"
        raise NothingToRollBackError(
            f"{name} has no previous version"
            if unread is None
            else f"the previous version of {name} is in the ledger only ({unread}): name the "
            "version with --to"
        )
    of = creation_of_bytes(view.ledger, active.model, version, active.previous_digest)
    return version, active.previous_digest, of


def before(history: Sequence[Activation], version: int) -> Activation | None:
    """Return the activation to return to from ``version``, or None.

    A version that was rolled back from is no target until it is activated again: after a rollback
    from 3 to 2, another rollback means 1; and after a promotion of 4, it means 2. The newest of
    ``history`` is its first.
    """
    trail: list[Activation] = []
    for one in reversed(history):
        if _goes_back(one):
            trail = _gone_back(trail, one)
        if trail and trail[-1].version == one.version:
            trail.pop()  # activated anew: the newer bytes count
        trail.append(one)
    while trail and trail[-1].version != version:
        trail.pop()
    return trail[-2] if len(trail) > 1 else None


def _goes_back(one: Activation) -> bool:
    by_operator = one.asked_by == Initiator.OPERATOR and not one.pinned
    return by_operator or one.asked_by == Initiator.GATEWAY


def _gone_back(trail: list[Activation], back: Activation) -> list[Activation]:
    """Return a trail, oldest first, after the rollback ``back``."""
    found = [at for at, one in enumerate(trail) if one.version == back.version]
    kept = trail[: found[-1] + 1] if found else trail
    left = {back.previous_version, *(one.version for one in trail[len(kept) :])}
    return [one for one in kept if one.version == back.version or one.version not in left]
