"""What the ledger remembers, as values: the third input of a plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, Self

OWN_FAILURE = "own_"
"""What the failures of versions in environments of their own begin with."""
LIVE_FAILURE = "live"
"""The failure of a version that loaded and warmed, and did worse on live traffic."""


class AskedBy(StrEnum):
    """Who wanted a change.

    ``SYNC``: the registry, and an operator had it listed. ``OPERATOR``: an operator, whatever the
    registry says. ``RULE``: the gateway, by what live traffic showed it. ``ADOPTED``: the gateway
    had made it already when we looked. ``RESTART``: the gateway has started with other libraries.
    """

    POLL = "poll"
    WEBHOOK = "webhook"
    SYNC = "sync"
    OPERATOR = "operator"
    RULE = "rule"
    RESTART = "restart"
    RECOVERY = "recovery"
    ADOPTED = "adopted"


BY_REGISTRY = frozenset({AskedBy.POLL, AskedBy.WEBHOOK, AskedBy.SYNC})
"""Who asks because the registry says so: what a freeze stops."""


@dataclass(frozen=True, slots=True)
class PinnedVersion:
    """The bytes that a version had when they were accepted here.

    Attributes:
        digest: What was accepted.
        expected_digest: What they had to be: stamped, or pinned before; None: first seen.
        stamped: Whether ``expected_digest`` came from the publisher.
        listing: The remote listing at the fetch; None: the storage tells nothing.
        creation: Whose bytes they were; None: an older release recorded it.
        gone_at: Epoch seconds when two listings in a row lacked the version; None: they did not.
        superseded: Whether a listing has shown another creation since: these bytes are over.
        accepted_at: Epoch seconds when they were accepted; None: now.
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
class PinChange:
    """What was learned of accepted bytes, if it is still ``before`` that is remembered.

    Attributes:
        before: None: of the version nothing is.
    """

    before: PinnedVersion | None
    after: PinnedVersion


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Bytes that are wrong. It covers the version while creation and expectation are these.

    Attributes:
        expected_digest: What the bytes had to be; None: nobody had said.
        listing: The remote listing of the wrong bytes; None: unknown.
        found_digest: What they were; None: not even readable.
        reason: A sentence for users.
        at: Epoch seconds.
        asked_by: For whom the bytes were fetched; None: recorded by an older release.
        creation: Whose bytes they are; None: an older release recorded it.
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
class Rejection:
    """A version that loaded or warmed wrongly, or failed on live traffic.

    For aliases only, and for these bytes only.

    Attributes:
        libraries: The mark of the libraries under which it failed; None: an older release recorded
            it, or they do not matter.
    """

    model: str
    version: int
    digest: str
    failure: str
    reason: str
    at: float
    libraries: str | None = None

    @property
    def in_own(self) -> bool:
        """Whether it failed in its own environment, which says nothing of ours, nor ours of it."""
        return self.failure.startswith(OWN_FAILURE)

    @property
    def on_live_traffic(self) -> bool:
        """Whether it failed on live traffic: an operator may say that it serves all the same."""
        return self.failure.removeprefix(OWN_FAILURE) == LIVE_FAILURE

    @property
    def told(self) -> str:
        """The reason and what to do about it, for users."""
        return (
            f"{self.reason}; it is tried again when the registry moves an alias to it anew, or by "
            f"`registry-gateway retry {self.model}/{self.version}`"
        )

    def is_outdated(self, libraries: str | None) -> bool:
        """Whether it may load now, since it failed beside other libraries than these.

        What failed on live traffic did load, and an own environment has libraries of its own.
        ``libraries`` None: those of now are not known.
        """
        if libraries is None or self.in_own or self.on_live_traffic:
            return False
        return self.libraries != libraries


