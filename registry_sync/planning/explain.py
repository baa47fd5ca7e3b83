"""Explanations of aliases: the plan's decision as a sentence. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.contract import ActiveAlias, AliasRef
from registry_sync.domain import (
    LOAD_TAG,
    AspiredVersion,
    Hold,
    aspired_version,
    find,
    is_unfollowed,
)
from registry_sync.planning.admissibility import quarantine_of
from registry_sync.planning.incidents import explain_quarantine
from registry_sync.planning.snapshot import Cause, Snapshot, Target


@dataclass(frozen=True, slots=True)
class Explanation:
    """The active version of an alias, its target, and why they differ.

    Attributes:
        active: The active version, or None.
        aspired: The version of the registry's alias, or None if it cannot be followed.
        target: The version of the hold, else the registry's if it is admissible, or None.
        digest: The target's digest, or None if its bytes are not on this node.
        why: The machine word.
        reason: The same as a sentence.
        signature_change: How the signature changes for callers by the next move, else how it did
            by the last one, or None.
    """

    active: int | None
    aspired: int | None
    target: int | None
    digest: str | None
    why: Cause
    reason: str
    signature_change: str | None = None


def explain(snapshot: Snapshot, model: str, alias: str, active: ActiveAlias | None) -> Explanation:
    """Explain an alias; ``active`` is its entry, or None if it is not active."""
    hold = snapshot.ledger.holds.get(AliasRef(model, alias))
    target = snapshot.target(model, alias, hold)
    why, reason = _why(snapshot, model, alias, active, hold)
    return Explanation(
        active=active.version if active else None,
        aspired=aspired_version(snapshot.aspired, model, alias),
        target=target.version if target else None,
        digest=target.digest if target else None,
        why=why,
        reason=reason,
        signature_change=signature_change(snapshot, active, target) if active else None,
    )


def signature_change(snapshot: Snapshot, active: ActiveAlias, target: Target | None) -> str | None:
    """Return how an alias's next move, else its last one, changes the signature, or None."""
    if target is not None and target.digest not in (None, active.digest):
        return snapshot.why_other_signature(active, target)
    if active.previous_version is None or active.previous_digest is None:
        return None
    update = {"version": active.previous_version, "digest": active.previous_digest}
    now = Target(active.model, active.alias, active.version, active.digest)
    return snapshot.why_other_signature(active.model_copy(update=update), now)


def _why(
    snapshot: Snapshot, model: str, alias: str, active: ActiveAlias | None, hold: Hold | None
) -> tuple[Cause, str]:
    if hold:
        return _why_held(snapshot, active, hold)
    aspired = aspired_version(snapshot.aspired, model, alias)
    if aspired is None:
        return _why_not_aspired(snapshot, model, alias, active)
    listed = find(snapshot.aspired, model, aspired)
    if listed is None:
        return Cause.UNFOLLOWED, f"the registry does not list version {aspired}"
    why, reason = _why_not_there(snapshot, listed, alias, active)
    if active and why is not Cause.FOLLOWS and snapshot.is_successor(active, aspired):
        reason = (
            f"version {aspired} was made anew in the registry, and the bytes of its predecessor "
            f"serve until it is active: {reason}"
        )
    return why, reason


def _why_not_there(
    snapshot: Snapshot, listed: AspiredVersion, alias: str, active: ActiveAlias | None
) -> tuple[Cause, str]:
    """Return why an alias is not at the registry's version, in the order of the plan."""
    if not snapshot.admissible(listed):
        return why_inadmissible(snapshot, listed)
    target = snapshot.target_at(listed, alias)
    if active and target.is_active(active):
        return Cause.FOLLOWS, "it is where the registry wants it"
    if active is None:
        target = snapshot.recovered(target)
    if found := snapshot.obstacle(target, active or snapshot.lost(listed.model, alias)):
        return found
    if active is None and _waits_for_caller(snapshot, target):
        comes = "has its environment built" if target.digest else "is fetched"
        return Cause.ON_DEMAND, (
            f"version {target.version} {comes} when it is called: {LOAD_TAG} is on_demand"
        )
    opens_at = snapshot.awaited_opening(active, target) if active else None
    if opens_at and not snapshot.lacks_anything(target):  # bytes and environment come first
        return (
            Cause.AWAITS_WINDOW,
            f"waits for the promotion window that opens at {opens_at:%FT%TZ}",
        )
    return _why_not_yet(snapshot, target)


