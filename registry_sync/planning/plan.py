"""The decision: what ought to be done now, most urgent first. Pure.

Availability first. Absence is no instruction: a listing that is empty where there was something
changes nothing, and what a listing no longer has goes only when the next one agrees.
The decision has no memory: it is made anew from what is, after every change of it.
A freeze stops every change of an alias that the registry asks for. Bytes are fetched and checked
ahead all the same, and what was lost comes back: that changes nothing.
While no promotion window is open, what the registry promotes is not loaded: a first activation, a
version made anew and a recovery are no promotions.
How early an alias gets its first version is the version's policy: `preload`, `lazy`, `on_demand`.
What replaces something that serves is fetched as soon as it is promoted, whatever the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from itertools import filterfalse

from gateway.contract import ActiveAlias
from registry_sync.domain import AskedBy, Hold, Load, Swap, aspired_version, find, is_unfollowed
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
from registry_sync.planning.snapshot import Target, World

LISTINGS_FOR_REMOVAL = 2


def plan(world: World) -> tuple[Action, ...]:
    """Return what ought to be done, most urgent first; nothing twice."""
    actions: dict[Action | tuple[str, int], Action] = {}
    decided = list(_all(world))
    decided += _idle_standbys(world, decided)
    for action in sorted(decided, key=lambda action: action.urgency):
        if isinstance(action, Fetch | BuildEnvironment):
            actions.setdefault((action.model, action.version), action)
        else:
            actions.setdefault(action, action)
    return tuple(actions.values())


def _all(world: World) -> Iterator[Action]:
    yield from _wanted(world)
    for held in over(world.node, world.ledger):
        yield AllowDigest(held.model, held.alias, held.version, held.digest)
    active = {(one.model, one.alias): one for one in world.node.active}
    for model, alias in sorted(_aliases(world, active)):
        for action in _alias(world, model, alias, active.get((model, alias))):
            yield _before_others(world, alias, action)


def _before_others(world: World, alias: str, action: Action) -> Action:
    """Return an action with the urgency that callers give it: every step up to the activation."""
    if not isinstance(action, Fetch | BuildEnvironment | Stage | Activate):
        return action
    if action.urgency <= Urgency.WANTED or not world.is_alias_wanted(action.model, alias):
        return action
    return replace(action, urgency=Urgency.WANTED)


def _idle_standbys(world: World, decided: list[Action]) -> list[RetireStandby]:
    """Standbys that no alias is about to take: their wish has moved on, or who staged them is gone.

    Each holds memory that is spared until its time is over, and a few of them leave no room for the
    next promotion. What is remembered of a registry that was not listed yet judges none.
    """
    if not world.listings:
        return []
    due = {(one.model, one.version, one.digest) for one in decided if isinstance(one, Activate)}
    return [
        RetireStandby(one.model, one.version, one.stage_id)
        for one in world.node.standbys
        if (one.model, one.version, one.digest) not in due
    ]


def _wanted(world: World) -> Iterator[Action]:
    """Bytes that a caller waits for, oldest wish first (the sort is stable)."""
    for wish in sorted(world.node.wanted, key=lambda wish: wish.since):
        listed = find(world.aspired, wish.model, wish.version)
        if listed is None or listed.stamp_problem or is_quarantined(listed, world.ledger):
            continue
        target = Target(wish.version, world.here(listed), AskedBy.POLL)
        if target.digest is None:
            yield _fetch(world, wish.model, wish.version, Urgency.WANTED)
        elif not world.is_rejected(wish.model, target):
            yield from _environment(world, wish.model, target, Urgency.WANTED)


def _aliases(
    world: World, active: Mapping[tuple[str, str], ActiveAlias]
) -> AbstractSet[tuple[str, str]]:
    """Every alias that the registry, the node or an operator's hold knows."""
    listed = {
        (m.name, alias)
        for m in world.aspired.models.values()
        for alias in (*m.aliases, *m.unfollowed)
    }
    # Of what was never listed, where an alias was last is all that is known. Of what two listings
    # lacked, that it has to be recorded as taken away, even if this node has lost it.
    lists_any = bool(world.aspired.models) if world.lists_any is None else world.lists_any
    known = world.listings and lists_any
    removable = world.listings >= LISTINGS_FOR_REMOVAL
    remembered = {
        (model, alias)
        for (model, alias), one in world.ledger.last_active.items()
        if one.retired_at is None
        and (removable or (not known and model not in world.aspired.models))
    }
    return listed | set(active) | set(world.ledger.holds) | remembered


