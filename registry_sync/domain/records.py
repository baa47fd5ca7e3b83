"""Records of the ledger, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from gateway.contract import AliasRef, ArtifactRef

LIVE_FAILURE = "live"
"""Failure of a version that loaded and warmed, and did worse on live traffic."""


class Initiator(StrEnum):
    """The initiator of a change.

    ``SYNC``: the registry, listed at an operator's request. ``OPERATOR``: an operator, whatever the
    registry lists. ``GATEWAY``: an automatic rollback. ``ADOPTED``: the gateway had made the change
    before the control plane saw it. ``RESTART``: the gateway started with other libraries.
    """

    POLL = "poll"
    WEBHOOK = "webhook"
    SYNC = "sync"
    OPERATOR = "operator"
    GATEWAY = "gateway"
    RESTART = "restart"
    RECOVERY = "recovery"
    ADOPTED = "adopted"


BY_REGISTRY = frozenset({Initiator.POLL, Initiator.WEBHOOK, Initiator.SYNC})
"""Initiators that follow the registry: a freeze stops them."""


class OfAlias:
    """A value about one alias of one model."""

    __slots__ = ()
    model: str
    alias: str

    @property
    def alias_ref(self) -> AliasRef:
        """The alias."""
        return AliasRef(self.model, self.alias)


class OfArtifact:
    """A value about one version and its bytes."""

    __slots__ = ()
    model: str
    version: int
    digest: str

    @property
    def ref(self) -> ArtifactRef:
        """The version and its bytes."""
        return ArtifactRef(self.model, self.version, self.digest)


@dataclass(frozen=True, slots=True)
class AcceptedDigest:
    """The digest that this node accepted for a version.

    Attributes:
        digest: The accepted digest.
        expected_digest: The stamped or formerly accepted digest, or None if these bytes were the
            first.
        stamped: Whether ``expected_digest`` came from the publisher.
        listing: Mark of the remote listing at the fetch, or None if the storage offers none.
        creation: Creation of the version, or None if an older release recorded it.
        gone_at: Epoch seconds of the second listing in a row without the version, or None.
        superseded: Whether a later listing showed another creation of the version.
        accepted_at: Epoch seconds of the acceptance, or None for now.
    """

    model: str
    version: int
    digest: str
    expected_digest: str | None
    stamped: bool
    listing: str | None
    creation: str | None = None
    gone_at: float | None = None
    superseded: bool = False
    accepted_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AcceptedDigestChange:
    """A change of an accepted digest; it applies only while ``before`` is recorded.

    Attributes:
        before: The recorded digest, or None if the version has none.
    """

    before: AcceptedDigest | None
    after: AcceptedDigest


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Wrong bytes of a version; applies while creation and expected digest are the same.

    Attributes:
        expected_digest: Digest the bytes should have, or None if there was none.
        listing: Mark of the remote listing of the wrong bytes, or None if unknown.
        found_digest: Digest of the bytes, or None if they could not be read.
        reason: A sentence for users.
        at: Epoch seconds.
        asked_by: Initiator of the fetch, or None if an older release recorded it.
        creation: Creation of the version, or None if an older release recorded it.
    """

    model: str
    version: int
    expected_digest: str | None
    listing: str | None
    found_digest: str | None
    reason: str
    at: float
    asked_by: str | None = None
    creation: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection(OfArtifact):
    """A version that failed to load or warm, or failed on live traffic.

    Applies to aliases only, and to this digest only.

    Attributes:
        libraries: Mark of the gateway's libraries at the failure, or None if they do not matter or
            an older release recorded it.
        own: Whether the version ran in an environment of its own.
    """

    model: str
    version: int
    digest: str
    failure: str
    reason: str
    at: float
    libraries: str | None = None
    own: bool = False

    @property
    def on_live_traffic(self) -> bool:
        """Whether the version failed on live traffic, which an operator may overrule."""
        return self.failure == LIVE_FAILURE

    @property
    def explanation(self) -> str:
        """The reason and the remedy, for users."""
        return (
            f"{self.reason}; it is tried again when the registry moves an alias to it anew, or by "
            f"`registry-gateway retry {self.model}/{self.version}`"
        )

    def is_outdated(self, libraries: str | None) -> bool:
        """Whether the version failed under other libraries, so that it may load now.

        Never true of a failure on live traffic (the version did load), nor in an environment of
        its own, nor if ``libraries``, the present ones, are unknown (None).
        """
        if libraries is None or self.own or self.on_live_traffic:
            return False
        return self.libraries != libraries


