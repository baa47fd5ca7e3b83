"""Bodies of operations: what an operator asks of the control plane, and what it answers.

The listener and the command share them. They lie here, since a command that only asks would need
half a second longer with the listener and its loop. Times are RFC 3339 in JSON, and epoch seconds
here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from gateway.contract import MAX_VERSION, Alias, CatalogueVersion, ModelName, Timestamp

Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]


class AliasState(BaseModel):
    """One alias: where the registry wants it, where it is, and why they differ.

    Attributes:
        held_at: The version that an operator's hold keeps it at.
        pinned: Whether that hold is a pin, which the registry does not end.
        reason: Why it is not where the registry wants it; None: it is, or it is under way.
        signature_change: What it changes for callers where it goes, or has gone; None: nothing.
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
    """One model on this node."""

    name: str
    aliases: list[AliasState]
    versions: list[CatalogueVersion]


class StepState(BaseModel):
    """A step under way, or waiting for its next try at ``retry_at``."""

    step: str
    subject: list[str]
    failures: int = 0
    reason: str | None = None
    retry_at: Timestamp | None = None


class WebhookState(BaseModel):
    """Deliveries to one webhook since the start.

    Attributes:
        repeated: Deliveries that had been accepted before, and had no effect.
        refusal: Why the last refused delivery was refused, or None.
    """

    name: str
    accepted: int = 0
    accepted_at: Timestamp | None = None
    repeated: int = 0
    refused: int = 0
    refused_at: Timestamp | None = None
    refusal: str | None = None


class FreezeState(BaseModel):
    """Nothing of this node follows the registry, since ``at``."""

    asked_by: str
    at: Timestamp


class FetchState(BaseModel):
    """How far a fetch under way is.

    Attributes:
        comparing: Bytes that are here are compared once more.
        total_bytes: None: the storage has not told, or does not.
    """

    model: str
    version: int
    comparing: bool
    started_at: Timestamp
    arrived_bytes: int
    total_bytes: int | None


class StoreState(BaseModel):
    """How full the artifact store is, in bytes.

    Attributes:
        coming_bytes: Booked for fetches under way.
        budget_bytes: Most that both together may be; None: there is no budget.
    """

    stored_bytes: int
    coming_bytes: int
    budget_bytes: int | None


class State(BaseModel):
    """What this node follows, serves and is busy with.

    Attributes:
        source_error: Why the registry could not be listed last; None: it could.
        gateway_error: Why the gateway does not answer; None: it does.
        ledger_error: Why the ledger could not be used; None: it could.
        frozen: Since when nothing follows the registry; None: aliases follow it.
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
    problems: list[str] = Field(default_factory=list)
    models: list[ModelState]
    work: list[StepState]
    fetches: list[FetchState] = Field(default_factory=list)
    webhooks: list[WebhookState] = Field(default_factory=list)


class Readiness(BaseModel):
    """That the control plane is at work, and what of its work it cannot write down now."""

    status: Literal["ready"] = "ready"
    not_written: list[str]


class HistoryEntry(BaseModel):
    """One thing that happened to a model. Durations are in seconds.

    Attributes:
        model: None: it happened to the whole node.
        asked_by: Initiator, or None if an older release recorded the entry.
        durations_s: By phase; one with a dot is a part of the phase before the dot.
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
    """What happened to a model, or to all, newest first."""

    entries: list[HistoryEntry]


class HoldState(BaseModel):
    """An operator's hold.

    Attributes:
        pinned: Only an operator ends it.
        while_aspired: Else it ends when the registry's alias leaves this version.
    """

    version: int
    pinned: bool
    while_aspired: int | None
    asked_by: str
    at: Timestamp


class SelectorState(BaseModel):
    """What a selector means on this node, and why.

    Attributes:
        selector: ``@champion``, or ``3``.
        version: What it means here; None: nothing.
        aspired: Where the registry's alias points.
        target: Where the alias is to go; None: it stays.
        why: A machine word; ``reason`` is the same as a sentence.
        asked_by: Who asked for what it means now.
        doing: Steps under way, and the fetch that an operator has asked for.
        failures: How often its next step failed in a row; ``failure`` says how the last time.
        retry_at: When that is tried again.
        signature_change: What an alias changes for callers where it goes, or has gone.
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
    """What a model's selectors mean on this node, and why.

    Attributes:
        selectors: The one that was asked for, or every alias.
        versions: Those that are meant or wanted, and those that may not serve.
        fetches: Those of the model's versions that are under way.
        doing: What may change the explanation soon: the registry is being listed (``list``), a
            change is not decided on yet (``decide``), an alias is being moved (``move``).
        attempts: What happened last, the newest first; empty with a ``ledger_error``.
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
    """Put an alias back to the version that it pointed at before, or to ``version``."""

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
    """Let a quarantined version be fetched and checked once more."""

    model: ModelName
    version: Version


