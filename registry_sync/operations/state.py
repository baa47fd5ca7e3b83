"""State and history for operators, read from the node and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from gateway.contract import AliasRef
from registry_sync.domain import (
    Activation,
    AliasState,
    Attempt,
    Decision,
    FetchState,
    FreezeState,
    History,
    HistoryEntry,
    ModelState,
    State,
    StepState,
    StoreState,
    WebhookState,
    work,
)
from registry_sync.operations import damage
from registry_sync.planning import Cause, Explanation, Failure, Snapshot, explain
from registry_sync.reconcile import NodeView, with_pauses


async def state_document(
    view: NodeView,
    *,
    node_id: str,
    tracking_uri: str,
    only: str | None = None,
    webhooks: Sequence[WebhookState] = (),
) -> bytes:
    """Return the state of the node, as the JSON of a `State`.

    ``only`` limits models, steps and fetches to one model, which need not be known. Thousands of
    models are encoded a few at a time, so that other tasks run in between.
    """
    head = _without_models(view, node_id, tracking_uri, only, webhooks)
    damaged = damage.copies(view)
    names = _names(view) if only is None else [only] if _is_known(view, only) else []
    models = [
        _model(view, name, damaged).model_dump_json().encode() async for name in with_pauses(names)
    ]
    return b'%b,"models":[%b]}' % (head[:-1], b",".join(models))


def _without_models(
    view: NodeView,
    node_id: str,
    tracking_uri: str,
    only: str | None,
    webhooks: Sequence[WebhookState],
) -> bytes:
    use = view.store_use()
    store = StoreState(
        stored_bytes=use.stored_bytes,
        coming_bytes=use.coming_bytes,
        budget_bytes=use.budget_bytes or None,
    )
    state = State(
        node_id=node_id,
        tracking_uri=tracking_uri,
        listed_at=view.listed_at,
        source_error=view.source_error,
        gateway_error=view.gateway_error,
        ledger_error=view.ledger_error,
        generation=view.generation,
        frozen=frozen(view),
        store=store,
        residency=view.gateway.residency if view.gateway else None,
        problems=[
            *view.aspired.problems,
            *damage.read_damage(view),
            *([waiting] if (waiting := view.backlog()) else []),
        ],
        models=[],
        work=_work(view, only),
        fetches=fetches(view, only),
        webhooks=list(webhooks),
    )
    return state.model_dump_json(exclude={"models"}).encode()


def frozen(view: NodeView) -> FreezeState | None:
    """Return the freeze in force, or None."""
    found = view.ledger.freeze
    return FreezeState(asked_by=found.asked_by, at=found.at) if found else None


def read_unwritten(view: NodeView) -> list[str]:
    """Return a sentence for each failed write: ledger, files, and backlog."""
    trouble = view.ledger_error
    ledger = [f"the ledger cannot be used: {trouble}"] if trouble else []
    files = [f"{one.name} {one.reason}" for one in view.not_yet_written()]
    waiting = view.backlog()
    return [*ledger, *files, *([waiting] if waiting else [])]


def fetches(view: NodeView, only: str | None = None) -> list[FetchState]:
    """Return the fetches under way, of one model or, with None, of all."""
    return [one for one in view.fetches if only in (None, one.model)]


def _names(view: NodeView) -> list[str]:
    """Return the models of registry, gateway and holds, sorted."""
    held = {model for model, _ in view.ledger.holds}
    listed = view.aspired.models
    return sorted({*view.described, *listed, *view.served(), *held})


def _model(view: NodeView, name: str, damaged: Mapping[str, str]) -> ModelState:
    described = view.described.get(name)
    return ModelState(
        name=name,
        aliases=_aliases(view, name, damaged),
        versions=described.versions if described else [],
    )


def _is_known(view: NodeView, model: str) -> bool:
    return bool(
        model in view.described
        or model in view.aspired.models
        or view.active_of(model)
        or view.ledger_of(model).holds
    )


def _aliases(view: NodeView, name: str, damaged: Mapping[str, str]) -> list[AliasState]:
    """Return the aliases of a model; damaged bytes are the first reason."""
    active = view.active_of(name)
    listed = view.aspired.models.get(name)
    aspired = dict(listed.aliases) if listed else {}
    snapshot = view.snapshot(name)
    held = (alias for _, alias in snapshot.ledger.holds)
    unfollowed = listed.unfollowed if listed else ()
    words = sorted({*aspired, *unfollowed, *active, *held})
    return [_alias(view, snapshot, AliasRef(name, word), damaged) for word in words]


def _alias(
    view: NodeView, snapshot: Snapshot, alias: AliasRef, damaged: Mapping[str, str]
) -> AliasState:
    active = view.active_of(alias.model).get(alias.alias)
    hold = snapshot.ledger.holds.get(alias)
    found = explain(snapshot, *alias, active)
    return AliasState(
        alias=alias.alias,
        aspired=found.aspired,
        active=active.version if active else None,
        digest=active.digest if active else None,
        since=active.since if active else None,
        previous=active.previous_version if active else None,
        held_at=hold.target_version if hold else None,
        pinned=hold is not None and hold.lasting,
        reason=damaged.get(active.digest if active else "") or _why_not(view, alias, found),
        signature_change=found.signature_change,
    )


_OF_BYTES = frozenset(
    {Cause.QUARANTINED, Cause.REJECTED, Cause.FROZEN, Cause.AWAITS_WINDOW, Cause.UNSTAMPED}
)
"""Causes that are shown although the numbers agree: the active bytes may be a predecessor's."""


