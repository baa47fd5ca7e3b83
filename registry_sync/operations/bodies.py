"""Bodies of the operations listener."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, PositiveInt

from gateway.control_contract import Alias, CatalogueVersion, ModelName


class AliasState(BaseModel):
    """One alias: where the registry wants it, where it is, and why they differ.

    Attributes:
        held_at: The version that an operator's hold keeps it at.
        pinned: Whether that hold is a pin, which the registry does not end.
        reason: Why it is not where the registry wants it; None: it is, or it is under way.
    """

    alias: str
    aspired: int | None
    active: int | None
    digest: str | None = None
    since: float | None = None
    previous: int | None = None
    held_at: int | None = None
    pinned: bool = False
    reason: str | None = None


class ModelState(BaseModel):
    """One model on this node."""

    name: str
    aliases: list[AliasState]
    versions: list[CatalogueVersion]


class Work(BaseModel):
    """A step under way, or waiting for its next try at ``retry_at`` (epoch seconds)."""

    step: str
    subject: list[str]
    failures: int = 0
    reason: str | None = None
    retry_at: float | None = None


class WebhookState(BaseModel):
    """What one webhook was sent since the start. Times are in epoch seconds.

    Attributes:
        repeated: Deliveries that had been taken before, and had no effect.
        refusal: Why the last one that was refused was.
    """

    name: str
    taken: int = 0
    taken_at: float | None = None
    repeated: int = 0
    refused: int = 0
    refused_at: float | None = None
    refusal: str | None = None


class FreezeState(BaseModel):
    """Nothing of this node follows the registry, since ``at`` (epoch seconds)."""

    asked_by: str
    at: float


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
    listed_at: float | None
    source_error: str | None
    gateway_error: str | None
    ledger_error: str | None
    generation: int | None
    frozen: FreezeState | None = None
    problems: list[str] = Field(default_factory=list)
    models: list[ModelState]
    work: list[Work]
    webhooks: list[WebhookState] = Field(default_factory=list)


class HistoryEntry(BaseModel):
    """One thing that happened to a model. ``at`` is in epoch seconds, durations in seconds."""

    at: float
    what: str
    model: str
    alias: str | None
    version: int | None
    previous: int | None = None
    asked_by: str
    outcome: str
    reason: str | None = None
    digest: str | None = None
    durations_s: dict[str, float] = Field(default_factory=dict)


class History(BaseModel):
    """What happened to a model, or to all, newest first."""

    entries: list[HistoryEntry]


class RollbackRequest(BaseModel):
    """Put an alias back to the version that it pointed at before, or to ``version``."""

    model: ModelName
    alias: Alias
    version: PositiveInt | None = None


Outcome = Literal["active", "pending", "refused"]
"""``active``: it serves. ``pending``: it is held and still tried; a reason says what is in the way.
``refused``: nothing has changed."""


class RollbackAnswer(BaseModel):
    """How the rollback went.

    Attributes:
        held_while_aspired: It stays so until the registry's alias leaves this version.
        was_pinned: It was pinned until now, and is held now.
    """

    outcome: Outcome
    model: str
    alias: str
    from_version: int | None = None
    to_version: int | None = None
    held_while_aspired: int | None = None
    was_pinned: bool = False
    reason: str | None = None


class PinRequest(BaseModel):
    """Keep an alias at a version until it is unpinned."""

    model: ModelName
    alias: Alias
    version: PositiveInt


class PinAnswer(BaseModel):
    """How the pin went."""

    outcome: Outcome
    model: str
    alias: str
    from_version: int | None = None
    to_version: int
    reason: str | None = None


class UnpinRequest(BaseModel):
    """Let an alias follow the registry again."""

    model: ModelName
    alias: Alias


class UnpinAnswer(BaseModel):
    """What was ended, and where the alias goes from there.

    Attributes:
        was: The version that it was kept at.
        was_pinned: False: it was held by a rollback.
        aspired: Where the registry's alias points.
        frozen: It stays where it is until the node is unfrozen.
    """

    model: str
    alias: str
    was: int
    was_pinned: bool
    active: int | None
    aspired: int | None
    frozen: bool


class FreezeAnswer(BaseModel):
    """Whether the node is frozen now, and whether it was before."""

    frozen: FreezeState | None
    changed: bool


class Problem(BaseModel):
    """A refusal: RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


def work(subject: tuple[Any, ...], **known: Any) -> Work:
    """Return a step by its subject."""
    return Work(step=str(subject[0]), subject=[str(part) for part in subject[1:]], **known)
