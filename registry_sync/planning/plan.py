"""The plan: the actions that are due now, most urgent first. Pure.

Availability first. Absence is no instruction: an empty listing after one with models changes
nothing, and what a listing lacks is removed only when the next listing agrees.
The plan has no memory: it is made anew after every change.
A freeze stops every change of an alias that the registry demands. Bytes are still fetched and
verified ahead, and a lost table is still recovered: neither changes an alias.
While no promotion window is open, a promotion by the registry is not loaded. A first activation, a
version made anew and a recovery are no promotions.
The policy of a version (`preload`, `lazy`, `on_demand`) decides how early an alias gets its first
version. The successor of an active version is fetched as soon as it is promoted, whatever the
policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set as AbstractSet
from dataclasses import replace

from gateway.contract import ActiveAlias, AliasRef, ArtifactRef
from registry_sync.domain import Hold, Initiator, Load, Swap, aspired_version, find, is_unfollowed
from registry_sync.planning.actions import (
    Action,
    Activate,
    AllowDigest,
    BuildEnvironment,
    EndHold,
    Fetch,
    RetireAlias,
    RetireStandby,
    Stage,
    Urgency,
)
from registry_sync.planning.admissibility import admissible_digest, is_quarantined
from registry_sync.planning.automatic_rollbacks import over
from registry_sync.planning.snapshot import Snapshot, Target

LISTINGS_FOR_REMOVAL = 2


def plan(snapshot: Snapshot) -> tuple[Action, ...]:
    """Return the due actions without repetitions, most urgent first."""
    actions: dict[Action | tuple[str, int], Action] = {}
    decided = list(_all(snapshot))
    decided += _idle_standbys(snapshot, decided)
    for action in sorted(decided, key=lambda action: action.urgency):
        if isinstance(action, Fetch | BuildEnvironment):
            actions.setdefault((action.model, action.version), action)
        else:
            actions.setdefault(action, action)
    return tuple(actions.values())


def is_due(snapshot: Snapshot, action: Stage | RetireAlias | EndHold) -> bool:
    """Whether an action is still due, at any urgency, just before it is carried out."""
    return action in (replace(one, urgency=action.urgency) for one in plan(snapshot))


def as_due(snapshot: Snapshot, action: Activate) -> Activate | Stage | None:
    """Return the due action for the same move, just before an activation, or None.

    It may name another standby, or stage one: aliases that move to one version share a standby,
    which ends with the first activation, so that the next alias needs a new one.
    """
    wanted = (action.model, action.alias, action.version, action.digest)
    due = (one for one in plan(snapshot) if isinstance(one, Activate | Stage))
    return next(
        (one for one in due if (one.model, one.alias, one.version, one.digest) == wanted), None
    )


def _all(snapshot: Snapshot) -> Iterator[Action]:
    yield from _wanted(snapshot)
    for held in over(snapshot.node, snapshot.ledger):
        yield AllowDigest(held.model, held.alias, held.version, held.digest)
    active = {one.alias_ref: one for one in snapshot.node.active}
    for alias in sorted(_aliases(snapshot, active)):
        for action in _alias(snapshot, alias, active.get(alias)):
            yield _before_others(snapshot, alias, action)


def _before_others(snapshot: Snapshot, alias: AliasRef, action: Action) -> Action:
    """Return an action with the urgency of waiting callers, on every step up to the activation."""
    if not isinstance(action, Fetch | BuildEnvironment | Stage | Activate):
        return action
    if action.urgency <= Urgency.WANTED or not snapshot.is_alias_wanted(*alias):
        return action
    return replace(action, urgency=Urgency.WANTED)


def _idle_standbys(snapshot: Snapshot, decided: list[Action]) -> list[RetireStandby]:
    """Return the standbys that no alias is about to take.

    Each holds memory until its time is over, and a few of them leave no room for the next
    promotion. A remembered listing retires no standby.
    """
    if not snapshot.listings:
        return []
    due = {one.ref for one in decided if isinstance(one, Activate)}
    return [
        RetireStandby(one.model, one.version, one.stage_id)
        for one in snapshot.node.standbys
        if one.ref not in due
    ]


def _wanted(snapshot: Snapshot) -> Iterator[Action]:
    """Fetch or build for callers that wait, the oldest first (the sort is stable)."""
    for wanted in sorted(snapshot.node.wanted, key=lambda one: one.since):
        listed = find(snapshot.aspired, wanted.model, wanted.version)
        if listed is None or listed.stamp_problem or is_quarantined(listed, snapshot.ledger):
            continue
        target = Target(wanted.model, "", wanted.version, snapshot.here(listed))
        if target.digest is None:
            yield _fetch(snapshot, target.model, target.version, Urgency.WANTED)
        elif not snapshot.why_rejected(target):
            yield from _environment(snapshot, target, Urgency.WANTED)


def _aliases(snapshot: Snapshot, active: Mapping[AliasRef, ActiveAlias]) -> AbstractSet[AliasRef]:
    """Return every alias that the registry, the node or an operator's hold knows."""
    listed = {
        AliasRef(m.name, alias)
        for m in snapshot.aspired.models.values()
        for alias in (*m.aliases, *m.unfollowed)
    }
    # Without a listing, only the newest activations show which aliases exist. After two listings,
    # an alias that is absent and lost here must still be recorded as retired.
    lists_any = bool(snapshot.aspired.models) if snapshot.lists_any is None else snapshot.lists_any
    known = snapshot.listings and lists_any
    removable = snapshot.listings >= LISTINGS_FOR_REMOVAL
    remembered = {
        alias
        for alias, one in snapshot.ledger.last_active.items()
        if one.retired_at is None
        and (removable or (not known and alias.model not in snapshot.aspired.models))
    }
    return listed | set(active) | set(snapshot.ledger.holds) | remembered