class RetryRequest(BaseModel):
    """Try a rejected version once more."""

    model: ModelName
    version: Version


class SyncRequest(BaseModel):
    """Look at one model now."""

    model: ModelName


Outcome = Literal["active", "accepted", "ended", "done", "pending", "refused"]
"""``active``: the alias is there. ``accepted``: the bytes are right, and here. ``ended``:
nothing keeps the version away any more, and nothing asks for it. ``done``: each alias is where the
registry, or an operator, wants it. ``pending``: it goes on being tried. ``refused``: it cannot be
done as things are."""


class DecisionAnswer(BaseModel):
    """What an operator has decided of a model, and what the node does about it.

    Attributes:
        outcome: The listener answers at once: ``pending``. A command that waits fills it in.
        reason: Why the outcome is no better, or None.
        explained: The selectors that the decision is about, as they are now.
        not_recorded: Why the ledger does not have it yet, and where it waits, or None.
    """

    model: str
    outcome: Outcome = "pending"
    reason: str | None = None
    explained: list[SelectorState]
    not_recorded: str | None = None


class RollbackAnswer(DecisionAnswer):
    """An alias is held at ``to_version``; ``was_pinned``: it was pinned before, and is no more."""

    alias: str
    from_version: int
    to_version: int
    was_pinned: bool


class PinAnswer(DecisionAnswer):
    """An alias is pinned at ``to_version``.

    Attributes:
        pinned: False: the version's bytes have never been here, so that the pin could not name
            them. They are fetched; the pin is to be asked for again.
    """

    alias: str
    from_version: int | None
    to_version: int
    pinned: bool


class UnpinAnswer(DecisionAnswer):
    """An alias is no longer kept at version ``was``; ``was_pinned``: else a rollback held it."""

    alias: str
    was: int
    was_pinned: bool


class RetryAnswer(DecisionAnswer):
    """A version is no longer rejected; the aliases that the registry points at it are explained."""

    version: int


class QuarantineAnswer(DecisionAnswer):
    """Bytes are fetched and checked once more, or to be accepted as they were found.

    Nothing is explained where the registry no longer lists the version: nothing is fetched.
    """

    version: int


class SyncAnswer(DecisionAnswer):
    """The registry is listed, and nothing of the model waits for its next try."""


class FreezeAnswer(BaseModel):
    """Whether the node is frozen.

    Attributes:
        frozen: Since when, or None.
        changed: Whether that is new.
        moving: Models of which an alias is still being moved, as was decided before.
        not_recorded: Why the ledger does not have it yet, and where it waits, or None.
    """

    frozen: FreezeState | None
    changed: bool
    moving: list[str]
    not_recorded: str | None = None

    @property
    def outcome(self) -> Outcome:
        """The outcome, as of other decisions."""
        return "pending" if self.moving else "done"


class QuarantineState(BaseModel):
    """Bytes that are wrong, found at ``at``.

    Attributes:
        expected_digest: What they had to be; None: nobody had said.
        found_digest: What they were; None: not even readable.
        asked_by: For whom they were fetched; None: an older release recorded it.
        listed: Whether the registry still lists the version.
        incident: ``altered``: the bytes changed under a number that never went away;
            ``not_as_stamped``; ``unstamped``; ``unreadable``. ``made_anew``: they belong to an
            earlier creation of the version, and say nothing of the present one. ``gone``: the
            registry no longer lists the version.
        way_out: What ends the quarantine, as a sentence.
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
    """What is quarantined on this node, the newest first."""

    quarantines: list[QuarantineState]


class Problem(BaseModel):
    """A refusal: RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


def work(subject: tuple[Any, ...], **known: Any) -> StepState:
    """Return a step by its subject."""
    return StepState(step=str(subject[0]), subject=[str(part) for part in subject[1:]], **known)