def _alias(world: World, model: str, alias: str, active: ActiveAlias | None) -> Iterator[Action]:
    """What to do about one alias."""
    aspired = aspired_version(world.aspired, model, alias)
    hold = world.ledger.holds.get((model, alias))
    if _follows_registry(world, hold):
        gone = aspired is None and not is_unfollowed(world.aspired, model, alias)
        if gone and world.listings >= LISTINGS_FOR_REMOVAL:
            yield from _remove(world, model, alias, active=active, hold=hold)
            return
        if hold and world.follows(hold, aspired):
            yield EndHold(hold)
            hold = None
    wish = world.wish(model, alias, hold, aspired)
    if active is not None:
        yield from _restore(world, active)
        # What serves is replaced only by what ought to serve, never by something older.
        if wish:
            yield from _promote(world, alias, active, wish)
    else:
        yield from _bring_up(
            world, model, alias, [t for t in (wish, world.last(model, alias)) if t]
        )


def _follows_registry(world: World, hold: Hold | None) -> bool:
    """Whether a move or removal of the alias in the registry counts here."""
    return world.ledger.freeze is None and not (hold and hold.lasting)


def _remove(
    world: World, model: str, alias: str, *, active: ActiveAlias | None, hold: Hold | None
) -> Iterator[Action]:
    if hold:
        yield EndHold(hold)
    if active or world.lost(model, alias):
        yield RetireAlias(model, alias)


def _restore(world: World, active: ActiveAlias) -> Iterator[Fetch]:
    """Fetch what serves, or served before, and is not here any more: its copy was damaged."""
    if _comes_again(world, active.model, active.version, active.digest):
        urgency = Urgency.PROMOTION
        yield _fetch(world, active.model, active.version, urgency, AskedBy.RECOVERY)
    version, digest = active.previous_version, active.previous_digest
    if version is None or digest is None or active.since <= world.rollback_since:
        return  # bytes that nobody goes back to any more may make room
    if _comes_again(world, active.model, version, digest):
        yield _fetch(world, active.model, version, Urgency.RECOVERY, AskedBy.RECOVERY)


def _comes_again(world: World, model: str, version: int, digest: str) -> bool:
    """Whether bytes are not here, and the registry lists a version that ought to have them."""
    listed = find(world.aspired, model, version)
    if digest in world.stored or listed is None or is_quarantined(listed, world.ledger):
        return False
    return admissible_digest(listed, world.ledger) == digest


def _promote(world: World, alias: str, active: ActiveAlias, target: Target) -> Iterator[Action]:
    """Replace what is active, by a standby that is warm at that moment."""
    if (target.version, target.digest) == (active.version, active.digest):
        return
    if target.digest is None:
        yield from _bring(world, active.model, alias, target, Urgency.PROMOTION)
        return
    if world.is_rejected(active.model, target) or world.is_frozen(target):
        return
    if world.refused_after_rollback(active.model, alias, target):
        return  # until the gateway has been told that this is over
    if world.why_refused_signature(active, target):
        return
    if building := list(_environment(world, active.model, target, Urgency.PROMOTION)):
        yield from building
        return
    if world.awaited_opening(active, target):
        return  # its standby would end before the window opens
    standby = world.standby(active.model, target)
    if standby:
        yield _activate(active.model, alias, target, standby.stage_id)
        return
    yield Stage(
        model=active.model,
        alias=alias,
        version=target.version,
        digest=target.digest,
        keep=True,
        replaces=active.version,
        urgency=Urgency.PROMOTION,
        asked_by=target.asked_by,
        own=world.runs_in_own(active.model, target),
        displaces=world.swap_of(active.model, target) is not Swap.BLUE_GREEN,
    )


