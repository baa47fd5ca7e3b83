"""Why an alias is where it is on this node. Pure; the plan's decision told as a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.contract import ActiveAlias
from registry_sync.domain import (
    LOAD_TAG,
    AskedBy,
    AspiredVersion,
    Hold,
    aspired_version,
    find,
    is_unfollowed,
)
from registry_sync.planning.admissibility import quarantine_of
from registry_sync.planning.incidents import told
from registry_sync.planning.snapshot import Target, World


class Why(StrEnum):
    """Why an alias is where it is on this node."""

    FOLLOWS = "follows"
    UNDER_WAY = "under_way"
    FAILING = "failing"
    PINNED = "pinned"
    HELD = "held"
    FROZEN = "frozen"
    AWAITS_WINDOW = "awaits_window"
    ON_DEMAND = "on_demand"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    REPLACED = "replaced"
    UNSTAMPED = "unstamped"
    UNREADABLE_STAMP = "unreadable_stamp"
    UNFOLLOWED = "unfollowed"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an alias means on this node, what it ought to mean, and what stands between.

    Attributes:
        active: The version that it means; None: none.
        aspired: The version at which the registry's alias points; None: none that can be followed.
        target: The version that it is to mean: the hold's, or the registry's; None: as it is.
        digest: Of the target, where its bytes are here.
        why: The machine word.
        reason: The same as a sentence.
        signature_change: What the target changes for callers, or what means now has changed for
            those of the version before; None: nothing, as far as is known.
    """

    active: int | None
    aspired: int | None
    target: int | None
    digest: str | None
    why: Why
    reason: str
    signature_change: str | None = None


def explain(world: World, model: str, alias: str, active: ActiveAlias | None) -> Explanation:
    """Say why an alias means on this node what it means.

    Args:
        world: Everything that the decision is made of.
        model: Which model.
        alias: Which alias of it.
        active: What it means, from ``world.node``; None: nothing. Whoever asks for thousands has
            an index of these.
    """
    aspired = aspired_version(world.aspired, model, alias)
    hold = world.ledger.holds.get((model, alias))
    wish = world.wish(model, alias, hold, aspired)
    why, reason = _why(world, model, alias, active, hold)
    return Explanation(
        active=active.version if active else None,
        aspired=aspired,
        target=wish.version if wish else None,
        digest=wish.digest if wish else None,
        why=why,
        reason=reason,
        signature_change=signature_change(world, active, wish) if active else None,
    )


def signature_change(world: World, active: ActiveAlias, wish: Target | None) -> str | None:
    """Say what an alias changes for its callers where it goes, else where it has gone last."""
    if wish is not None and wish.digest not in (None, active.digest):
        return world.why_other_signature(active, wish)
    if active.previous_version is None or active.previous_digest is None:
        return None
    update = {"version": active.previous_version, "digest": active.previous_digest}
    now = Target(active.version, active.digest, AskedBy.POLL)
    return world.why_other_signature(active.model_copy(update=update), now)


def _why(
    world: World, model: str, alias: str, active: ActiveAlias | None, hold: Hold | None
) -> tuple[Why, str]:
    if hold:
        return _why_held(world, active, hold)
    aspired = aspired_version(world.aspired, model, alias)
    if aspired is None:
        return _why_not_aspired(world, model, alias, active)
    listed = find(world.aspired, model, aspired)
    if listed is None:
        return Why.UNFOLLOWED, f"the registry does not list version {aspired}"
    why, reason = _why_not_there(world, listed, alias, active)
    if active and why is not Why.FOLLOWS and world.is_successor(active, aspired):
        reason = (
            f"version {aspired} was made anew in the registry, and the bytes of its predecessor "
            f"serve until it is active: {reason}"
        )
    return why, reason


def _why_not_there(
    world: World, listed: AspiredVersion, alias: str, active: ActiveAlias | None
) -> tuple[Why, str]:
    """Say what stands between an alias and the version that the registry wants."""
    model = listed.model
    if not world.admissible(listed):
        return _why_inadmissible(world, listed)
    target = Target(listed.version, world.here(listed), world.asked_by(model, alias))
    if active and (active.version, active.digest) == (target.version, target.digest):
        return Why.FOLLOWS, "it is where the registry wants it"
    if refused := _why_refused(world, model, alias, active, target):
        return refused
    if active is None:
        return _why_nowhere(world, model, alias, target)
    frozen = _why_frozen(world, target)
    return frozen or _why_closed(world, active, target) or _why_not_yet(world, model, alias, target)


def _why_refused(
    world: World, model: str, alias: str, active: ActiveAlias | None, target: Target
) -> tuple[Why, str] | None:
    """Say why an alias does not follow the registry to what is here; None: it may."""
    if left := world.refused_after_rollback(model, alias, target):
        return Why.HELD, left.reason
    if rejected := world.why_rejected(model, target.version, target.digest or ""):
        return Why.REJECTED, rejected
    before = active or world.lost(model, alias)
    meant = target if active else world.recovered(model, alias, target)
    if other := world.why_refused_signature(before, meant):
        return Why.REJECTED, other
    return None


