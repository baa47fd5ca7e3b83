"""The actions of the plan, and their order. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from registry_sync.domain import Hold, Initiator, OfAlias, OfArtifact


class Urgency(IntEnum):
    """The order of work."""

    END = 0
    WANTED = 1
    ACTIVATE = 2
    PROMOTION = 3
    RECOVERY = 4
    PRELOAD = 5
    FIRST = 6
    PREFETCH = 7
    RETIRE = 8


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch and verify the bytes of a version.

    Attributes:
        digest: The digest that a hold names, or None for the expected one.
        creation: The creation to fetch, or None for any.
        accepts: The digest that an operator accepts in place of the accepted one, or None.
    """

    model: str
    version: int
    urgency: Urgency
    asked_by: str = Initiator.POLL
    digest: str | None = None
    creation: str | None = None
    accepts: str | None = None


@dataclass(frozen=True, slots=True)
class BuildEnvironment(OfArtifact):
    """Build the own environment of a version."""

    model: str
    version: int
    digest: str
    urgency: Urgency
    asked_by: str = Initiator.POLL


@dataclass(frozen=True, slots=True)
class Stage(OfAlias, OfArtifact):
    """Start a standby and warm it.

    Attributes:
        alias: The alias that is to be activated.
        keep: Whether the warmed replica is kept for the activation: of a promotion or a preload.
        replaces: The version that it replaces, or None.
        own: Whether it runs in an environment of its own.
        displaces: Whether it may end the replaced version before it is ready.
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
    displaces: bool = False


@dataclass(frozen=True, slots=True)
class Activate(OfAlias, OfArtifact):
    """Point the alias at a version that was staged as ``stage_id``."""

    model: str
    alias: str
    version: int
    digest: str
    stage_id: str
    urgency: Urgency
    asked_by: str


@dataclass(frozen=True, slots=True)
class RetireAlias(OfAlias):
    """Retire an alias that the registry no longer has."""

    model: str
    alias: str
    urgency: Urgency = Urgency.RETIRE
    asked_by: str = Initiator.POLL


@dataclass(frozen=True, slots=True)
class RetireStandby:
    """End a standby that no alias is about to take."""

    model: str
    version: int
    stage_id: str
    urgency: Urgency = Urgency.END
    asked_by: str = Initiator.POLL


@dataclass(frozen=True, slots=True)
class EndHold:
    """End a hold: the registry's alias has moved since it was made, or is gone."""

    hold: Hold
    urgency: Urgency = Urgency.END
    asked_by: str = Initiator.POLL

    @property
    def model(self) -> str:
        """The model of the held alias."""
        return self.hold.model

    @property
    def alias(self) -> str:
        """The held alias."""
        return self.hold.alias


@dataclass(frozen=True, slots=True)
class AllowDigest:
    """Allow an alias a digest that is refused since an automatic rollback."""

    model: str
    alias: str
    version: int | None
    digest: str
    urgency: Urgency = Urgency.END
    asked_by: str = Initiator.POLL


Action = (
    Fetch
    | BuildEnvironment
    | Stage
    | Activate
    | RetireAlias
    | RetireStandby
    | EndHold
    | AllowDigest
)

Subject = tuple[str | int, ...]
"""A kind of step, and its object."""


def subject_of(action: Action) -> Subject:
    """Return the subject of an action, which has one step at a time and one back-off."""
    match action:
        case Fetch():
            return ("fetch", action.model, action.version)
        case BuildEnvironment():
            return ("environment", action.model, action.version, action.digest)
        case Stage():
            return ("stage", action.model, action.version, action.digest)
        case Activate():
            return ("activate", action.model, action.alias)
        case RetireAlias():
            return ("retire", action.model, action.alias)
        case RetireStandby():
            return ("retire_standby", action.model, action.stage_id)
        case EndHold():
            return ("end_hold", action.model, action.alias)
        case AllowDigest():
            return ("allow_digest", action.model, action.alias, action.digest)
        case _:
            assert_never(action)


def goal_of(action: Action) -> Hashable:
    """Return the goal of an action; a failure applies to the same goal only."""
    match action:
        case Activate():
            return (action.version, action.digest)
        case Fetch():
            return action.creation
        case EndHold():
            return action.hold
        case _:
            return None


def verb_of(action: Action) -> str:
    """Return the word for an action in logs and history."""
    return str(subject_of(action)[0])


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a subject.

    Attributes:
        count: Failures in a row.
        reason: The last one, as a sentence.
        failed_at: Epoch seconds.
        retry_at: Epoch seconds of the next try.
        goal: The goal of the try; its failure says nothing about another goal.
        short_lived: Whether it ends by itself within seconds.
    """

    count: int
    reason: str
    failed_at: float
    retry_at: float
    goal: Hashable = None
    short_lived: bool = False
