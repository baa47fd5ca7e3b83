"""Pin an alias at a version, and let it follow the registry again."""

from __future__ import annotations

from gateway.contract import AliasRef
from registry_sync.domain import PinAnswer, PinRequest, UnpinAnswer, UnpinRequest, find
from registry_sync.operations.decisions.holds import known_bytes, must_be_able, new_hold
from registry_sync.operations.errors import CannotServeError, NotHeldError, UnknownError
from registry_sync.operations.explained_model import explain_alias, explain_version
from registry_sync.planning import why_inadmissible
from registry_sync.reconcile import NodeView, Operators


async def pin(view: NodeView, operators: Operators, request: PinRequest) -> PinAnswer:
    """Pin an alias if the version's digest is known; else only fetch its bytes.

    Raises:
        UnknownError: Neither the registry nor this node knows the alias.
        CannotServeError: The version may not serve on this node now.
    """
    alias = AliasRef(request.model, request.alias)
    active = view.active_of(request.model).get(request.alias)
    _must_be_known(view, alias)
    _must_be_admissible(view, request)
    answer = PinAnswer(
        model=request.model,
        alias=request.alias,
        from_version=active.version if active else None,
        to_version=request.version,
        pinned=False,
        explained=[],
    )
    known = known_bytes(view, request.model, request.version)
    if known is None:
        operators.fetch(request.model, request.version)
        explained = explain_version(view, request.model, request.version)
        return answer.model_copy(update={"explained": [explained]})
    digest, creation = known
    hold = new_hold(view, alias, request.version, digest, of_creation=creation, lasting=True)
    must_be_able(view, hold)
    not_recorded = await operators.hold(hold)
    explained = explain_alias(view, *alias)
    update = {"pinned": True, "explained": [explained], "not_recorded": not_recorded}
    return answer.model_copy(update=update)


def _must_be_known(view: NodeView, alias: AliasRef) -> None:
    model, name = alias
    active = view.active_of(model)
    listed = view.aspired.models.get(model)
    names = {*listed.aliases, *listed.unfollowed} if listed else set()
    if name in names or name in active or alias in view.ledger_of(model).holds:
        return
    known = sorted({*names, *active})
    raise UnknownError(
        f"{model} has no alias {name!r}, it has: {', '.join(known)}"
        if known
        else f"neither the registry nor this node knows an alias of {model!r}"
    )


def _must_be_admissible(view: NodeView, request: PinRequest) -> None:
    listed = find(view.aspired, request.model, request.version)
    snapshot = view.snapshot(request.model)
    if listed is not None and not snapshot.admissible(listed):
        raise CannotServeError(why_inadmissible(snapshot, listed)[1])


async def unpin(view: NodeView, operators: Operators, request: UnpinRequest) -> UnpinAnswer:
    """Let an alias follow the registry again, after a pin or a rollback.

    Raises:
        NotHeldError: The alias is neither pinned nor held.
    """
    alias = AliasRef(request.model, request.alias)
    hold = view.ledger_of(request.model).holds.get(alias)
    if hold is None:
        raise NotHeldError(f"{request.model}@{request.alias} is neither pinned nor held")
    not_recorded = await operators.unhold(hold)
    return UnpinAnswer(
        outcome="done",
        model=request.model,
        alias=request.alias,
        was=hold.target_version,
        was_pinned=hold.lasting,
        explained=[explain_alias(view, *alias)],
        not_recorded=not_recorded,
    )
