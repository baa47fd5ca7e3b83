"""What can be done about a registry's wishes: the actions, and the order of work. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from registry_sync.records import AskedBy


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