def _why_frozen(world: World, target: Target) -> tuple[Why, str] | None:
    if world.is_frozen(target):
        return Why.FROZEN, "this node is frozen: no alias follows the registry until `unfreeze`"
    return None


def _why_closed(world: World, active: ActiveAlias, target: Target) -> tuple[Why, str] | None:
    """Return that a promotion waits for a window, or None: meanwhile, what it lacks comes."""
    opens_at = world.awaited_opening(active, target)
    if opens_at is None or world.lacks_anything(active.model, target):
        return None
    return Why.AWAITS_WINDOW, f"waits for the promotion window that opens at {opens_at:%FT%TZ}"


def _why_nowhere(world: World, model: str, alias: str, target: Target) -> tuple[Why, str]:
    """Say why an alias that points nowhere is not at a target that it may have."""
    target = world.recovered(model, alias, target)
    if frozen := _why_frozen(world, target):
        return frozen
    if _waits_for_caller(world, model, alias, target):
        comes = "has its environment built" if target.digest else "is fetched"
        return Why.ON_DEMAND, (
            f"version {target.version} {comes} when it is called: {LOAD_TAG} is on_demand"
        )
    return _why_not_yet(world, model, alias, target)


def _waits_for_caller(world: World, model: str, alias: str, target: Target) -> bool:
    """Whether nothing happens to an alias that points nowhere until somebody calls it."""
    return (
        world.waits_for_caller(model, target)
        and not world.is_wanted(model, target.version)
        and world.last(model, alias) is None
    )


def _why_inadmissible(world: World, listed: AspiredVersion) -> tuple[Why, str]:
    if found := quarantine_of(listed, world.ledger):
        return Why.QUARANTINED, told(found, listed, world.ledger)
    if listed.stamp_problem:
        return Why.UNREADABLE_STAMP, listed.stamp_problem
    return Why.UNSTAMPED, (
        f"nobody has stamped version {listed.version}, and this node requires a digest: stamp it "
        f"with `registry-gateway stamp models:/{listed.model}/{listed.version}`"
    )


def _why_held(world: World, active: ActiveAlias | None, hold: Hold) -> tuple[Why, str]:
    model = hold.model
    why = Why.PINNED if hold.lasting else Why.HELD
    end = (
        f"pinned at version {hold.target_version} by {hold.asked_by}, until `unpin`"
        if hold.lasting
        else f"held at version {hold.target_version} by {hold.asked_by}, until the registry "
        "points the alias at "
        + (f"another version than {hold.aspired_version}" if hold.aspired_version else "another")
    )
    if showed := world.why_held(hold):
        end = f"{end}; {showed}"
    if active and (active.version, active.digest) == (hold.target_version, hold.target_digest):
        other = world.why_other_bytes(hold)
        return why, f"{end}; {other}" if other else end
    here = hold.target_digest if hold.target_digest in world.stored else None
    target = Target(hold.target_version, here, AskedBy.OPERATOR)
    not_there, reason = why_unable(world, hold) or _why_not_yet(world, model, hold.alias, target)
    return not_there, f"{end}; {reason}"


def why_unable(world: World, hold: Hold) -> tuple[Why, str] | None:
    """Say why the target of a hold cannot serve as it is; None: it may."""
    by_operator = hold.asked_by == AskedBy.OPERATOR
    if rejected := world.why_rejected(
        hold.model, hold.target_version, hold.target_digest, by_operator=by_operator
    ):
        return Why.REJECTED, rejected
    if other := world.why_other_bytes(hold):
        return Why.REPLACED, other
    listed = find(world.aspired, hold.model, hold.target_version)
    if listed is None or hold.target_digest in world.stored:
        return None
    if found := quarantine_of(listed, world.ledger):
        return Why.QUARANTINED, told(found, listed, world.ledger)
    return (Why.UNREADABLE_STAMP, listed.stamp_problem) if listed.stamp_problem else None


def _why_not_aspired(
    world: World, model: str, alias: str, active: ActiveAlias | None
) -> tuple[Why, str]:
    if is_unfollowed(world.aspired, model, alias):
        return Why.UNFOLLOWED, "the registry's alias is at a version that is not ready: it stays"
    if active is None:
        return Why.UNKNOWN, "neither the registry nor this node has this alias"
    if not world.listings:
        return Why.GONE, "the registry has not been listed since the start: what serves, serves"
    if world.ledger.freeze:
        return Why.FROZEN, "the registry no longer has it, and this node is frozen: it stays"
    return Why.UNDER_WAY, "the registry no longer has it: it is taken away when two listings agree"


def _why_not_yet(world: World, model: str, alias: str, target: Target) -> tuple[Why, str]:
    """Say what is to be done for an alias, or what failed of it."""
    if failed := world.why_failing(model, alias, target):
        return Why.FAILING, failed
    return Why.UNDER_WAY, _next_step(world, model, target)


def _next_step(world: World, model: str, target: Target) -> str:
    """Say what the next passes do to bring an alias to its target."""
    if target.digest is None:
        return f"the bytes of version {target.version} are to be fetched and checked"
    if world.standby(model, target):
        return f"version {target.version} is warm, and about to be activated"
    return f"version {target.version} is here, and is to be loaded and warmed"
