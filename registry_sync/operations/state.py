"""What an operator sees: state and history, read from the spine and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    StoreState,
    WebhookState,
    Work,
    work,
)
from registry_sync.operations import damage
from registry_sync.planning import Explanation, Why, World, explain
from registry_sync.reconcile import Failure, Reconciler, with_pauses


async def state_document(
    spine: Reconciler, *, node_id: str, tracking_uri: str, webhooks: Sequence[WebhookState] = ()
) -> bytes:
    """Return what the node follows, serves and is busy with, as the JSON of a `State`.

    There may be thousands of models: they are described and encoded a few at a time, so that
    others have their turn. Each is as it is at that moment.
    """
    rest = _without_models(spine, node_id, tracking_uri, webhooks)
    damaged = damage.copies(spine)
    models = [
        _model(spine, name, damaged).model_dump_json().encode()
        async for name in with_pauses(_names(spine))
    ]
    return b'%b,"models":[%b]}' % (rest[:-1], b",".join(models))


def _without_models(
    spine: Reconciler, node_id: str, tracking_uri: str, webhooks: Sequence[WebhookState]
) -> bytes:
    node = spine.observation.heard
    state = State(
        node_id=node_id,
        tracking_uri=tracking_uri,
        listed_at=spine.listings.listed_at,
        source_error=spine.listings.error,
        gateway_error=spine.observation.unreachable,
        ledger_error=spine.journal.trouble,
        generation=spine.observation.generation if node else None,
        frozen=frozen(spine),
        store=_store(spine),
        problems=[
            *spine.listings.aspired.problems,
            *_held_back(spine),
            *damage.read_damage(spine),
            *([waiting] if (waiting := spine.journal.backlog()) else []),
        ],
        models=[],
        work=_work(spine),
        fetches=fetches(spine),
        webhooks=list(webhooks),
    )
    return state.model_dump_json(exclude={"models"}).encode()


def frozen(spine: Reconciler) -> FreezeState | None:
    """Return since when no alias follows the registry; None: aliases follow it."""
    found = spine.journal.view.freeze
    return FreezeState(asked_by=found.asked_by, at=found.at) if found else None


def read_unwritten(spine: Reconciler) -> list[str]:
    """Return a sentence for each thing that cannot be written: ledger, files, and what waits."""
    trouble = spine.journal.trouble
    ledger = [f"the ledger cannot be used: {trouble}"] if trouble else []
    files = [f"{one.name} {one.reason}" for one in spine.damaged_files.not_yet_written()]
    waiting = spine.journal.backlog()
    return [*ledger, *files, *([waiting] if waiting else [])]


def fetches(spine: Reconciler, only: str | None = None) -> list[FetchState]:
    """Return how far the fetches under way are: of one model, or of all."""
    return [
        FetchState(
            model=one.model,
            version=one.version,
            comparing=one.comparing,
            started_at=one.started_at,
            arrived_bytes=one.arrived_bytes,
            total_bytes=one.total_bytes,
        )
        for one in spine.arrival.fetches
        if only in (None, one.model)
    ]


def _store(spine: Reconciler) -> StoreState:
    use = spine.store.use()
    return StoreState(
        stored_bytes=use.stored_bytes,
        coming_bytes=use.coming_bytes,
        budget_bytes=use.budget_bytes or None,
    )


def _names(spine: Reconciler) -> list[str]:
    """Return the models that the registry, the gateway or an operator's hold knows, sorted."""
    held = {model for model, _ in spine.journal.view.holds}
    listed = spine.listings.aspired.models
    return sorted({*spine.announcer.models, *listed, *spine.observation.serves(), *held})


def _model(spine: Reconciler, name: str, damaged: Mapping[str, str]) -> ModelState:
    described = spine.announcer.models.get(name)
    return ModelState(
        name=name,
        aliases=_with_damage(_aliases(spine, name), damaged),
        versions=described.versions if described else [],
    )


def _is_known(spine: Reconciler, model: str) -> bool:
    return bool(
        model in spine.announcer.models
        or model in spine.listings.aspired.models
        or spine.observation.active_of(model)
        or spine.journal.view_of(model).holds
    )


def _with_damage(aliases: list[AliasState], damaged: Mapping[str, str]) -> list[AliasState]:
    """Say of aliases whose bytes are damaged on this node that they are."""
    found = [(one, damaged.get(one.digest or "")) for one in aliases]
    return [one.model_copy(update={"reason": why}) if why else one for one, why in found]


def _held_back(spine: Reconciler) -> list[str]:
    return [
        f"{model}: {len(found.versions)} of its versions do not come, so one is tried at a time: "
        f"{found.reason}"
        for model, found in sorted(spine.steps.breaker.open().items())
    ]


