"""What can be done about a registry's wishes: the actions, and the order of work. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from registry_sync.domain import AskedBy, Hold


class Urgency(IntEnum):
    """The order of work."""

    RELEASE = 0
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
    """Bring the version's bytes here and check them.

    Attributes:
        digest: The bytes that are meant, by a hold; None: whichever are expected of the version.
        creation: The creation that is meant; None: whichever there is.
        accepts: The digest that an operator accepts, whatever was accepted before; None: none.
    """

    model: str
    version: int
    urgency: Urgency
    asked_by: str = AskedBy.POLL
    digest: str | None = None
    creation: str | None = None
    accepts: str | None = None


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
        keep: Keep the warmed replica for the activation: a promotion, or what is to be resident
            from the start.
        replaces: The version that it will replace.
        own: It runs in an environment of its own.
        displaces: It may end what it replaces before it is up.
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
class RetireStandby:
    """Spare a standby no longer that no alias is going to: it was for another time."""

    model: str
    version: int
    stage_id: str
    urgency: Urgency = Urgency.RELEASE
    asked_by: str = AskedBy.POLL


@dataclass(frozen=True, slots=True)
class EndHold:
    """Follow the registry again: its alias has moved since this hold was made, or is gone."""

    hold: Hold
    urgency: Urgency = Urgency.RELEASE
    asked_by: str = AskedBy.POLL

    @property
    def model(self) -> str:
        """Whose alias."""
        return self.hold.model

    @property
    def alias(self) -> str:
        """Which alias."""
        return self.hold.alias


@dataclass(frozen=True, slots=True)
class AllowDigest:
    """Let an alias take a digest again that an automatic rollback refused it."""

    model: str
    alias: str
    version: int | None
    digest: str
    urgency: Urgency = Urgency.RELEASE
    asked_by: str = AskedBy.POLL


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
"""A kind of step, and what it is about."""


def subject_of(action: Action) -> Subject:
    """What an action is about: one at a time, with one back-off."""
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
    """What a failure of this action is a failure of: an alias may be wished elsewhere since."""
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
