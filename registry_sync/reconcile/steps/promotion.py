"""Stages, activates and retires: one request to the gateway each, and its record."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import get_args

import structlog

from gateway.contract import (
    PERMANENT_STAGE_FAILURES,
    ActivateRequest,
    ActiveAlias,
    AliasTarget,
    AllowRequest,
    ArtifactRef,
    RetireRequest,
    StageFailure,
    StageOutcome,
    StageRequest,
)
from registry_sync.domain import Rejection
from registry_sync.errors import RolloutRejectedError
from registry_sync.planning import (
    Activate,
    AllowDigest,
    RetireAlias,
    RetireStandby,
    Snapshot,
    Stage,
    as_due,
    is_due,
)
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.damaged_copies import Copies
from registry_sync.reconcile.steps.fetch import FetchStep
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch

_HAS_DISPLACED: frozenset[StageFailure | None] = frozenset(
    set(get_args(StageFailure)) - PERMANENT_STAGE_FAILURES - {"no_room"}
)
"""Transient failures of a load; the replicas that made room for it have ended by then."""
_log = structlog.get_logger("registry_sync.reconcile.steps.promotion")


@dataclass
class Promotion:
    """Starts standbys and moves aliases on the gateway. Event loop only.

    Attributes:
        look: Returns the input of a model's plan. A step is planned again just before it calls the
            gateway, as an operator may have decided otherwise since.
    """

    context: Context
    fetch_step: FetchStep
    copies: Copies
    look: Callable[[str], Snapshot]
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _moves: Counter[str] = field(default_factory=Counter)
    _comparing: set[Stage | Activate] = field(default_factory=set)

    # --- stage ------------------------------------------------------------------------------------

    async def stage(self, action: Stage, watch: Stopwatch) -> StepFailure | None:
        """Have the gateway start and warm up a standby; wait for the outcome.

        If that may end serving replicas, the bytes are first compared with the registry's: a
        version that cannot be activated must not cause an outage.
        """
        if action.displaces:
            if (stopped := await self._compare(action, watch)) is not None:
                return stopped
            if not is_due(self.look(action.model), action):
                return StepFailure("superseded: another version should be loaded now")
        stage_id, timeout_s = uuid.uuid4().hex, self.context.limits.stage_timeout_s
        expected = self.context.observation.expect(stage_id)
        try:
            with watch.phase("stage"):
                async with asyncio.timeout(timeout_s):
                    await self.context.target.stage(
                        StageRequest(
                            stage_id=stage_id,
                            model=action.model,
                            version=action.version,
                            digest=action.digest,
                            alias=action.alias,
                            replaces=action.replaces,
                            keep=action.keep,
                        )
                    )
                    outcome = await expected
        except TimeoutError:
            return StepFailure(f"the stage failed: no outcome within {timeout_s:g} s")
        finally:
            expected.cancel()
        watch.seconds.update({f"stage.{k}": v for k, v in outcome.durations_s.items()})
        if outcome.failure is not None:
            return await self._stage_failed(outcome, action)
        if action.keep and not self._stands_by(action.model, stage_id):
            return StepFailure("the standby ended before it was activated")
        return None

    def _stands_by(self, model: str, stage_id: str) -> bool:
        node = self.context.observation.state_of(model)
        return node is not None and any(one.stage_id == stage_id for one in node.standbys)

    async def _stage_failed(self, outcome: StageOutcome, action: Stage) -> StepFailure:
        reason = outcome.message or f"the stage failed: {outcome.failure}"
        if outcome.failure not in PERMANENT_STAGE_FAILURES:
            costly = action.displaces and outcome.failure in _HAS_DISPLACED
            return StepFailure(reason, costly=costly)
        if outcome.failure == "integrity":
            if await self.copies.drop(outcome.digest):
                return StepFailure(f"{reason}; this node's copy is dropped and fetched again")
            reason = f"{reason}; this node's copy replaced a damaged one"
            return StepFailure(f"{reason}: it is fetched again later", costly=action.displaces)
        node = self.context.observation.heard
        await self.context.journal.write(
            action.model,
            self.context.ledger.reject,
            Rejection(
                model=outcome.model,
                version=outcome.version,
                digest=outcome.digest,
                failure=outcome.failure,
                own=action.own,
                reason=reason,
                at=self.context.clock(),
                libraries=None if action.own or node is None else node.libraries,
            ),
        )
        return StepFailure(reason, refused=True)

    # --- activate ---------------------------------------------------------------------------------

    async def activate(self, action: Activate, watch: Stopwatch) -> StepFailure | None:
        """Compare with the registry once more, move the alias, record it."""
        stopped = await self._compare(action, watch)
        if stopped is not None:
            return stopped
        async with self._moving(action.model):
            node = self.context.observation.heard
            if node is None:
                return StepFailure("the gateway has not answered yet")
            due = as_due(self.look(action.model), action)
            if due is None:
                return StepFailure("superseded: the alias should point elsewhere now")
            if isinstance(due, Stage):
                return None  # no failure: the stage comes first
            before = self.context.observation.active_of(action.model).get(action.alias)
            try:
                with watch.phase("activate"):
                    ack = await self.context.target.activate(
                        ActivateRequest(
                            model=action.model,
                            alias=action.alias,
                            version=action.version,
                            digest=action.digest,
                            if_active=_target(before),
                            stage_id=due.stage_id,  # so that the present standby ends too
                            asked_by=str(action.asked_by),
                        )
                    )
            except RolloutRejectedError as error:
                if error.code == "not_staged":
                    proof = ArtifactRef(action.model, action.version, action.digest)
                    self.context.observation.proved.pop(proof, None)
                return StepFailure(error.reason)
            active = _activated(action, before, at=self.context.clock())
            self.context.observation.activated(active, ack, due.stage_id)
        await self._record(action, active, ack.generation, watch)
        return None

    @contextlib.asynccontextmanager
    async def _moving(self, model: str) -> AsyncIterator[None]:
        """Hold a model's lock: its aliases move one by one, as they may share a standby.

        Aliases of several models move together, and share one write of the gateway's table.
        """
        lock = self._locks.setdefault(model, asyncio.Lock())
        self._moves[model] += 1
        try:
            async with lock:
                yield
        finally:
            self._moves[model] -= 1
            if not self._moves[model]:
                del self._moves[model], self._locks[model]

    def moving(self) -> list[str]:
        """Return the models with an alias that is being moved or retired.

        A later move is planned again just before it calls the gateway.
        """
        return sorted(model for model, lock in self._locks.items() if lock.locked())

    async def _compare(self, action: Stage | Activate, watch: Stopwatch) -> StepFailure | None:
        self._comparing.add(action)
        try:
            with watch.phase("confirm"):
                return await self.fetch_step.confirm(action, watch)
        finally:
            self._comparing.discard(action)

    def is_comparing(self, action: Activate) -> bool:
        """Whether an activation has not asked the gateway yet, so that cancelling it is safe."""
        return action in self._comparing

    async def _record(
        self, action: Activate, active: ActiveAlias, generation: int, watch: Stopwatch
    ) -> None:
        _log.info(
            "activation.completed",
            model=action.model,
            alias=action.alias,
            version=action.version,
            previous=active.previous_version,
            asked_by=str(action.asked_by),
            generation=generation,
        )
        await self.context.journal.activated(
            active,
            action.asked_by,
            generation,
            durations_s=dict(watch.seconds),
            pinned=self._is_pinned(action),
        )

    def _is_pinned(self, action: Activate) -> bool:
        hold = self.context.journal.view_of(action.model).holds.get(action.alias_ref)
        return hold is not None and hold.lasting and hold.target_version == action.version

    # --- retire -----------------------------------------------------------------------------------

    async def retire(self, action: RetireAlias) -> StepFailure | None:
        """Retire an alias, first in the ledger, then on the gateway.

        If the gateway keeps the alias after that, it is adopted again. In the other order, a crash
        in between would bring the alias back as if it had been lost.
        """
        async with self._moving(action.model):
            if not is_due(self.look(action.model), action):
                return StepFailure("superseded: the alias must stay")
            gone = frozenset({action.alias_ref})
            if not await self.context.journal.write(action.model, self.context.ledger.retire, gone):
                return StepFailure(self.context.journal.trouble or "the ledger did not record it")
            ack = await self.context.target.retire(
                RetireRequest(model=action.model, alias=action.alias)
            )
            self.context.observation.retired(action.alias_ref, ack.generation)
        _log.info("alias.retired", model=action.model, alias=action.alias)
        return None

    async def retire_standby(self, action: RetireStandby) -> StepFailure | None:
        """Have the gateway end a standby."""
        await self.context.target.retire(
            RetireRequest(model=action.model, stage_id=action.stage_id)
        )
        self.context.observation.dismissed(action.stage_id)
        _log.info("standby.retired", model=action.model, version=action.version)
        return None

    # --- allow ------------------------------------------------------------------------------------

    async def allow(self, action: AllowDigest) -> StepFailure | None:
        """Allow an alias a digest that an automatic rollback refused."""
        await self.context.target.allow(
            AllowRequest(model=action.model, alias=action.alias, digest=action.digest)
        )
        self.context.observation.allowed(action.model, action.alias, action.digest)
        _log.info(
            "digest.allowed",
            model=action.model,
            alias=action.alias,
            version=action.version,
        )
        return None


def _target(active: ActiveAlias | None) -> AliasTarget:
    return AliasTarget(version=active.version, digest=active.digest) if active else AliasTarget()


def _activated(action: Activate, before: ActiveAlias | None, *, at: float) -> ActiveAlias:
    return ActiveAlias(
        model=action.model,
        alias=action.alias,
        version=action.version,
        digest=action.digest,
        since=at,
        previous_version=before.version if before else None,
        previous_digest=before.digest if before else None,
        asked_by=str(action.asked_by),
    )