def _alias(snapshot: Snapshot, alias: AliasRef, active: ActiveAlias | None) -> Iterator[Action]:
    hold = snapshot.ledger.holds.get(alias)
    if _follows_registry(snapshot, hold):
        if _is_removed(snapshot, alias):
            yield from _remove(snapshot, alias, active=active, hold=hold)
            return
        if hold and snapshot.is_over(hold):
            yield EndHold(hold)
            hold = None
    target = snapshot.target(*alias, hold)
    if active is None:
        yield from _bring_up(snapshot, [t for t in (target, snapshot.last(*alias)) if t])
        return
    yield from _restore(snapshot, active)
    # Only the target replaces an active version, never an older version.
    if target:
        yield from _promote(snapshot, active, target)


def _follows_registry(snapshot: Snapshot, hold: Hold | None) -> bool:
    """Whether a move or removal of the alias in the registry counts here."""
    return snapshot.ledger.freeze is None and not (hold and hold.lasting)


def _is_removed(snapshot: Snapshot, alias: AliasRef) -> bool:
    """Whether two listings in a row lacked an alias."""
    return (
        snapshot.listings >= LISTINGS_FOR_REMOVAL
        and aspired_version(snapshot.aspired, *alias) is None
        and not is_unfollowed(snapshot.aspired, *alias)
    )


def _remove(
    snapshot: Snapshot, alias: AliasRef, *, active: ActiveAlias | None, hold: Hold | None
) -> Iterator[Action]:
    if hold:
        yield EndHold(hold)
    if active or snapshot.lost(*alias):
        yield RetireAlias(*alias)


def _restore(snapshot: Snapshot, active: ActiveAlias) -> Iterator[Fetch]:
    """Fetch the active version and the one before it, if a damaged copy was dropped."""
    model = active.model
    if _can_restore(snapshot, model, active.version, active.digest):
        yield _fetch(snapshot, model, active.version, Urgency.PROMOTION, Initiator.RECOVERY)
    version, digest = active.previous_version, active.previous_digest
    if version is None or digest is None or active.since <= snapshot.rollback_since:
        return  # after the retention, these bytes may make room
    if _can_restore(snapshot, model, version, digest):
        yield _fetch(snapshot, model, version, Urgency.RECOVERY, Initiator.RECOVERY)


def _can_restore(snapshot: Snapshot, model: str, version: int, digest: str) -> bool:
    """Whether bytes are not here, and the registry lists a version that must have them."""
    listed = find(snapshot.aspired, model, version)
    if digest in snapshot.stored or listed is None or is_quarantined(listed, snapshot.ledger):
        return False
    return admissible_digest(listed, snapshot.ledger) == digest


