"""Services, limits and state that the collaborators of one control plane share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set as AbstractSet
from dataclasses import dataclass, field

from registry_sync.artifacts import ArtifactStore, MismatchPolicy, StoredArtifact
from registry_sync.domain import PromotionWindows, SignaturePolicy
from registry_sync.ledger import Journal, Ledger
from registry_sync.reconcile.gateway import Announcer, Observation, ServingTarget
from registry_sync.reconcile.registry import Listings
from registry_sync.sources import Source
from registry_sync.system import Threads


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """Limits for the removal of artifacts.

    Attributes:
        rollback_retention_s: Seconds for which artifacts of previous versions, and new ones, stay.
        disk_floor_bytes: With less than twice this free, versions without an alias are removed
            until that much is free.
    """

    rollback_retention_s: float = 3600.0
    disk_floor_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of stages, removals and promotions.

    Attributes:
        windows: Windows in which the registry may promote an active alias, or none for always.
    """

    stage_timeout_s: float = 600.0
    room: RoomLimits = field(default_factory=RoomLimits)
    windows: PromotionWindows = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules by which a node accepts versions.

    Attributes:
        require_digest: Whether versions without a stamp are refused.
        on_mismatch: Reaction to other libraries than the gateway's.
        on_signature_change: Reaction to other inputs and outputs.
    """

    require_digest: bool = False
    on_mismatch: MismatchPolicy = MismatchPolicy.WARN
    on_signature_change: SignaturePolicy = SignaturePolicy.WARN


class Changes:
    """The models that the next pass plans. Event loop only.

    Collaborators request plans with `note`, and need not know the reconciler.
    """

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._everything = True
        self._awake = asyncio.Event()
        self._decided = asyncio.Event()
        self._in_pass = False
        self._planning: frozenset[str] = frozenset()

    def note(self, models: AbstractSet[str] | None) -> None:
        """Request a pass now that plans some models, or all if ``models`` is None."""
        if models is None:
            self._everything = True
        else:
            self._models |= models
        self._awake.set()

    def wake(self) -> None:
        """Request a pass now that plans all models."""
        self.note(None)

    def is_undecided(self, model: str) -> bool:
        """Whether a change of a model is not planned yet."""
        return self._everything or model in self._models or model in self._planning

    async def next_decision(self) -> None:
        """Wait for the end of a pass that begins after this call."""
        if self._in_pass:
            await self._decided.wait()  # that pass began before this call
        self._awake.set()
        await self._decided.wait()

    # --- for the loop -----------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Record that a pass begins; later notes start another one."""
        self._awake.clear()
        self._in_pass = True

    def end_pass(self) -> None:
        """Record that a pass is over."""
        self._in_pass = False
        decided, self._decided = self._decided, asyncio.Event()
        decided.set()

    async def wait(self, longest_s: float) -> None:
        """Wait for the next `note`, for ``longest_s`` at most."""
        try:
            async with asyncio.timeout(longest_s):
                await self._awake.wait()
        except TimeoutError:
            return

    def add(self, models: AbstractSet[str]) -> None:
        """Note models for the pass under way or the next one, without starting one."""
        self._models |= models

    def take(self, known: Callable[[], AbstractSet[str]], *, everything: bool) -> frozenset[str]:
        """Return the models to plan: the noted ones, or all if noted or if ``everything``."""
        if self._everything or everything:
            self._everything = False
            self._models |= known()
        self._planning, self._models = frozenset(self._models), set()
        return self._planning

    def planned(self) -> None:
        """Record that the models that were taken are planned."""
        self._planning = frozenset()

    def unchanged(self, models: frozenset[str]) -> frozenset[str]:
        """Return the models that were not noted again since they were taken."""
        return frozenset() if self._everything else models - self._models

    @property
    def everything(self) -> bool:
        """Whether the next pass plans all models."""
        return self._everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Services and state that most collaborators use. Event loop only.

    Attributes:
        artifacts: The content of the artifact store, by digest.
        changes: The models that the next pass plans.
        clock: Returns epoch seconds.
        jitter: Returns numbers from 0 to 1.
    """

    source: Source
    store: ArtifactStore
    ledger: Ledger
    journal: Journal
    target: ServingTarget
    threads: Threads
    listings: Listings
    observation: Observation
    announcer: Announcer
    artifacts: dict[str, StoredArtifact]
    changes: Changes
    limits: Limits
    policy: Policy
    clock: Callable[[], float]
    jitter: Callable[[], float]