def _waits_for_caller(snapshot: Snapshot, target: Target) -> bool:
    """Whether nothing happens to an alias that is not active until a caller asks for it."""
    return (
        snapshot.waits_for_caller(target)
        and not snapshot.is_wanted(target.model, target.version)
        and snapshot.last(target.model, target.alias) is None
    )


def why_inadmissible(snapshot: Snapshot, listed: AspiredVersion) -> tuple[Cause, str]:
    """Return why no alias may follow the registry to a version that is not admissible."""
    name = f"models:/{listed.model}/{listed.version}"
    unstamped = (
        f"version {listed.version} has no stamp, and this node requires a digest: stamp it with "
        f"`registry-gateway stamp {name}`"
    )
    return _why_wrong_bytes(snapshot, listed) or (Cause.UNSTAMPED, unstamped)


def _why_wrong_bytes(snapshot: Snapshot, listed: AspiredVersion) -> tuple[Cause, str] | None:
    """Return why the bytes of a version are wrong, or cannot be verified, or None."""
    if found := quarantine_of(listed, snapshot.ledger):
        return Cause.QUARANTINED, explain_quarantine(found, listed, snapshot.ledger)
    return (Cause.UNREADABLE_STAMP, listed.stamp_problem) if listed.stamp_problem else None


def _why_held(snapshot: Snapshot, active: ActiveAlias | None, hold: Hold) -> tuple[Cause, str]:
    why = Cause.PINNED if hold.lasting else Cause.HELD
    end = (
        f"pinned at version {hold.target_version} by {hold.asked_by}, until `unpin`"
        if hold.lasting
        else f"held at version {hold.target_version} by {hold.asked_by}, until the registry "
        "points the alias at "
        + (f"another version than {hold.aspired_version}" if hold.aspired_version else "another")
    )
    if live := snapshot.why_held(hold):
        end = f"{end}; {live}"
    target = _target_of(hold)
    if active and target.is_active(active):
        other = snapshot.why_other_bytes(hold)
        return why, f"{end}; {other}" if other else end
    here = hold.target_digest if hold.target_digest in snapshot.stored else None
    not_there, reason = why_unable(snapshot, hold) or _why_not_yet(
        snapshot, replace(target, digest=here)
    )
    return not_there, f"{end}; {reason}"


def _target_of(hold: Hold) -> Target:
    version, digest = hold.target_version, hold.target_digest
    return Target(hold.model, hold.alias, version, digest, hold.asked_by)


def why_unable(snapshot: Snapshot, hold: Hold) -> tuple[Cause, str] | None:
    """Return why the target of a hold cannot serve as it is, or None."""
    if rejected := snapshot.why_rejected(_target_of(hold)):
        return Cause.REJECTED, rejected
    if other := snapshot.why_other_bytes(hold):
        return Cause.REPLACED, other
    listed = find(snapshot.aspired, hold.model, hold.target_version)
    if listed is None or hold.target_digest in snapshot.stored:
        return None
    return _why_wrong_bytes(snapshot, listed)


def _why_not_aspired(
    snapshot: Snapshot, model: str, alias: str, active: ActiveAlias | None
) -> tuple[Cause, str]:
    if is_unfollowed(snapshot.aspired, model, alias):
        return Cause.UNFOLLOWED, "the registry's alias is at a version that is not ready: it stays"
    if active is None:
        return Cause.UNKNOWN, "neither the registry nor this node has this alias"
    if not snapshot.listings:
        return Cause.GONE, "the registry has not been listed since the start: what serves, serves"
    if snapshot.ledger.freeze:
        return Cause.FROZEN, "the registry no longer has it, and this node is frozen: it stays"
    return (
        Cause.UNDER_WAY,
        "the registry no longer has it: it is taken away when two listings agree",
    )


def _why_not_yet(snapshot: Snapshot, target: Target) -> tuple[Cause, str]:
    """Return the step that failed on an alias's way to its target, else the next one."""
    if failed := snapshot.why_failing(target):
        return Cause.FAILING, failed
    version = target.version
    if target.digest is None:
        next_step = f"the bytes of version {version} are to be fetched and checked"
    elif snapshot.standby(target):
        next_step = f"version {version} is warm, and about to be activated"
    else:
        next_step = f"version {version} is here, and is to be loaded and warmed"
    return Cause.UNDER_WAY, next_step