def _bring_up(world: World, model: str, alias: str, targets: list[Target]) -> Iterator[Action]:
    """Give an alias that points nowhere its best target whose bytes are here; fetch the best.

    While no promotion window is open, one that the alias had before is the best.
    """
    ready = list[Target]()
    for rank, target in enumerate(targets):
        meant = world.recovered(model, alias, target)
        if world.waits_for_caller(model, meant):
            continue  # and is among the wanted once somebody does
        preload = world.load_of(model, meant) is Load.PRELOAD
        urgency = Urgency.PRELOAD if preload else Urgency.PREFETCH
        if target.digest is None:
            if rank == 0:
                yield from _bring(world, model, alias, target, urgency)
            continue
        if world.is_rejected(model, meant) or world.is_frozen(meant):
            continue
        lost = world.lost(model, alias)
        if world.refused_after_rollback(model, alias, meant) or world.why_refused_signature(
            lost, meant
        ):
            continue
        if building := list(_environment(world, model, meant, urgency)):
            yield from building if rank == 0 else ()
            continue
        ready.append(meant)
    if ready:
        waits = partial(world.awaited_opening, None)
        yield _first(world, model, alias, next(filterfalse(waits, ready), ready[0]))


def _bring(
    world: World, model: str, alias: str, target: Target, urgency: Urgency
) -> Iterator[Fetch]:
    """Fetch a target, unless it is known that other bytes would come than the ones meant."""
    listed = find(world.aspired, model, target.version)
    if listed and listed.stamp_problem:
        return
    hold = world.ledger.holds.get((model, alias)) if target.meant else None
    if hold is None:
        yield _fetch(world, model, target.version, urgency, target.asked_by)
    elif not world.why_other_bytes(hold):
        meant, of = hold.target_digest, hold.target_creation
        yield Fetch(model, target.version, urgency, target.asked_by, meant, of)


def _fetch(
    world: World, model: str, version: int, urgency: Urgency, asked_by: str = AskedBy.POLL
) -> Fetch:
    creation = world.creation_of(model, version)
    return Fetch(model, version, urgency, asked_by, creation=creation)


def _first(world: World, model: str, alias: str, target: Target) -> Action:
    """Stage cold, or activate what any stage has proved; a preload what is warm, or serves."""
    digest = target.digest or ""
    preload = world.load_of(model, target) is Load.PRELOAD
    standby = world.standby(model, target)
    stage_id = world.proved.get((model, target.version, digest))
    if preload and not world.serves(model, target):
        stage_id = None  # what was proved long ago may have no worker any more
    if stage_id or standby:
        return _activate(model, alias, target, stage_id or (standby.stage_id if standby else ""))
    return Stage(
        model=model,
        alias=alias,
        version=target.version,
        digest=digest,
        keep=preload,
        replaces=None,
        urgency=_first_urgency(target, preload=preload),
        asked_by=target.asked_by,
        own=world.runs_in_own(model, target),
    )


def _first_urgency(target: Target, *, preload: bool) -> Urgency:
    if target.asked_by in (AskedBy.RECOVERY, AskedBy.OPERATOR, AskedBy.GATEWAY):
        return Urgency.RECOVERY
    return Urgency.PRELOAD if preload else Urgency.FIRST


def _activate(model: str, alias: str, target: Target, stage_id: str) -> Activate:
    return Activate(
        model=model,
        alias=alias,
        version=target.version,
        digest=target.digest or "",
        stage_id=stage_id,
        urgency=Urgency.ACTIVATE,
        asked_by=target.asked_by,
    )


def _environment(
    world: World, model: str, target: Target, urgency: Urgency
) -> Iterator[BuildEnvironment]:
    """Build the environment that a target asks for, if it is not there."""
    digest = target.digest or ""
    if world.runs_in_own(model, target) and digest not in world.environments:
        yield BuildEnvironment(model, target.version, digest, urgency, target.asked_by)