def _why_not(view: NodeView, alias: AliasRef, found: Explanation) -> str | None:
    """Return why an alias differs from the registry, or None if it does not, or moves."""
    if found.why is Cause.FAILING:
        return found.reason
    if found.why is Cause.UNDER_WAY:
        failure = last_failure(view, *alias, found)
        return failure.reason if failure else None
    there = found.active == found.aspired and found.why not in _OF_BYTES
    is_shown = not there and found.why not in (Cause.FOLLOWS, Cause.GONE, Cause.UNKNOWN)
    return found.reason if is_shown else None


def last_failure(view: NodeView, model: str, alias: str, found: Explanation) -> Failure | None:
    """Return the last failure of an alias's steps to its target, or None."""
    if found.target is None:
        return view.failure("retire", model, alias)
    subjects = (
        ("fetch", model, found.target),
        ("environment", model, found.target, found.digest or ""),
        ("stage", model, found.target, found.digest or ""),
        ("activate", model, alias),
    )
    failures = (view.failure(*subject) for subject in subjects)
    return next((failure for failure in failures if failure), None)


def _work(view: NodeView, only: str | None) -> list[StepState]:
    """Return the steps under way and those that wait, of one model or, with None, of all."""
    busy = [work(subject) for subject in view.busy if only in (None, subject[1])]
    waiting = [
        work(
            subject,
            failures=failure.count,
            reason=failure.reason,
            retry_at=failure.retry_at,
        )
        for subject, failure in view.failures().items()
        if subject not in view.busy and only in (None, subject[1])
    ]
    return busy + waiting


def model_state(view: NodeView, name: str) -> ModelState | None:
    """Return one model, or None if neither registry nor node knows it."""
    return _model(view, name, damage.copies(view)) if _is_known(view, name) else None


async def read_history(view: NodeView, model: str | None, *, limit: int) -> History:
    """Return the history of a model or, with None, of all, newest first.

    Both include the history of the whole node.

    Raises:
        LedgerError: The ledger does not answer.
    """
    moved = await view.activations(model, limit=limit)
    tried = await view.attempts(model, limit=limit)
    decided = await view.decisions(model, limit=limit)
    entries = [_moved(one) for one in moved]
    # A completed change is shown once: by the entry with both versions, or with its initiator.
    entries += [_tried(one) for one in tried if (one.action, one.outcome) not in _SHOWN_BY_OTHERS]
    entries += [_decided(one) for one in decided]
    entries.sort(key=lambda entry: entry.at, reverse=True)
    return History(entries=entries[:limit])


_SHOWN_BY_OTHERS = frozenset(
    {("activate", "complete"), ("end_hold", "complete"), ("allow_digest", "complete")}
)


def _decided(one: Decision) -> HistoryEntry:
    return HistoryEntry(outcome="complete", **asdict(one))


def _moved(one: Activation) -> HistoryEntry:
    return HistoryEntry(
        at=one.at,
        what="activate",
        model=one.model,
        alias=one.alias,
        version=one.version,
        previous=one.previous_version,
        asked_by=one.asked_by,
        outcome="complete",
        reason=one.reason,
        digest=one.digest,
        durations_s=dict(one.durations_s),
    )


def _tried(one: Attempt) -> HistoryEntry:
    fields = asdict(one)
    return HistoryEntry(at=fields.pop("started_at"), what=fields.pop("action"), **fields)
