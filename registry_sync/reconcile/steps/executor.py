"""Hands each action to the collaborator that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from registry_sync.domain import HoldChange, Initiator
from registry_sync.planning import (
    Action,
    Activate,
    AllowDigest,
    BuildEnvironment,
    EndHold,
    Fetch,
    RetireAlias,
    RetireStandby,
    Stage,
    is_due,
)
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.damaged_copies import Copies
from registry_sync.reconcile.steps.environment import EnvironmentStep
from registry_sync.reconcile.steps.fetch import FetchStep
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch
from registry_sync.reconcile.steps.promotion import Promotion


@dataclass
class Executor:
    """Does actions. Event loop only."""

    context: Context
    fetch_step: FetchStep
    environment_step: EnvironmentStep
    promotion: Promotion
    copies: Copies

    async def __call__(self, action: Action, watch: Stopwatch) -> StepFailure | None:
        """Do an action; return why it stopped, or None if it completed."""
        match action:
            case Fetch():
                return await self.fetch_step.fetch(action, watch)
            case BuildEnvironment():
                return await self._build(action, watch)
            case Stage():
                return await self.promotion.stage(action, watch)
            case Activate():
                return await self.promotion.activate(action, watch)
            case RetireAlias():
                return await self.promotion.retire(action)
            case RetireStandby():
                return await self.promotion.retire_standby(action)
            case EndHold():
                return await self._end_hold(action)
            case AllowDigest():
                return await self.promotion.allow(action)
            case _:
                assert_never(action)

    async def _build(self, action: BuildEnvironment, watch: Stopwatch) -> StepFailure | None:
        """Build a version's own environment, unless the copy on this node is damaged."""
        artifact = self.context.artifacts.get(action.digest)
        if artifact is not None:
            damage = await self.copies.lost(action.digest, self.context.threads.check_stopping)
            if damage is not None:
                return StepFailure(damage)
        return await self.environment_step.build(action, artifact, watch)

    async def _end_hold(self, action: EndHold) -> StepFailure | None:
        """End a hold, unless it was replaced or must stay."""
        if not is_due(self.promotion.look(action.model), action):
            return StepFailure("superseded: the hold was replaced, or must stay")
        change = HoldChange("end_hold", str(Initiator.POLL), self.context.clock(), action.hold)
        await self.context.journal.carry_out(change)
        return None

    def may_overtake(self, doing: Action, action: Action) -> bool:
        """Whether ``doing`` may be cancelled, since ``action`` needs other bytes.

        A comparison may fetch a whole artifact, and a rollback must not wait for it. An activation
        that has called the gateway ends soon by itself. A fetch of a lost creation is useless.
        """
        if isinstance(doing, Fetch) and isinstance(action, Fetch):
            return action.creation not in (None, doing.creation)
        if not (isinstance(doing, Activate) and isinstance(action, Activate)):
            return False
        same = (doing.version, doing.digest) == (action.version, action.digest)
        return not same and self.promotion.is_comparing(doing)
