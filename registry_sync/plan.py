"""The decision: what ought to be done now, most urgent first. Pure.

Availability first. Absence is no instruction: a listing that is empty where there was something
changes nothing, and what a listing no longer has goes only when the next one agrees.
The decision has no memory: it is made anew from what is, after every change of it.
A freeze stops every change of an alias that the registry asks for. Bytes are fetched and checked
ahead all the same, and what was lost comes back: that changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from gateway.control_contract import ActiveAlias, NodeState, StageRequest
from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.records import BY_REGISTRY, AskedBy, Hold, LedgerView, Rejection

LISTINGS_FOR_REMOVAL = 2


class Urgency(IntEnum):
    """The order of work."""

    RELEASE = 0
    WANTED = 1
    ACTIVATE = 2
    PROMOTION = 3
    RECOVERY = 4
    FIRST = 5
    PREFETCH = 6
    RETIRE = 7


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the version's bytes here and check them."""

    model: str
    version: int
    urgency: Urgency
    asked_by: str = AskedBy.POLL


@dataclass(frozen=True, slots=True)
class BuildEnvironment:
    """Build the own environment that the version asks for."""

    model: str
    version: int
    digest: str
    urgency: Urgency
    asked_by: str = AskedBy.POLL


@dataclass(frozen=True, slots=True)
class Stage:
    """Start a standby and warm it.

    Attributes:
        alias: For whom.
        keep: Keep the warmed replica for the activation: a promotion.
        replaces: The version that it will replace.
        own: It runs in an environment of its own.
    """

    model: str
    alias: str
    version: int
    digest: str
    keep: bool
    replaces: int | None
    urgency: Urgency
    asked_by: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Activate:
    """Point the alias at a version that was staged as ``stage_id``."""

    model: str
    alias: str
    version: int
    digest: str
    stage_id: str
    urgency: Urgency
    asked_by: str


@dataclass(frozen=True, slots=True)
class RetireAlias:
    """Take an alias away that the registry no longer has."""

    model: str
    alias: str
    urgency: Urgency = Urgency.RETIRE
    asked_by: str = AskedBy.POLL


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    """Follow the registry again: its alias has moved since the hold was made, or is gone."""

    model: str
    alias: str
    urgency: Urgency = Urgency.RELEASE
    asked_by: str = AskedBy.POLL


Action = Fetch | BuildEnvironment | Stage | Activate | RetireAlias | ReleaseHold