@dataclass(frozen=True, slots=True)
class Hold(OfAlias):
    """An alias stays at ``target`` while the registry's alias points at ``aspired_version``.

    Attributes:
        aspired_version: Target of the registry's alias when the hold was made, or None if unknown.
        asked_by: Initiator of the hold.
        at: Epoch seconds.
        lasting: Whether the hold is a pin, which only an operator ends.
        aspired_creation: Creation of ``aspired_version`` at that time, or None if unknown.
        target_creation: Creation of ``target_version`` at that time, or None if unknown.
    """

    model: str
    alias: str
    aspired_version: int | None
    target_version: int
    target_digest: str
    asked_by: str
    at: float
    lasting: bool = False
    aspired_creation: str | None = None
    target_creation: str | None = None

    def is_same(self, other: Hold | None) -> bool:
        """Whether both are one decision, whatever the registry's alias was found to mean since."""
        return other is not None and self == replace(
            other, aspired_version=self.aspired_version, aspired_creation=self.aspired_creation
        )


def ends_by_operator(hold: Hold, ended_by: str) -> bool:
    """Whether an operator ends the hold of an automatic rollback, so the version may try again."""
    return hold.asked_by == Initiator.GATEWAY and ended_by == Initiator.OPERATOR


@dataclass(frozen=True, slots=True)
class Freeze:
    """No alias of this node follows the registry. ``at`` is in epoch seconds."""

    asked_by: str
    at: float


@dataclass(frozen=True, slots=True)
class HoldChange:
    """A decision by which a hold or a freeze begins or ends.

    Attributes:
        what: ``hold``, ``end_hold``, ``freeze`` or ``unfreeze``.
        asked_by: Initiator of the decision.
        at: Epoch seconds of the decision.
        hold: The hold that begins or ends, or None for a freeze.
    """

    what: Literal["hold", "end_hold", "freeze", "unfreeze"]
    asked_by: str
    at: float
    hold: Hold | None = None

    @property
    def model(self) -> str | None:
        """The model whose alias is held, or None for a freeze, which covers all models."""
        return self.hold.model if self.hold else None


@dataclass(frozen=True, slots=True)
class Activation(OfAlias):
    """A move of an alias on this node, at epoch seconds ``at``.

    Attributes:
        durations_s: Seconds by phase; empty if unknown.
        pinned: Whether an operator's pin made the move.
        retired_at: Epoch seconds when the alias was neither listed nor served any more, or None.
        reason: Reason of an automatic rollback, as a sentence, or None.
        creation: Creation of the version, or None if unknown.
    """

    model: str
    alias: str
    version: int
    digest: str
    previous_version: int | None
    previous_digest: str | None
    asked_by: str
    at: float
    generation: int
    durations_s: Mapping[str, float] = field(default_factory=dict)
    retired_at: float | None = None
    pinned: bool = False
    reason: str | None = None
    creation: str | None = None


@dataclass(frozen=True, slots=True)
class HoldsSnapshot:
    """Holds and freeze in force on this node, and what the ledger has not recorded yet.

    Attributes:
        changes: Unrecorded decisions, oldest first.
        activations: Unrecorded moves of aliases, oldest first.
    """

    holds: tuple[Hold, ...] = ()
    freeze: Freeze | None = None
    changes: tuple[HoldChange, ...] = ()
    activations: tuple[Activation, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollback:
    """An automatic rollback: the move, the rejected version, and the hold."""

    activation: Activation
    rejection: Rejection
    hold: Hold


@dataclass(frozen=True, slots=True)
class Decision:
    """A recorded decision about a model or the node.

    Attributes:
        what: ``hold``, ``end_hold``, ``pin``, ``unpin``, ``quarantine``, ``retry``, ``freeze`` or
            ``unfreeze``.
        model: The model, or None for a decision about the node.
        asked_by: Initiator, or None if an older release recorded the decision.
    """

    at: float
    what: str
    model: str | None
    alias: str | None = None
    version: int | None = None
    asked_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one step, and its outcome.

    Attributes:
        action: ``fetch``, ``environment``, ``stage``, ``activate``, ``retire``, ``retire_standby``
            or ``end_hold``.
        durations_s: Seconds by phase.
        outcome: ``complete``, ``failed`` (tried again) or ``refused`` (not tried again by itself).
        reason: A sentence, or None if the attempt succeeded.
    """

    model: str
    alias: str | None
    version: int | None
    action: str
    asked_by: str
    started_at: float
    durations_s: Mapping[str, float]
    outcome: str
    reason: str | None = None
