"""Everything that the decision is made of, and what can be asked of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.contract import ActiveAlias, NodeState, RefusedDigest, StageRequest
from registry_sync.domain import (
    BY_REGISTRY,
    Activation,
    AskedBy,
    Aspired,
    AspiredVersion,
    Hold,
    LedgerView,
    Load,
    SignatureChange,
    Swap,
    creation_of,
    find,
    is_made_anew,
    is_of_creation,
)
from registry_sync.planning.actions import Subject
from registry_sync.planning.admissibility import (
    admissible_digest,
    is_quarantined,
    quarantine_of,
    rejection,
    runs_in_own,
    why_other_bytes,
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an alias ought to point.

    Attributes:
        digest: Its bytes; None: they are not here yet.
        meant: The bytes that a hold means, here or not; None: whichever are expected.
    """

    version: int
    digest: str | None
    asked_by: str
    meant: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Everything that the decision is made of.

    Attributes:
        aspired: The listing that counts (see `settle`).
        listings: How many complete listings agree on it since this process started; 0: it is
            remembered from before.
        lists_any: Whether the registry lists any model; None: as ``aspired`` says, which may be of
            one model.
        node: What the gateway serves.
        ledger: What is remembered.
        stored: Digests in the artifact store.
        proved: Stages that went well since the gateway started: (model, version, digest) to id.
        require_digest: Versions without a stamp are refused.
        wished_by: Who told of a wish first, by model and alias; where nobody is named, a poll.
        environments: Digests in the store whose own environment is built.
        refused: Digests in the store that may not be loaded beside our libraries, and why not.
        signature_change: What is different between the signatures of two digests; None: nothing,
            or nothing that is to be told.
        refuses_signatures: No alias follows the registry to a signature that breaks callers.
        rollback_since: Epoch seconds; what an alias left after this is kept to go back to.
        failure: The last failure of a step that is tried again: what it was to reach, and why it
            did not; None: it has not failed.
        promotions_act_at: When a promotion window opens, or None if promotions act now.
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
    signature_change: Callable[[str, str], SignatureChange | None] = lambda _before, _after: None
    refuses_signatures: bool = False
    rollback_since: float = -1.0
    failure: Callable[[Subject], tuple[Hashable, str] | None] = lambda _: None
    lists_any: bool | None = None
    promotions_act_at: datetime | None = None

    def wish(self, model: str, alias: str, hold: Hold | None, aspired: int | None) -> Target | None:
        """Where the alias ought to point: the hold, else the registry's wish, if admissible."""
        if hold:
            meant, by_rule = hold.target_digest, hold.asked_by == AskedBy.GATEWAY
            gone = meant not in self.stored or self.why_other_bytes(hold)
            asked_by = AskedBy.GATEWAY if by_rule else AskedBy.OPERATOR
            return Target(hold.target_version, None if gone else meant, asked_by, meant=meant)
        listed = find(self.aspired, model, aspired) if aspired is not None else None
        if listed is None or not self.admissible(listed):
            return None
        return Target(listed.version, self.here(listed), self.asked_by(model, alias))

    def why_other_bytes(self, hold: Hold) -> str | None:
        """Say that the version of a hold has other bytes by now; None: it has not, as is known."""
        listed = find(self.aspired, hold.model, hold.target_version)
        if listed is None:
            return None
        return why_other_bytes(
            listed, hold.target_digest, self.ledger, of_creation=hold.target_creation
        )

    def follows(self, hold: Hold, aspired: int | None) -> bool:
        """Whether the registry has moved the alias since it was held: to another creation, too."""
        if aspired is None or hold.aspired_version is None:
            return False
        listed = find(self.aspired, hold.model, aspired)
        if hold.aspired_version != aspired or listed is None:
            return hold.aspired_version != aspired
        return not is_of_creation(hold.aspired_creation, creation_of(listed, self.ledger))

    def asked_by(self, model: str, alias: str) -> str:
        """Say who told first of what the registry wishes of an alias."""
        return self.wished_by.get((model, alias), AskedBy.POLL)

    def last(self, model: str, alias: str) -> Target | None:
        """What the alias pointed at last, if this node has lost it and its bytes are here.

        An alias that was taken away is not lost, and bytes that are known to be wrong stay away.
        """
        last = self.lost(model, alias)
        if last is None or last.digest not in self.stored or self.is_known_wrong(last):
            return None
        listed = find(self.aspired, model, last.version)
        if listed is not None and listed.stamp_problem:
            return None
        return Target(last.version, last.digest, AskedBy.RECOVERY)

    def lost(self, model: str, alias: str) -> Activation | None:
        """Return where an alias was last, unless it was taken away since; None: it was nowhere."""
        last = self.ledger.last_active.get((model, alias))
        return last if last is not None and last.retired_at is None else None

    def is_known_wrong(self, last: Activation) -> bool:
        """Whether a quarantine says that these are not the bytes that the version must have."""
        listed = find(self.aspired, last.model, last.version)
        found = quarantine_of(listed, self.ledger) if listed else None
        if listed is None or found is None:
            return False
        if is_of_creation(last.creation, creation_of(listed, self.ledger)):
            return found.expected_digest != last.digest
        return found.found_digest == last.digest

    def recovered(self, model: str, alias: str, target: Target) -> Target:
        """Return the target; one that an alias had before it was lost is a recovery."""
        last = self.lost(model, alias)
        if last is None or target.asked_by not in BY_REGISTRY:
            return target
        again = (last.version, last.digest) == (target.version, target.digest)
        return replace(target, asked_by=AskedBy.RECOVERY) if again else target

    def standby(self, model: str, target: Target) -> StageRequest | None:
        """Return the warm standby that a target has on the gateway, or None."""
        wanted = (model, target.version, target.digest)
        return next(
            (s for s in self.node.standbys if (s.model, s.version, s.digest) == wanted), None
        )

    def runs_in_own(self, model: str, target: Target) -> bool:
        """Whether a target runs in an environment of its own."""
        digest = target.digest or ""
        return runs_in_own(self.aspired, self.environments, model, target.version, digest)

    def load_of(self, model: str, target: Target) -> Load:
        """Return when a target is to be fetched and loaded; what nobody lists, as by default."""
        listed = self.aspired.models.get(model)
        return listed.load_of(target.version) if listed else Load.LAZY

    def swap_of(self, model: str, target: Target) -> Swap:
        """Return how a target takes its place; what nobody lists, as by default."""
        listed = self.aspired.models.get(model)
        return listed.swap_of(target.version) if listed else Swap.BLUE_GREEN

    def serves(self, model: str, target: Target) -> bool:
        """Whether some alias means a target already."""
        wanted = (model, target.version, target.digest)
        return any((one.model, one.version, one.digest) == wanted for one in self.node.active)

    def waits_for_caller(self, model: str, target: Target) -> bool:
        """Whether what a first activation lacks comes only when somebody calls.

        That is bytes, or an environment of its own. Nothing is lacking where both are here, and
        an operator and a recovery ask for it now.
        """
        if target.asked_by not in BY_REGISTRY or self.load_of(model, target) is not Load.ON_DEMAND:
            return False
        return self.lacks_anything(model, target)

    def lacks_anything(self, model: str, target: Target) -> bool:
        """Whether bytes of a target, or an environment of its own, are not here yet."""
        lacks_environment = target.digest not in self.environments
        return target.digest is None or (lacks_environment and self.runs_in_own(model, target))

    def creation_of(self, model: str, version: int) -> str | None:
        """Return the creation of a version that is listed; None: it is not."""
        listed = find(self.aspired, model, version)
        return creation_of(listed, self.ledger) if listed else None

    def is_wanted(self, model: str, version: int) -> bool:
        """Whether a caller waits for a version, under any name."""
        return any((one.model, one.version) == (model, version) for one in self.node.wanted)

    def is_alias_wanted(self, model: str, alias: str) -> bool:
        """Whether a caller waits for an alias, whichever version it is to mean.

        The wish names the version at which the registry points it: a hold, or where a lost table
        had it, may be another one.
        """
        return any((one.model, one.alias) == (model, alias) for one in self.node.wanted)

    def is_rejected(self, model: str, target: Target) -> bool:
        """Whether this must not be loaded: it failed here, or may not be beside our libraries."""
        by_operator = target.asked_by == AskedBy.OPERATOR
        reason = self.why_rejected(
            model, target.version, target.digest or "", by_operator=by_operator
        )
        return reason is not None

    def why_rejected(
        self, model: str, version: int, digest: str, *, by_operator: bool = False
    ) -> str | None:
        """Say why a version must not be loaded as it is to run; None: it may be.

        ``by_operator``: who asks may have what loads and warms, but failed on live traffic.
        """
        own = runs_in_own(self.aspired, self.environments, model, version, digest)
        rejected = rejection(self.ledger, model, version, digest, own=own)
        if rejected is not None and not (by_operator and rejected.on_live_traffic):
            return rejected.explanation
        return None if own else self.refused.get(digest)

    def refused_after_rollback(
        self, model: str, alias: str, target: Target
    ) -> RefusedDigest | None:
        """Return what the gateway refuses of a target since an automatic rollback, or None.

        It refuses an operator too, until the control plane allows the digest again.
        """
        refused = (model, alias, target.digest)
        found = (
            one
            for one in self.node.refused_digests
            if (one.model, one.alias, one.digest) == refused
        )
        return next(found, None)

    def why_held(self, hold: Hold) -> str | None:
        """Say what live traffic showed of the version that an automatic rollback left."""
        if hold.asked_by != AskedBy.GATEWAY:
            return None
        for (model, version, _), one in self.ledger.rejections.items():
            if (model, version) == (hold.model, hold.aspired_version) and one.on_live_traffic:
                return one.reason
        told = (
            one
            for one in self.node.refused_digests
            if (one.model, one.alias) == (hold.model, hold.alias)
        )
        return next((one.reason for one in told if one.since == hold.at), None)

    def why_other_signature(self, before: ActiveAlias | Activation, target: Target) -> str | None:
        """Say what a target changes for callers of what an alias meant; None: nothing.

        What is not here is compared once it is.
        """
        change = self.signature_change(before.digest, target.digest) if target.digest else None
        if change is None:
            return None
        return (
            f"the signature of version {target.version} differs from that of version "
            f"{before.version}: {change.summary}"
        )

    def why_refused_signature(
        self, before: ActiveAlias | Activation | None, target: Target
    ) -> str | None:
        """Say why an alias does not follow the registry to other inputs or outputs; None: it may.

        An operator may have it there; and compatible changes are none to refuse.
        """
        if not self.refuses_signatures or before is None or target.asked_by not in BY_REGISTRY:
            return None
        change = self.signature_change(before.digest, target.digest) if target.digest else None
        if change is None or not change.breaking:
            return None
        takes = f"`rollback --to {target.version}` or `pin` takes"
        if isinstance(before, Activation):  # it points at nothing, and `rollback` would refuse
            takes = "`pin` takes"
        return (
            f"{self.why_other_signature(before, target)}: this node refuses that; "
            f"{takes} it all the same"
        )

    def why_failing(self, model: str, alias: str, target: Target) -> str | None:
        """Say which step on an alias's way to its target failed last; None: none did."""
        version, digest = target.version, target.digest or ""
        steps: dict[Subject, tuple[Hashable, str]] = {
            ("environment", model, version, digest): (None, "has no environment yet"),
            ("stage", model, version, digest): (None, "could not be loaded"),
            ("activate", model, alias): ((version, digest), "could not be activated"),
        }
        if target.digest is None:
            of = self.creation_of(model, version)
            steps = {("fetch", model, version): (of, "could not be fetched")}
        for subject, (goal, what) in steps.items():
            failed = self.failure(subject)
            if failed is not None and failed[0] in (None, goal):
                return f"version {version} {what}, and that is tried again: {failed[1]}"
        return None

    def is_frozen(self, target: Target) -> bool:
        """Whether a freeze keeps an alias from this target: only what the registry asks for."""
        return self.ledger.freeze is not None and target.asked_by in BY_REGISTRY

    def awaited_opening(self, active: ActiveAlias | None, target: Target) -> datetime | None:
        """Return when the window opens for which a target waits, or None if it waits for none.

        Only what the registry promotes waits, and not if it has made the active version anew.
        """
        if target.asked_by not in BY_REGISTRY or (
            active and self.is_successor(active, target.version)
        ):
            return None
        return self.promotions_act_at

    def is_successor(self, active: ActiveAlias, version: int) -> bool:
        """Whether a listed version is a later creation of the very version that is active."""
        listed = find(self.aspired, active.model, version)
        if listed is None or active.version != version:
            return False
        last = self.ledger.last_active.get((active.model, active.alias))
        of = last.creation if last and last.digest == active.digest else None
        other = not is_of_creation(of, creation_of(listed, self.ledger))
        return other or is_made_anew(listed, self.ledger)

    def admissible(self, listed: AspiredVersion) -> bool:
        """Whether an alias may follow the registry to this version."""
        if is_quarantined(listed, self.ledger) or listed.stamp_problem:
            return False
        return listed.stamped or not self.require_digest

    def here(self, listed: AspiredVersion) -> str | None:
        """Return the digest under which a version's bytes are here and accepted, or None."""
        digest = admissible_digest(listed, self.ledger)
        return digest if digest in self.stored else None