@dataclass(frozen=True, slots=True)
class World:
    """Everything that the decision is made of.

    Attributes:
        aspired: The listing that counts (see `settle`).
        listings: How many complete listings agree on it since this process started; 0: it is
            remembered from before.
        node: What the gateway serves.
        ledger: What is remembered.
        stored: Digests in the artifact store.
        proved: Stages that went well since the gateway started: (model, version, digest) to id.
        require_digest: Versions without a stamp are refused.
        wished_by: Who told of a wish first, by model and alias; where nobody is named, a poll.
        environments: Digests in the store whose own environment is built.
        refused: Digests in the store that may not be loaded beside our libraries, and why not.
    """

    aspired: Aspired
    listings: int
    node: NodeState
    ledger: LedgerView
    stored: AbstractSet[str]
    proved: Mapping[tuple[str, int, str], str] = field(default_factory=dict)
    require_digest: bool = False
    wished_by: Mapping[tuple[str, str], str] = field(default_factory=dict)
    environments: AbstractSet[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where an alias ought to point; ``digest`` None: its bytes are not here yet."""

    version: int
    digest: str | None
    asked_by: str


def plan(world: World) -> tuple[Action, ...]:
    """Return what ought to be done, most urgent first; nothing twice."""
    actions: dict[Action | tuple[str, int], Action] = {}
    for action in sorted(_all(world), key=lambda action: action.urgency):
        if isinstance(action, Fetch | BuildEnvironment):
            actions.setdefault((action.model, action.version), action)
        else:
            actions.setdefault(action, action)
    return tuple(actions.values())


def _all(world: World) -> Iterator[Action]:
    yield from _wanted(world)
    active = {(one.model, one.alias): one for one in world.node.active}
    for model, alias in sorted(_aliases(world, active)):
        yield from _alias(world, model, alias, active.get((model, alias)))


def _wanted(world: World) -> Iterator[Action]:
    """Bytes that a caller waits for, oldest wish first (the sort is stable)."""
    for wish in sorted(world.node.wanted, key=lambda wish: wish.since):
        listed = find(world.aspired, wish.model, wish.version)
        if listed is None or is_quarantined(listed, world.ledger):
            continue
        target = _Target(wish.version, _here(world, listed), AskedBy.POLL)
        if target.digest is None:
            yield Fetch(wish.model, wish.version, Urgency.WANTED)
        elif not _is_rejected(world, wish.model, target):
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
    # With nothing listed ever, where an alias was last is all that is known.
    last = {key for key, one in world.ledger.last_active.items() if one.retired_at is None}
    recovered = set() if world.aspired.models else last
    return listed | set(active) | set(world.ledger.holds) | recovered


def _alias(world: World, model: str, alias: str, active: ActiveAlias | None) -> Iterator[Action]:
    """What to do about one alias."""
    aspired = aspired_version(world.aspired, model, alias)
    hold = world.ledger.holds.get((model, alias))
    if _follows_registry(world, hold):
        gone = aspired is None and not _is_unfollowed(world.aspired, model, alias)
        if gone and world.listings >= LISTINGS_FOR_REMOVAL:
            yield from _remove(model, alias, active=active, hold=hold)
            return
        if hold and aspired is not None and aspired != hold.aspired_version:
            yield ReleaseHold(model, alias)
            hold = None
    wish = _wish(world, model, alias, hold, aspired)
    if active is not None:
        # What serves is replaced only by what ought to serve, never by something older.
        if wish:
            yield from _promote(world, alias, active, wish)
    else:
        yield from _bring_up(
            world, model, alias, [t for t in (wish, _last(world, model, alias)) if t]
        )


def _follows_registry(world: World, hold: Hold | None) -> bool:
    """Whether a move or removal of the alias in the registry counts here."""
    return world.ledger.freeze is None and not (hold and hold.lasting)


def _remove(
    model: str, alias: str, *, active: ActiveAlias | None, hold: Hold | None
) -> Iterator[Action]:
    if hold:
        yield ReleaseHold(model, alias)
    if active:
        yield RetireAlias(model, alias)


def _wish(
    world: World, model: str, alias: str, hold: Hold | None, aspired: int | None
) -> _Target | None:
    """Where the alias ought to point: the hold, else the registry's wish, if admissible."""
    if hold:
        digest = hold.target_digest if hold.target_digest in world.stored else None
        return _Target(hold.target_version, digest, AskedBy.OPERATOR)
    listed = find(world.aspired, model, aspired) if aspired is not None else None
    if listed is None or not _admissible(world, listed):
        return None
    return _Target(listed.version, _here(world, listed), _asked_by(world, model, alias))


def _asked_by(world: World, model: str, alias: str) -> str:
    """Say who told first of what the registry wishes of an alias."""
    return world.wished_by.get((model, alias), AskedBy.POLL)


def _last(world: World, model: str, alias: str) -> _Target | None:
    """What the alias pointed at last, if its bytes are here: for an alias that was lost."""
    last = world.ledger.last_active.get((model, alias))
    if last is None or last.digest not in world.stored:
        return None
    return _Target(last.version, last.digest, AskedBy.RECOVERY)


def _promote(world: World, alias: str, active: ActiveAlias, target: _Target) -> Iterator[Action]:
    """Replace what is active, by a standby that is warm at that moment."""
    if (target.version, target.digest) == (active.version, active.digest):
        return
    if target.digest is None:
        yield Fetch(active.model, target.version, Urgency.PROMOTION, target.asked_by)
        return
    if _is_rejected(world, active.model, target) or _is_frozen(world, target):
        return
    if building := list(_environment(world, active.model, target, Urgency.PROMOTION)):
        yield from building
        return
    standby = _standby(world.node, active.model, target)
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
        own=_runs_in_own(world, active.model, target),
    )


