"""Holds of operators, and the check of their targets."""

from __future__ import annotations

from gateway.contract import AliasRef
from registry_sync.domain import Hold, Initiator, aspired_version, creation_of, find
from registry_sync.operations.errors import CannotServeError
from registry_sync.planning import expected_digest, why_unable
from registry_sync.reconcile import NodeView


def new_hold(
    view: NodeView,
    alias: AliasRef,
    version: int,
    digest: str,
    *,
    of_creation: str | None,
    lasting: bool = False,
) -> Hold:
    """Return an operator's hold of an alias at these bytes, made now; see `Hold`."""
    model = alias.model
    aspired = aspired_version(view.aspired, *alias)
    return Hold(
        model=model,
        alias=alias.alias,
        aspired_version=aspired,
        target_version=version,
        target_digest=digest,
        asked_by=Initiator.OPERATOR,
        at=view.now(),
        lasting=lasting,
        aspired_creation=view.snapshot(model).creation_of(model, aspired) if aspired else None,
        target_creation=of_creation,
    )


def known_bytes(view: NodeView, model: str, version: int) -> tuple[str, str | None] | None:
    """Return the digest that a version must have now, and its creation, or None if unknown.

    A version that is no longer listed has the digest that was accepted last.
    """
    ledger = view.ledger
    listed = find(view.aspired, model, version)
    if listed is not None:
        expected = expected_digest(listed, ledger)
        return None if expected is None else (expected, creation_of(listed, ledger))
    known = ledger.accepted.get((model, version))
    return (known.digest, known.creation) if known else None


def must_be_able(view: NodeView, hold: Hold) -> None:
    """Refuse a hold whose target is known to be unable to serve.

    Raises:
        CannotServeError: The message says why.
    """
    active = view.active_of(hold.model).get(hold.alias)
    if active and (active.version, active.digest) == (hold.target_version, hold.target_digest):
        return
    if unable := why_unable(view.snapshot(hold.model), hold):
        raise CannotServeError(unable[1])