def _promote(snapshot: Snapshot, active: ActiveAlias, target: Target) -> Iterator[Action]:
    """Replace the active version by a standby that is warm at that moment."""
    if target.is_active(active):
        return
    if target.digest is None:
        yield from _bring(snapshot, target, Urgency.PROMOTION)
    elif snapshot.obstacle(target, active):
        return
    elif snapshot.lacks_environment(target):
        yield from _environment(snapshot, target, Urgency.PROMOTION)
    elif snapshot.awaited_opening(active, target):
        return  # its standby would end before the window opens
    elif standby := snapshot.standby(target):
        yield _activate(target, standby.stage_id)
    else:
        yield _stage(
            snapshot,
            target,
            keep=True,
            replaces=active.version,
            urgency=Urgency.PROMOTION,
            displaces=snapshot.swap_of(target) is not Swap.BLUE_GREEN,
        )


def _bring_up(snapshot: Snapshot, targets: list[Target]) -> Iterator[Action]:
    """Give an alias that is not active its best target whose bytes are here; fetch the best.

    While no promotion window is open, a target that the alias had before is the best.
    """
    ready = list[Target]()
    for rank, target in enumerate(targets):
        meant = snapshot.recovered(target)
        if snapshot.waits_for_caller(meant):
            continue  # a caller puts it among the wanted
        preload = snapshot.load_of(meant) is Load.PRELOAD
        urgency = Urgency.PRELOAD if preload else Urgency.PREFETCH
        if target.digest is None:
            if rank == 0:
                yield from _bring(snapshot, target, urgency)
        elif snapshot.obstacle(meant, snapshot.lost(meant.model, meant.alias)):
            continue
        elif snapshot.lacks_environment(meant):
            if rank == 0:
                yield from _environment(snapshot, meant, urgency)
        else:
            ready.append(meant)
    if ready:
        acting = (one for one in ready if not snapshot.awaited_opening(None, one))
        yield _first(snapshot, next(acting, ready[0]))


def _bring(snapshot: Snapshot, target: Target, urgency: Urgency) -> Iterator[Fetch]:
    """Fetch a target, unless other bytes than the held ones are known to come."""
    listed = find(snapshot.aspired, target.model, target.version)
    if listed and listed.stamp_problem:
        return
    hold = target.hold
    if hold is None:
        yield _fetch(snapshot, target.model, target.version, urgency, target.asked_by)
    elif not snapshot.why_other_bytes(hold):
        digest, creation = hold.target_digest, hold.target_creation
        yield Fetch(target.model, target.version, urgency, target.asked_by, digest, creation)


def _fetch(
    snapshot: Snapshot, model: str, version: int, urgency: Urgency, asked_by: str = Initiator.POLL
) -> Fetch:
    creation = snapshot.creation_of(model, version)
    return Fetch(model, version, urgency, asked_by, creation=creation)


def _first(snapshot: Snapshot, target: Target) -> Action:
    """Activate a target that a stage has proved, else stage it; a preload must be warm."""
    preload = snapshot.load_of(target) is Load.PRELOAD
    standby = snapshot.standby(target)
    stage_id = snapshot.proved.get(ArtifactRef(target.model, target.version, target.digest or ""))
    if preload and not snapshot.serves(target):
        stage_id = None  # the worker of an old stage may be gone
    if stage_id or standby:
        return _activate(target, stage_id or (standby.stage_id if standby else ""))
    urgency = Urgency.PRELOAD if preload else Urgency.FIRST
    if not target.by_registry:
        urgency = Urgency.RECOVERY
    return _stage(snapshot, target, keep=preload, replaces=None, urgency=urgency)


def _stage(
    snapshot: Snapshot,
    target: Target,
    *,
    keep: bool,
    replaces: int | None,
    urgency: Urgency,
    displaces: bool = False,
) -> Stage:
    return Stage(
        model=target.model,
        alias=target.alias,
        version=target.version,
        digest=target.digest or "",
        keep=keep,
        replaces=replaces,
        urgency=urgency,
        asked_by=target.asked_by,
        own=snapshot.runs_in_own(target),
        displaces=displaces,
    )


def _activate(target: Target, stage_id: str) -> Activate:
    return Activate(
        model=target.model,
        alias=target.alias,
        version=target.version,
        digest=target.digest or "",
        stage_id=stage_id,
        urgency=Urgency.ACTIVATE,
        asked_by=target.asked_by,
    )


def _environment(
    snapshot: Snapshot, target: Target, urgency: Urgency
) -> Iterator[BuildEnvironment]:
    """Build the environment of a target, if it needs its own and that is not built."""
    if target.digest and snapshot.lacks_environment(target):
        asked_by = target.asked_by
        yield BuildEnvironment(target.model, target.version, target.digest, urgency, asked_by)