def _bring_up(world: World, model: str, alias: str, targets: list[_Target]) -> Iterator[Action]:
    """Give an alias that points nowhere its best target whose bytes are here; fetch the best."""
    for rank, target in enumerate(targets):
        if target.digest is None:
            if rank == 0:
                yield Fetch(model, target.version, Urgency.PREFETCH, target.asked_by)
            continue
        meant = _recovered(world, model, alias, target)
        if _is_rejected(world, model, meant) or _is_frozen(world, meant):
            continue
        if building := list(_environment(world, model, meant, Urgency.PREFETCH)):
            yield from building if rank == 0 else ()
            continue
        yield _first(world, model, alias, meant)
        return


def _recovered(world: World, model: str, alias: str, target: _Target) -> _Target:
    """Return the target; that an alias served before and lost is a recovery, whoever woke us."""
    last = world.ledger.last_active.get((model, alias))
    if last is None or target.asked_by not in BY_REGISTRY:
        return target
    again = (last.version, last.digest) == (target.version, target.digest)
    return replace(target, asked_by=AskedBy.RECOVERY) if again else target


def _first(world: World, model: str, alias: str, target: _Target) -> Action:
    """Stage cold, or activate what any stage has proved."""
    digest = target.digest or ""
    stage_id = world.proved.get((model, target.version, digest))
    standby = _standby(world.node, model, target)
    if stage_id or standby:
        return _activate(model, alias, target, stage_id or (standby.stage_id if standby else ""))
    recovery = target.asked_by in (AskedBy.RECOVERY, AskedBy.OPERATOR)
    return Stage(
        model=model,
        alias=alias,
        version=target.version,
        digest=digest,
        keep=False,
        replaces=None,
        urgency=Urgency.RECOVERY if recovery else Urgency.FIRST,
        asked_by=target.asked_by,
        own=_runs_in_own(world, model, target),
    )


def _activate(model: str, alias: str, target: _Target, stage_id: str) -> Activate:
    return Activate(
        model=model,
        alias=alias,
        version=target.version,
        digest=target.digest or "",
        stage_id=stage_id,
        urgency=Urgency.ACTIVATE,
        asked_by=target.asked_by,
    )


def _standby(node: NodeState, model: str, target: _Target) -> StageRequest | None:
    wanted = (model, target.version, target.digest)
    return next((s for s in node.standbys if (s.model, s.version, s.digest) == wanted), None)


def _environment(
    world: World, model: str, target: _Target, urgency: Urgency
) -> Iterator[BuildEnvironment]:
    """Build the environment that a target asks for, if it is not there."""
    digest = target.digest or ""
    if _runs_in_own(world, model, target) and digest not in world.environments:
        yield BuildEnvironment(model, target.version, digest, urgency, target.asked_by)


def _runs_in_own(world: World, model: str, target: _Target) -> bool:
    digest = target.digest or ""
    return runs_in_own(world.aspired, world.environments, model, target.version, digest)


def _is_rejected(world: World, model: str, target: _Target) -> bool:
    """Whether this must not be loaded: it failed here, or may not be beside our libraries."""
    return why_rejected(world, model, target.version, target.digest or "") is not None


def why_rejected(world: World, model: str, version: int, digest: str) -> str | None:
    """Say why a version must not be loaded as it is to run; None: it may be."""
    own = runs_in_own(world.aspired, world.environments, model, version, digest)
    rejected = rejection(world.ledger, model, version, digest, own=own)
    if rejected is not None:
        return rejected.told
    return None if own else world.refused.get(digest)


def _is_frozen(world: World, target: _Target) -> bool:
    return world.ledger.freeze is not None and target.asked_by in BY_REGISTRY


def _admissible(world: World, listed: AspiredVersion) -> bool:
    """Whether an alias may follow the registry to this version."""
    return not is_quarantined(listed, world.ledger) and (listed.stamped or not world.require_digest)


def _here(world: World, listed: AspiredVersion) -> str | None:
    digest = admissible_digest(listed, world.ledger)
    return digest if digest in world.stored else None


# --- questions that others ask too ----------------------------------------------------------------


def find(aspired: Aspired, model: str, version: int) -> AspiredVersion | None:
    """Return a version that the registry lists, or None."""
    listed = aspired.models.get(model)
    return listed.versions.get(version) if listed else None


