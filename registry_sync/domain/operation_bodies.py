"""Requests and answers of the operations listener.

The listener and the command share them. They are apart from the listener because importing it would
slow each command by half a second. Times are RFC 3339 in JSON, and epoch seconds here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from gateway.contract import (
    MAX_VERSION,
    Alias,
    CatalogueVersion,
    ModelName,
    Residency,
    Timestamp,
)

Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]


class AliasState(BaseModel):
    """The state of one alias: its version in the registry and on this node, and why they differ.

    Attributes:
        held_at: The version at which a hold keeps the alias, or None.
        pinned: Whether that hold is a pin, which only an operator ends.
        reason: Why the alias is not at the registry's version, or None if it is, or moves there.
        signature_change: How its next or last move changes the signature for callers, or None.
    """

    alias: str
    aspired: int | None
    active: int | None
    digest: str | None = None
    since: Timestamp | None = None
    previous: int | None = None
    held_at: int | None = None
    pinned: bool = False
    reason: str | None = None
    signature_change: str | None = None


class ModelState(BaseModel):
    """The state of one model on this node."""

    name: str
    aliases: list[AliasState]
    versions: list[CatalogueVersion]


class StepState(BaseModel):
    """A step that is under way, or that waits for its next try at ``retry_at``."""

    step: str
    subject: list[str]
    failures: int = 0
    reason: str | None = None
    retry_at: Timestamp | None = None


class WebhookState(BaseModel):
    """Deliveries to one webhook since the start.

    Attributes:
        repeated: Repeated deliveries, which have no effect.
        refusal: Why the webhook refused a delivery last, or None.
    """

    name: str
    accepted: int = 0
    accepted_at: Timestamp | None = None
    repeated: int = 0
    refused: int = 0
    refused_at: Timestamp | None = None
    refusal: str | None = None


class FreezeState(BaseModel):
    """The freeze in force: no alias of this node follows the registry since ``at``."""

    asked_by: str
    at: Timestamp


class FetchState(BaseModel):
    """The progress of a fetch under way.

    Attributes:
        comparing: Whether bytes that are on this node are verified once more.
        total_bytes: Size of the artifact, or None if the storage has not reported it.
    """

    model: str
    version: int
    comparing: bool
    started_at: Timestamp
    arrived_bytes: int
    total_bytes: int | None


class StoreState(BaseModel):
    """The use of the artifact store, in bytes.

    Attributes:
        coming_bytes: Bytes reserved for fetches under way.
        budget_bytes: Limit on stored and reserved bytes, or None if there is no limit.
    """

    stored_bytes: int
    coming_bytes: int
    budget_bytes: int | None


class State(BaseModel):
    """The state of this node: registry, gateway, ledger, models and work.

    Attributes:
        source_error: Why the last listing of the registry failed, or None.
        gateway_error: Why the gateway does not answer, or None.
        ledger_error: Why the last call of the ledger failed, or None.
        frozen: The freeze in force, or None.
        residency: How full the gateway's resident set is, or None if the gateway does not answer.
    """

    node_id: str
    tracking_uri: str
    listed_at: Timestamp | None
    source_error: str | None
    gateway_error: str | None
    ledger_error: str | None
    generation: int | None
    frozen: FreezeState | None = None
    store: StoreState
    residency: Residency | None = None
    problems: list[str] = Field(default_factory=list)
    models: list[ModelState]
    work: list[StepState]
    fetches: list[FetchState] = Field(default_factory=list)
    webhooks: list[WebhookState] = Field(default_factory=list)


class Readiness(BaseModel):
    """The control plane works; ``not_written`` lists, as sentences, what it cannot write now."""

    status: Literal["ready"] = "ready"
    not_written: list[str]


class HistoryEntry(BaseModel):
    """One entry in the history of a model or of the node.

    Attributes:
        model: The model, or None for an entry about the whole node.
        asked_by: Initiator, or None if an older release recorded the entry.
        durations_s: Seconds by phase; a name with a dot is a part of the phase before the dot.
    """

    at: Timestamp
    what: str
    model: str | None
    alias: str | None
    version: int | None
    previous: int | None = None
    asked_by: str | None
    outcome: str
    reason: str | None = None
    digest: str | None = None
    durations_s: dict[str, float] = Field(default_factory=dict)


class History(BaseModel):
    """The history of a model or of all models, newest first."""

    entries: list[HistoryEntry]


class HoldState(BaseModel):
    """The hold of an alias.

    Attributes:
        pinned: Whether the hold is a pin, which only an operator ends.
        while_aspired: The hold ends when the registry's alias leaves this version. The field is
            None for a pin, or if the version is unknown.
    """

    version: int
    pinned: bool
    while_aspired: int | None
    asked_by: str
    at: Timestamp


class SelectorState(BaseModel):
    """The meaning of a selector on this node, and its reason.

    Attributes:
        selector: Such as ``@champion`` or ``3``.
        version: The version that the selector means here, or None.
        aspired: The version that the registry's alias points at, or None.
        target: The version that the alias is to point at, or None if the alias stays.
        why: A machine word; ``reason`` is the same as a sentence.
        asked_by: Initiator of the alias's last move, or None if unknown.
        doing: Steps under way, and a fetch that an operator requested.
        failures: Failures in a row of the next step; ``failure`` is the reason of the last one.
        retry_at: Time of the next try of that step, or None.
        signature_change: How its next or last move changes the signature for callers, or None.
    """

    selector: str
    version: int | None
    digest: str | None = None
    aspired: int | None = None
    target: int | None = None
    why: str
    reason: str
    since: Timestamp | None = None
    previous: int | None = None
    asked_by: str | None = None
    hold: HoldState | None = None
    doing: list[str] = Field(default_factory=list)
    failures: int = 0
    failure: str | None = None
    retry_at: Timestamp | None = None
    signature_change: str | None = None


class ExplainAnswer(BaseModel):
    """The meaning of a model's selectors on this node, and the reasons.

    Attributes:
        selectors: The requested selector, or every alias.
        versions: The versions of these selectors, and those that may not serve.
        fetches: Fetches under way of the model's versions.
        doing: Work that may change the explanation soon: ``list`` the registry, ``decide`` on a
            change, ``move`` an alias.
        attempts: The newest history entries, newest first; empty if the ledger does not answer.
    """

    model: str
    listed_at: Timestamp | None
    source_error: str | None
    gateway_error: str | None
    ledger_error: str | None
    frozen: FreezeState | None
    selectors: list[SelectorState]
    versions: list[CatalogueVersion]
    fetches: list[FetchState] = Field(default_factory=list)
    doing: list[str] = Field(default_factory=list)
    attempts: list[HistoryEntry]


class RollbackRequest(BaseModel):
    """Return an alias to ``version``, or to its previous version if that is None."""

    model: ModelName
    alias: Alias
    version: Version | None = None


class PinRequest(BaseModel):
    """Keep an alias at a version until it is unpinned."""

    model: ModelName
    alias: Alias
    version: Version


class UnpinRequest(BaseModel):
    """Let an alias follow the registry again."""

    model: ModelName
    alias: Alias


class QuarantineRequest(BaseModel):
    """The quarantined version to verify once more, or to accept."""

    model: ModelName
    version: Version


class RetryRequest(BaseModel):
    """Try a rejected version once more."""

    model: ModelName
    version: Version


class SyncRequest(BaseModel):
    """List the registry now, and retry every step of a model."""

    model: ModelName


Outcome = Literal["active", "accepted", "ended", "done", "pending", "refused"]
"""``active``: the alias points at its target. ``accepted``: the bytes are verified, and on this
node. ``ended``: the rejection or quarantine is over, and no alias takes the version now. ``done``:
each alias is where the registry or an operator wants it. ``pending``: the node keeps trying.
``refused``: the decision cannot be carried out as things are."""


class DecisionAnswer(BaseModel):
    """The answer to an operator's decision about a model.

    Attributes:
        outcome: ``pending`` from the listener, which answers at once; a command that waits sets it.
        reason: Why the outcome is no better, or None.
        explained: The selectors that the decision is about, as they are now.
        not_recorded: Why the ledger lacks the decision, and where it waits, or None.
    """

    model: str
    outcome: Outcome = "pending"
    reason: str | None = None
    explained: list[SelectorState]
    not_recorded: str | None = None


class RollbackAnswer(DecisionAnswer):
    """An alias is held at ``to_version``; ``was_pinned`` if the rollback ended a pin."""

    alias: str
    from_version: int
    to_version: int
    was_pinned: bool


class PinAnswer(DecisionAnswer):
    """The answer to a pin of an alias at ``to_version``.

    Attributes:
        pinned: False if the version's digest is not known yet, so that no pin can name it. The
            bytes are fetched; request the pin again afterwards.
    """

    alias: str
    from_version: int | None
    to_version: int
    pinned: bool


class UnpinAnswer(DecisionAnswer):
    """An alias is no longer kept at version ``was``; ``was_pinned`` if a pin kept it."""

    alias: str
    was: int
    was_pinned: bool


class RetryAnswer(DecisionAnswer):
    """A version is no longer rejected; ``explained`` has the aliases that want it."""

    version: int


class QuarantineAnswer(DecisionAnswer):
    """A quarantined version is fetched and verified once more, perhaps to be accepted.

    ``explained`` is empty if the registry no longer lists the version: nothing is fetched then.
    """

    version: int


class SyncAnswer(DecisionAnswer):
    """The registry is being listed, and every step of the model is tried now."""


class FreezeAnswer(BaseModel):
    """The freeze of the node.

    Attributes:
        frozen: The freeze in force, or None.
        changed: Whether this request froze or unfroze the node.
        moving: Models whose aliases are still moved by earlier decisions.
        not_recorded: Why the ledger lacks the decision, and where it waits, or None.
    """

    frozen: FreezeState | None
    changed: bool
    moving: list[str]
    not_recorded: str | None = None

    @property
    def outcome(self) -> Outcome:
        """The outcome: ``pending`` while aliases move."""
        return "pending" if self.moving else "done"


class QuarantineState(BaseModel):
    """The quarantine of a version whose bytes were found wrong at ``at``.

    Attributes:
        expected_digest: Digest that the bytes should have, or None if there was none.
        found_digest: Digest of the bytes, or None if they could not be read.
        asked_by: Initiator of the fetch, or None if an older release recorded the quarantine.
        listed: Whether the registry still lists the version.
        incident: ``altered``: the bytes changed under a number that never went away;
            ``not_as_stamped``; ``unstamped``; ``unreadable``. ``made_anew``: they belong to an
            earlier creation of the version. ``over``: another digest is expected now. ``gone``:
            the registry no longer lists the version.
        way_out: How to end the quarantine, as a sentence.
    """

    model: str
    version: int
    reason: str
    at: Timestamp
    expected_digest: str | None
    found_digest: str | None
    asked_by: str | None
    listed: bool
    incident: str = "altered"
    way_out: str = ""


class Quarantines(BaseModel):
    """The quarantines of this node, newest first."""

    quarantines: list[QuarantineState]


class Problem(BaseModel):
    """A refusal, as an RFC 9457 problem."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


def work(subject: tuple[Any, ...], **known: Any) -> StepState:
    """Return the state of a step; ``known`` are its other fields."""
    return StepState(step=str(subject[0]), subject=[str(part) for part in subject[1:]], **known)