@dataclass(frozen=True, slots=True)
class Hold:
    """An alias stays at ``target`` while the registry's alias points at ``aspired_version``.

    Attributes:
        aspired_version: Where the registry's alias pointed when the hold was made; None: unknown.
        asked_by: Who wanted it.
        at: Epoch seconds.
        lasting: It stays wherever the registry moves the alias, or if it removes it: an
            operator's pin, which only an operator ends.
        aspired_creation: Of ``aspired_version`` when the hold was made; None: unknown.
        target_creation: Of ``target_version`` when the hold was made; None: unknown.
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
        """Whether it is the same decision, whatever was learned of the registry since."""
        if other is None:
            return False
        return self == replace(
            other, aspired_version=self.aspired_version, aspired_creation=self.aspired_creation
        )


def ends_by_operator(hold: Hold, released_by: str) -> bool:
    """Whether an operator ends what the rule began: the version may then try again."""
    return hold.asked_by == AskedBy.RULE and released_by == AskedBy.OPERATOR


@dataclass(frozen=True, slots=True)
class Freeze:
    """No alias of this node follows the registry. ``at`` is in epoch seconds."""

    asked_by: str
    at: float


@dataclass(frozen=True, slots=True)
class StandingChange:
    """A decision that changes what stands: a hold or a freeze begins, or ends.

    Attributes:
        what: ``hold``, ``release``, ``freeze`` or ``unfreeze``.
        asked_by: Who decided.
        at: Epoch seconds of the decision.
        hold: Which one begins or ends; None: it is about the freeze.
    """

    what: Literal["hold", "release", "freeze", "unfreeze"]
    asked_by: str
    at: float
    hold: Hold | None = None

    @property
    def model(self) -> str | None:
        """The model whose alias is held; None: it is about the freeze, and so about all."""
        return self.hold.model if self.hold else None


@dataclass(frozen=True, slots=True)
class Activation:
    """An alias that moved on this node, at epoch seconds ``at``.

    Attributes:
        durations_s: Seconds by phase; empty: unknown.
        pinned: An operator pinned it there: it was not rolled back from where it was.
        retired_at: When the alias was found to be neither listed nor served any more, in epoch
            seconds; None: it is not.
        reason: Why, as a sentence; None: because somebody asked for it.
        creation: Of the version; None: unknown.
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
class Standing:
    """What operators keep on this node, and what therefore is known nowhere else.

    Attributes:
        changes: Decisions that the ledger has not taken yet, the oldest first.
        activations: Aliases that moved meanwhile, the oldest first.
    """

    holds: tuple[Hold, ...] = ()
    freeze: Freeze | None = None
    changes: tuple[StandingChange, ...] = ()
    activations: tuple[Activation, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a gateway did by rule: where the alias went, from what, and that it stays there."""

    activation: Activation
    rejection: Rejection
    hold: Hold


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that was decided about a model, or about the whole node, and by whom.

    Attributes:
        what: ``hold``, ``pin``, ``unpin``, ``release``, ``quarantine``, ``release quarantine``,
            ``retry``, ``freeze`` or ``unfreeze``.
        model: None: it is about the whole node.
        asked_by: None: an older release recorded it.
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
    """One try of one step, and how it ended.

    Attributes:
        action: ``fetch``, ``environment``, ``stage``, ``activate``, ``retire``, ``retire_standby``
            or ``release``.
        durations_s: Seconds by phase.
        outcome: ``complete``, ``failed`` (tried again) or ``refused`` (not tried again by itself).
        reason: A sentence, where it did not go well.
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


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What counts now: a snapshot.

    Attributes:
        pins: By (model, version).
        quarantines: Those not released, the newest by (model, version).
        rejections: Those not released, by (model, version, digest).
        holds: Those not released, by (model, alias).
        last_active: The newest activation by (model, alias).
        freeze: The one that is not released.
        went_back: Rollbacks by rule that were recorded, over or not: model, alias and time.
    """

    pins: Mapping[tuple[str, int], PinnedVersion] = field(default_factory=dict)
    quarantines: Mapping[tuple[str, int], Quarantine] = field(default_factory=dict)
    rejections: Mapping[tuple[str, int, str], Rejection] = field(default_factory=dict)
    holds: Mapping[tuple[str, str], Hold] = field(default_factory=dict)
    last_active: Mapping[tuple[str, str], Activation] = field(default_factory=dict)
    freeze: Freeze | None = None
    went_back: AbstractSet[tuple[str, str, float]] = frozenset()

    def with_pin_changes(self, changes: Sequence[PinChange]) -> Self:
        """Return what counts once something was learned of accepted bytes."""
        pins = dict(self.pins)
        for one in changes:
            key = (one.after.model, one.after.version)
            if pins.get(key) == one.before:
                pins[key] = one.after
        return replace(self, pins=pins)

    def with_change(self, change: StandingChange) -> Self:
        """Return what counts once a decision is carried out; another one may have ended it."""
        hold = change.hold
        if hold is None:
            begins = change.what == "freeze"
            return self.with_freeze(Freeze(change.asked_by, change.at) if begins else None)
        standing = self.holds.get((hold.model, hold.alias))
        if change.what == "hold":
            return self.with_hold(hold)
        if not hold.is_same(standing):
            return self
        followed = self.without_hold(hold.model, hold.alias)
        if not ends_by_operator(hold, change.asked_by):
            return followed
        return followed.without_live_rejection(hold.model, hold.aspired_version)

    def with_activation(self, moved: Activation) -> Self:
        """Return what counts once an alias has moved."""
        return replace(self, last_active={**self.last_active, (moved.model, moved.alias): moved})

    def with_hold(self, hold: Hold) -> Self:
        """Return what counts once an alias is held."""
        return replace(self, holds={**self.holds, (hold.model, hold.alias): hold})

    def without_hold(self, model: str, alias: str) -> Self:
        """Return what counts once an alias is held no more."""
        kept = {key: hold for key, hold in self.holds.items() if key != (model, alias)}
        return replace(self, holds=kept)

    def with_rollback(self, done: Rollback) -> Self:
        """Return what counts once a rollback by rule is recorded; what an operator holds, stays."""
        of, rejected = (done.hold.model, done.hold.alias), done.rejection
        key = (rejected.model, rejected.version, rejected.digest)
        view = replace(
            self,
            rejections={**self.rejections, key: rejected},
            last_active={**self.last_active, of: done.activation},
            went_back=self.went_back | {(*of, done.hold.at)},
        )
        standing = self.holds.get(of)
        by_operator = standing is not None and standing.asked_by != AskedBy.RULE
        return view if by_operator else view.with_hold(done.hold)

    def without_live_rejection(self, model: str, version: int | None) -> Self:
        """Return what counts once a version may try again that failed on live traffic."""
        kept = {
            key: one
            for key, one in self.rejections.items()
            if key[:2] != (model, version) or not one.on_live_traffic
        }
        return replace(self, rejections=kept)

    def without_rejection(self, model: str, version: int, digest: str | None = None) -> Self:
        """Return what counts once a version may be tried again; ``digest`` None: all its bytes."""
        kept = {
            key: one
            for key, one in self.rejections.items()
            if key[:2] != (model, version) or digest not in (None, key[2])
        }
        return replace(self, rejections=kept)

    def with_freeze(self, freeze: Freeze | None) -> Self:
        """Return what counts once the node is frozen, or is no more; a freeze that stands stays."""
        return replace(self, freeze=freeze and (self.freeze or freeze))