def expected_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return what the version's bytes must be: its stamp, else what was pinned, else None."""
    pin = ledger.pins.get((listed.model, listed.version))
    return listed.expected_digest or (pin.digest if pin else None)


def admissible_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return the digest accepted here before, if it is still the expected one."""
    pin = ledger.pins.get((listed.model, listed.version))
    return pin.digest if pin and pin.digest == expected_digest(listed, ledger) else None


def is_quarantined(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether the bytes were found wrong, and nobody has changed what they must be since."""
    found = ledger.quarantines.get((listed.model, listed.version))
    return found is not None and found.expected_digest == expected_digest(listed, ledger)


def runs_in_own(
    aspired: Aspired, environments: AbstractSet[str], model: str, version: int, digest: str
) -> bool:
    """Whether a version runs in its own environment; one that nobody lists, as it was built."""
    listed = aspired.models.get(model)
    if listed is None or version not in listed.versions:
        return digest in environments
    return listed.asks_own_environment(version)


def rejection(
    ledger: LedgerView, model: str, version: int, digest: str, *, own: bool
) -> Rejection | None:
    """Return the rejection that counts for a version in its own environment, or in ours."""
    found = ledger.rejections.get((model, version, digest))
    return found if found is not None and found.in_own == own else None


def aspired_version(aspired: Aspired, model: str, alias: str) -> int | None:
    """Return where the registry's alias points; None: at nothing that can be followed."""
    listed = aspired.models.get(model)
    return listed.aliases.get(alias) if listed else None


def _is_unfollowed(aspired: Aspired, model: str, alias: str) -> bool:
    listed = aspired.models.get(model)
    return listed is not None and listed.leaves_alone(alias)


# --- why --------------------------------------------------------------------------------------