def _aliases(spine: Reconciler, name: str) -> list[AliasState]:
    active = spine.observation.active_of(name)
    listed = spine.listings.aspired.models.get(name)
    aspired = dict(listed.aliases) if listed else {}
    world = spine.look(name)
    held = (alias for _, alias in world.ledger.holds)
    unfollowed = listed.unfollowed if listed else ()
    words = sorted({*aspired, *unfollowed, *active, *held})
    return [_alias(spine, world, name, word) for word in words]


def _alias(spine: Reconciler, world: World, model: str, alias: str) -> AliasState:
    active = spine.observation.active_of(model).get(alias)
    hold = world.ledger.holds.get((model, alias))
    found = explain(world, model, alias, active)
    return AliasState(
        alias=alias,
        aspired=found.aspired,
        active=active.version if active else None,
        digest=active.digest if active else None,
        since=active.since if active else None,
        previous=active.previous_version if active else None,
        held_at=hold.target_version if hold else None,
        pinned=hold is not None and hold.lasting,
        reason=_why_not(spine, model, alias, found),
        signature_change=found.signature_change,
    )


_OF_BYTES = frozenset({Why.QUARANTINED, Why.REJECTED, Why.FROZEN, Why.AWAITS_WINDOW, Why.UNSTAMPED})
"""What may stand between an alias and a version whose number it has: that was made anew."""


def _why_not(spine: Reconciler, model: str, alias: str, found: Explanation) -> str | None:
    """Say why an alias is not where the registry wants it; None: it is, or it is under way."""
    if found.why is Why.FAILING:
        return found.reason
    if found.why is Why.UNDER_WAY:
        failure = last_failure(spine, model, alias, found)
        return failure.reason if failure else None
    there = found.active == found.aspired and found.why not in _OF_BYTES
    told = not there and found.why not in (Why.FOLLOWS, Why.GONE, Why.UNKNOWN)
    return found.reason if told else None


def last_failure(spine: Reconciler, model: str, alias: str, found: Explanation) -> Failure | None:
    """Return what failed last on an alias's way to its target."""
    if found.target is None:
        return spine.steps.backoff.get(("retire", model, alias))
    subjects = (
        ("fetch", model, found.target),
        ("environment", model, found.target, found.digest or ""),
        ("stage", model, found.target, found.digest or ""),
        ("activate", model, alias),
    )
    failures = (spine.steps.backoff.get(subject) for subject in subjects)
    return next((failure for failure in failures if failure), None)


def _work(spine: Reconciler) -> list[Work]:
    busy = [work(subject) for subject in spine.steps.busy]
    waiting = [
        work(
            subject,
            failures=failure.count,
            reason=failure.reason,
            retry_at=failure.retry_at,
        )
        for subject, failure in spine.steps.backoff.failures().items()
        if subject not in spine.steps.busy
    ]
    return busy + waiting


def model_state(spine: Reconciler, name: str) -> ModelState | None:
    """Return one model; None: neither the registry nor this node knows it."""
    return _model(spine, name, damage.copies(spine)) if _is_known(spine, name) else None


async def read_history(spine: Reconciler, model: str | None, *, limit: int) -> History:
    """Return what happened to a model, or to all, newest first.

    What happened to the whole node is part of either.

    Raises:
        LedgerError: The ledger does not answer.
    """
    moved = await spine.journal.read(spine.ledger.activations_of, model, limit=limit)
    tried = await spine.journal.read(spine.ledger.attempts_of, model, limit=limit)
    decided = await spine.journal.read(spine.ledger.decisions_of, model, limit=limit)
    entries = [_moved(one) for one in moved]
    # What was completed is told once: by the entry that says from where to where, or by whom.
    entries += [_tried(one) for one in tried if (one.action, one.outcome) not in _TOLD]
    entries += [_decided(one) for one in decided]
    entries.sort(key=lambda entry: entry.at, reverse=True)
    return History(entries=entries[:limit])


_TOLD = frozenset(
    {("activate", "complete"), ("release", "complete"), ("release_digest", "complete")}
)


def _decided(one: Decision) -> HistoryEntry:
    return HistoryEntry(
        at=one.at,
        what=one.what,
        model=one.model,
        alias=one.alias,
        version=one.version,
        asked_by=one.asked_by,
        outcome="complete",
        reason=one.reason,
    )


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
    return HistoryEntry(
        at=one.started_at,
        what=one.action,
        model=one.model,
        alias=one.alias,
        version=one.version,
        asked_by=one.asked_by,
        outcome=one.outcome,
        reason=one.reason,
        durations_s=dict(one.durations_s),
    )
