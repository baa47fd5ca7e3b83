"""The input of the plan, and its conclusions about one alias. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from gateway.contract import (
    ActiveAlias,
    AliasRef,
    ArtifactRef,
    NodeState,
    RefusedDigest,
    StageRequest,
)
from registry_sync.domain import (
    BY_REGISTRY,
    Activation,
    Aspired,
    AspiredVersion,
    Hold,
    Initiator,
    LedgerView,
    Load,
    OfAlias,
    SignatureChange,
    Swap,
    aspired_version,
    creation_of,
    find,
    is_made_anew,
    is_of_creation,
)
from registry_sync.planning.actions import Failure, Subject
from registry_sync.planning.admissibility import (
    admissible_digest,
    is_quarantined,
    quarantine_of,
    rejection,
    runs_in_own,
    why_other_bytes,
)


class Cause(StrEnum):
    """Why an alias points where it does on this node."""

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
class Target(OfAlias):
    """A version that an alias is to point at, or that a caller waits for.

    Attributes:
        alias: Empty for a version that a caller waits for by number.
        digest: The digest of its bytes, or None if they are not on this node.
        hold: The hold that demands it, or None.
    """

    model: str
    alias: str
    version: int
    digest: str | None
    asked_by: str = Initiator.POLL
    hold: Hold | None = None

    @property
    def by_registry(self) -> bool:
        """Whether the registry demands it: a freeze and promotion windows apply."""
        return self.asked_by in BY_REGISTRY

    @property
    def artifact(self) -> tuple[str, int, str | None]:
        """Model, version and digest."""
        return self.model, self.version, self.digest

    def is_active(self, active: ActiveAlias) -> bool:
        """Whether an alias points at this target."""
        return (self.version, self.digest) == (active.version, active.digest)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision depends on.

    Attributes:
        aspired: The listing in force (see `apply_listing`).
        listings: Complete listings since this process started; 0: the listing is remembered.
        lists_any: Whether the registry lists any model, or None if ``aspired`` shows it. It may
            be of one model.
        node: The state of the gateway.
        ledger: The records in force.
        stored: Digests in the artifact store.
        proved: Successful stages since the gateway started: the version and its bytes to the id.
        require_digest: Whether versions without a stamp are refused.
        initiators: Initiator of the move of each registry alias; else a poll.
        environments: Digests in the store whose own environment is built.
        refused: Digests that must not be loaded in the shared environment, and why.
        signature_change: Returns the difference between the signatures of two digests, or None.
        refuses_signatures: Whether no alias follows the registry to a breaking signature.
        rollback_since: Epoch seconds; the bytes of what an alias left since then are kept.
        failure: Returns the last failure of a step, or None.
        promotions_act_at: When a promotion window opens, or None if promotions act now.
    """

    aspired: Aspired
    listings: int
    node: NodeState
    ledger: LedgerView
    stored: AbstractSet[str]
    proved: Mapping[ArtifactRef, str] = field(default_factory=dict)
    require_digest: bool = False
    initiators: Mapping[AliasRef, str] = field(default_factory=dict)
    environments: AbstractSet[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    signature_change: Callable[[str, str], SignatureChange | None] = lambda _before, _after: None
    refuses_signatures: bool = False
    rollback_since: float = -1.0
    failure: Callable[[Subject], Failure | None] = lambda _: None
    lists_any: bool | None = None
    promotions_act_at: datetime | None = None

    # --- targets ----------------------------------------------------------------------------------

    def target(self, model: str, alias: str, hold: Hold | None) -> Target | None:
        """Return the target of the hold, else the registry's if it is admissible, or None."""
        if hold:
            digest = hold.target_digest
            gone = digest not in self.stored or self.why_other_bytes(hold)
            automatic = hold.asked_by == Initiator.GATEWAY
            asked_by = Initiator.GATEWAY if automatic else Initiator.OPERATOR
            return Target(
                model, alias, hold.target_version, None if gone else digest, asked_by, hold
            )
        aspired = aspired_version(self.aspired, model, alias)
        listed = find(self.aspired, model, aspired) if aspired is not None else None
        return self.target_at(listed, alias) if listed and self.admissible(listed) else None

    def target_at(self, listed: AspiredVersion, alias: str) -> Target:
        """Return a listed version as the target of the registry's alias."""
        model = listed.model
        asked_by = self.initiators.get(AliasRef(model, alias), Initiator.POLL)
        return Target(model, alias, listed.version, self.here(listed), asked_by)

    def last(self, model: str, alias: str) -> Target | None:
        """Return the target that a lost table had, or None unless its bytes may serve again."""
        last = self.lost(model, alias)
        if last is None or last.digest not in self.stored or self._is_known_wrong(last):
            return None
        listed = find(self.aspired, model, last.version)
        if listed is not None and listed.stamp_problem:
            return None
        return Target(model, alias, last.version, last.digest, Initiator.RECOVERY)

    def lost(self, model: str, alias: str) -> Activation | None:
        """Return the newest activation of an alias, or None if it was retired since."""
        last = self.ledger.last_active.get(AliasRef(model, alias))
        return last if last is not None and last.retired_at is None else None

    def _is_known_wrong(self, last: Activation) -> bool:
        """Whether a quarantine shows that the version must have other bytes."""
        listed = find(self.aspired, last.model, last.version)
        found = quarantine_of(listed, self.ledger) if listed else None
        if listed is None or found is None:
            return False
        if is_of_creation(last.creation, creation_of(listed, self.ledger)):
            return found.expected_digest != last.digest
        return found.found_digest == last.digest

    def recovered(self, target: Target) -> Target:
        """Return a target, as a recovery if the alias pointed at it before it was lost."""
        last = self.lost(target.model, target.alias)
        if last is None or not target.by_registry:
            return target
        again = (last.version, last.digest) == (target.version, target.digest)
        return replace(target, asked_by=Initiator.RECOVERY) if again else target

    # --- the registry -----------------------------------------------------------------------------

    def why_other_bytes(self, hold: Hold) -> str | None:
        """Return why a held version's bytes changed since the hold was made, or None."""
        listed = find(self.aspired, hold.model, hold.target_version)
        if listed is None:
            return None
        return why_other_bytes(
            listed, hold.target_digest, self.ledger, of_creation=hold.target_creation
        )

    def is_over(self, hold: Hold) -> bool:
        """Whether the registry's alias has moved since a hold was made, if only to a creation."""
        aspired = aspired_version(self.aspired, hold.model, hold.alias)
        if aspired is None or hold.aspired_version is None:
            return False
        listed = find(self.aspired, hold.model, aspired)
        if hold.aspired_version != aspired or listed is None:
            return hold.aspired_version != aspired
        return not is_of_creation(hold.aspired_creation, creation_of(listed, self.ledger))

    def creation_of(self, model: str, version: int) -> str | None:
        """Return the creation of a listed version, or None."""
        listed = find(self.aspired, model, version)
        return creation_of(listed, self.ledger) if listed else None

    def is_successor(self, active: ActiveAlias, version: int) -> bool:
        """Whether a listed version is a later creation of the very version that is active."""
        listed = find(self.aspired, active.model, version)
        if listed is None or active.version != version:
            return False
        last = self.ledger.last_active.get(active.alias_ref)
        of = last.creation if last and last.digest == active.digest else None
        other = not is_of_creation(of, creation_of(listed, self.ledger))
        return other or is_made_anew(listed, self.ledger)

    def admissible(self, listed: AspiredVersion) -> bool:
        """Whether an alias may follow the registry to a version."""
        if is_quarantined(listed, self.ledger) or listed.stamp_problem:
            return False
        return listed.stamped or not self.require_digest

    def here(self, listed: AspiredVersion) -> str | None:
        """Return the digest of a version's stored and accepted bytes, or None."""
        digest = admissible_digest(listed, self.ledger)
        return digest if digest in self.stored else None

    def load_of(self, target: Target) -> Load:
        """Return when a target is fetched and loaded; unlisted versions have the default."""
        listed = self.aspired.models.get(target.model)
        return listed.load_of(target.version) if listed else Load.LAZY

    def swap_of(self, target: Target) -> Swap:
        """Return how a target replaces another; unlisted versions have the default."""
        listed = self.aspired.models.get(target.model)
        return listed.swap_of(target.version) if listed else Swap.BLUE_GREEN

    # --- this node --------------------------------------------------------------------------------

    def standby(self, target: Target) -> StageRequest | None:
        """Return the warm standby of a target, or None."""
        return next((one for one in self.node.standbys if one.ref == target.artifact), None)

    def serves(self, target: Target) -> bool:
        """Whether any alias points at a target."""
        return any(one.ref == target.artifact for one in self.node.active)

    def runs_in_own(self, target: Target) -> bool:
        """Whether a target runs in an environment of its own."""
        model, version, digest = target.artifact
        return runs_in_own(self.aspired, self.environments, model, version, digest or "")

    def lacks_environment(self, target: Target) -> bool:
        """Whether a target's own environment is not built."""
        return target.digest not in self.environments and self.runs_in_own(target)

    def lacks_anything(self, target: Target) -> bool:
        """Whether bytes of a target, or an environment of its own, are not here yet."""
        return target.digest is None or self.lacks_environment(target)

    def waits_for_caller(self, target: Target) -> bool:
        """Whether missing bytes, or an environment, wait for a caller of the version."""
        on_demand = target.by_registry and self.load_of(target) is Load.ON_DEMAND
        return on_demand and self.lacks_anything(target)

    def is_wanted(self, model: str, version: int) -> bool:
        """Whether a caller waits for a version, under any name."""
        return any((one.model, one.version) == (model, version) for one in self.node.wanted)

    def is_alias_wanted(self, model: str, alias: str) -> bool:
        """Whether a caller waits for an alias, whichever version it is to point at.

        The caller's version is the registry's; a hold, or a lost table, may name another one.
        """
        return any((one.model, one.alias) == (model, alias) for one in self.node.wanted)

    # --- obstacles --------------------------------------------------------------------------------

    def obstacle(
        self, target: Target, before: ActiveAlias | Activation | None
    ) -> tuple[Cause, str] | None:
        """Return why an alias must not take a target now, or None; ``before`` is its last move."""
        if refused := self._refused_after_rollback(target):
            return Cause.HELD, refused.reason
        if rejected := self.why_rejected(target):
            return Cause.REJECTED, rejected
        if other := self.why_refused_signature(before, target):
            return Cause.REJECTED, other
        if self.ledger.freeze and target.by_registry:
            return (
                Cause.FROZEN,
                "this node is frozen: no alias follows the registry until `unfreeze`",
            )
        return None

    def why_rejected(self, target: Target) -> str | None:
        """Return why a target must not be loaded as it is to run, or None.

        An operator may have a version that loads and warms, but failed on live traffic.
        """
        model, version, digest = target.model, target.version, target.digest or ""
        own = self.runs_in_own(target)
        rejected = rejection(self.ledger, model, version, digest, own=own)
        by_operator = target.asked_by == Initiator.OPERATOR
        if rejected is not None and not (by_operator and rejected.on_live_traffic):
            return rejected.explanation
        return None if own else self.refused.get(digest)

    def _refused_after_rollback(self, target: Target) -> RefusedDigest | None:
        """Return the refused digest of an automatic rollback that covers a target, or None.

        The gateway refuses it to an operator too, until the control plane allows the digest.
        """
        refused = (target.model, target.alias, target.digest)
        digests = self.node.refused_digests
        return next((one for one in digests if (one.model, one.alias, one.digest) == refused), None)

    def why_held(self, hold: Hold) -> str | None:
        """Return why an automatic rollback left a version, or None for other holds."""
        if hold.asked_by != Initiator.GATEWAY:
            return None
        for (model, version, _), one in self.ledger.rejections.items():
            if (model, version) == (hold.model, hold.aspired_version) and one.on_live_traffic:
                return one.reason
        key = (hold.model, hold.alias, hold.at)
        refused = self.node.refused_digests
        return next(
            (one.reason for one in refused if (one.model, one.alias, one.since) == key), None
        )

    def why_other_signature(self, before: ActiveAlias | Activation, target: Target) -> str | None:
        """Return how a target changes the signature for callers of ``before``, or None."""
        change = self._signature_change(before, target)
        if change is None:
            return None
        return (
            f"the signature of version {target.version} differs from that of version "
            f"{before.version}: {change.summary}"
        )

    def why_refused_signature(
        self, before: ActiveAlias | Activation | None, target: Target
    ) -> str | None:
        """Return why an alias does not follow the registry to a breaking signature, or None."""
        if not self.refuses_signatures or before is None or not target.by_registry:
            return None
        change = self._signature_change(before, target)
        if change is None or not change.breaking:
            return None
        takes = f"`rollback --to {target.version}` or `pin` takes"
        if isinstance(before, Activation):  # the alias is not active, so `rollback` would refuse
            takes = "`pin` takes"
        return (
            f"{self.why_other_signature(before, target)}: this node refuses that; "
            f"{takes} it all the same"
        )

    def _signature_change(
        self, before: ActiveAlias | Activation, target: Target
    ) -> SignatureChange | None:
        """Return the difference, or None if the signatures are equal or bytes are missing."""
        return self.signature_change(before.digest, target.digest) if target.digest else None

    def awaited_opening(self, active: ActiveAlias | None, target: Target) -> datetime | None:
        """Return when the promotion window opens for which a target waits, or None.

        Only promotions by the registry wait, unless it has made the active version anew. One that
        may have ended the active version's replica while its window was open is completed.
        """
        if not target.by_registry:
            return None
        if active and (
            self.is_successor(active, target.version) or self._may_have_displaced(active, target)
        ):
            return None
        return self.promotions_act_at

    def _may_have_displaced(self, active: ActiveAlias, target: Target) -> bool:
        """Whether a target's standby may have ended the active version's replica."""
        standby = self.standby(target)
        blue_green = self.swap_of(target) is Swap.BLUE_GREEN
        return standby is not None and not blue_green and standby.replaces == active.version

    def why_failing(self, target: Target) -> str | None:
        """Return which step on an alias's way to its target failed last, or None."""
        model, version, digest = target.model, target.version, target.digest or ""
        steps: dict[Subject, tuple[Hashable, str]] = {
            ("environment", model, version, digest): (None, "has no environment yet"),
            ("stage", model, version, digest): (None, "could not be loaded"),
            ("activate", model, target.alias): ((version, digest), "could not be activated"),
        }
        if target.digest is None:
            of = self.creation_of(model, version)
            steps = {("fetch", model, version): (of, "could not be fetched")}
        for subject, (goal, what) in steps.items():
            failed = self.failure(subject)
            if failed is not None and failed.goal in (None, goal):
                return f"version {version} {what}, and that is tried again: {failed.reason}"
        return None