class Why(StrEnum):
    """Why an alias is where it is on this node."""

    FOLLOWS = "follows"
    UNDER_WAY = "under_way"
    PINNED = "pinned"
    HELD = "held"
    FROZEN = "frozen"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    UNSTAMPED = "unstamped"
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
    """

    active: int | None
    aspired: int | None
    target: int | None
    digest: str | None
    why: Why
    reason: str


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
    wish = _wish(world, model, alias, hold, aspired)
    why, reason = _why(world, model, alias, active, hold)
    return Explanation(
        active=active.version if active else None,
        aspired=aspired,
        target=wish.version if wish else None,
        digest=wish.digest if wish else None,
        why=why,
        reason=reason,
    )


def _why(
    world: World, model: str, alias: str, active: ActiveAlias | None, hold: Hold | None
) -> tuple[Why, str]:
    if hold:
        return _why_held(world, model, active, hold)
    aspired = aspired_version(world.aspired, model, alias)
    if aspired is None:
        return _why_not_aspired(world, model, alias, active)
    listed = find(world.aspired, model, aspired)
    if listed is None:
        return Why.UNFOLLOWED, f"the registry does not list version {aspired}"
    if not _admissible(world, listed):
        return _why_inadmissible(world, listed)
    target = _Target(aspired, _here(world, listed), _asked_by(world, model, alias))
    if active and (active.version, active.digest) == (target.version, target.digest):
        return Why.FOLLOWS, "it is where the registry wants it"
    if rejected := why_rejected(world, model, aspired, target.digest or ""):
        return Why.REJECTED, rejected
    if active is None:
        target = _recovered(world, model, alias, target)
    if _is_frozen(world, target):
        return Why.FROZEN, "this node is frozen: no alias follows the registry until `unfreeze`"
    return Why.UNDER_WAY, _next_step(world, model, target)


def _why_inadmissible(world: World, listed: AspiredVersion) -> tuple[Why, str]:
    if is_quarantined(listed, world.ledger):
        return Why.QUARANTINED, world.ledger.quarantines[listed.model, listed.version].reason
    return Why.UNSTAMPED, (
        f"nobody has stamped version {listed.version}, and this node requires a digest: stamp it "
        f"with `registry-gateway stamp models:/{listed.model}/{listed.version}`"
    )


def _why_held(world: World, model: str, active: ActiveAlias | None, hold: Hold) -> tuple[Why, str]:
    why = Why.PINNED if hold.lasting else Why.HELD
    end = (
        f"pinned at version {hold.target_version} by {hold.asked_by}, until `unpin`"
        if hold.lasting
        else f"held at version {hold.target_version} by {hold.asked_by}, until the registry "
        "points the alias at "
        + (f"another version than {hold.aspired_version}" if hold.aspired_version else "a version")
    )
    if active and (active.version, active.digest) == (hold.target_version, hold.target_digest):
        return why, end
    here = hold.target_digest if hold.target_digest in world.stored else None
    target = _Target(hold.target_version, here, AskedBy.OPERATOR)
    if rejected := why_rejected(world, model, hold.target_version, hold.target_digest):
        return Why.REJECTED, f"{end}; {rejected}"
    listed = find(world.aspired, model, hold.target_version)
    if here is None and listed and is_quarantined(listed, world.ledger):
        quarantine = world.ledger.quarantines[model, hold.target_version]
        return Why.QUARANTINED, f"{end}; {quarantine.reason}"
    return Why.UNDER_WAY, f"{end}; {_next_step(world, model, target)}"


def _why_not_aspired(
    world: World, model: str, alias: str, active: ActiveAlias | None
) -> tuple[Why, str]:
    if _is_unfollowed(world.aspired, model, alias):
        return Why.UNFOLLOWED, "the registry's alias is at a version that is not ready: it stays"
    if active is None:
        return Why.UNKNOWN, "neither the registry nor this node has this alias"
    if not world.listings:
        return Why.GONE, "the registry has not been listed since the start: what serves, serves"
    if world.ledger.freeze:
        return Why.FROZEN, "the registry no longer has it, and this node is frozen: it stays"
    return Why.UNDER_WAY, "the registry no longer has it: it is taken away when two listings agree"


def _next_step(world: World, model: str, target: _Target) -> str:
    """Say what the next passes do to bring an alias to its target."""
    if target.digest is None:
        return f"the bytes of version {target.version} are to be fetched and checked"
    if _standby(world.node, model, target):
        return f"version {target.version} is warm, and about to be activated"
    return f"version {target.version} is here, and is to be loaded and warmed"


# --- what a listing says against the one before ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """The listing that counts, and what only waits for the next one to agree.

    Attributes:
        missing: ``(model, "")`` and ``(model, alias)`` that the newest listing lacks.
        ignored: Why the newest listing changed nothing; None: it counts.
    """

    aspired: Aspired
    missing: frozenset[tuple[str, str]] = frozenset()
    ignored: str | None = None


def settle(before: Settled, listed: Aspired) -> Settled:
    """Return what counts after a new listing.

    Args:
        before: What counted until now.
        listed: The newest complete listing.
    """
    if not listed.models and before.aspired.models:
        count = len(before.aspired.models)
        return Settled(
            replace(before.aspired, listed_at=listed.listed_at),
            before.missing,
            f"the registry lists no model at all, and listed {count} before: nothing is changed",
        )
    models = dict(listed.models)
    missing: set[tuple[str, str]] = set()
    for name, known in before.aspired.models.items():
        found = models.get(name)
        if found is None or (not found.versions and known.versions):
            if (name, "") not in before.missing:
                missing.add((name, ""))
                models[name] = known
            continue
        kept = _missing_aliases(known, found, before.missing)
        if kept:
            missing.update((name, alias) for alias in kept)
            models[name] = _with_aliases(known, found, kept)
    return Settled(replace(listed, models=models), frozenset(missing))


def _missing_aliases(
    known: AspiredModel, found: AspiredModel, missing: AbstractSet[tuple[str, str]]
) -> dict[str, int]:
    """Aliases that went away for the first time."""
    return {
        alias: version
        for alias, version in known.aliases.items()
        if alias not in found.aliases
        and not found.leaves_alone(alias)
        and (known.name, alias) not in missing
    }


def _with_aliases(
    known: AspiredModel, found: AspiredModel, kept: Mapping[str, int]
) -> AspiredModel:
    """Keep aliases, and the versions that they point at, for one more listing."""
    versions = dict(found.versions)
    for version in kept.values():
        if version in known.versions:
            versions.setdefault(version, known.versions[version])
    return replace(found, versions=versions, aliases={**found.aliases, **kept})
