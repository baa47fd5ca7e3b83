"""The reconciler: list → plan → fetch → verify → stage → activate → record, model by model.

One loop plans. Each step that takes time is a task of its own, so that a slow fetch delays no other
model's promotion. A pass plans the models with a change: in the listing, the gateway's state or the
ledger, a step that ended, a time that has come. So the cost of a change depends on its model, not
on the registry. After a start, and every few minutes in case a change was missed, a pass plans all
models. A killed process resumes nothing: the next one plans from the state that it finds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Set as AbstractSet
from functools import partial

import structlog

from gateway.contract import ActiveAlias, NodeState
from registry_sync.domain import Initiator, LedgerView
from registry_sync.errors import SyncError
from registry_sync.planning import (
    Action,
    BuildEnvironment,
    DueActions,
    Fetch,
    plan,
    rollback_of,
    runs_in_own,
    unrecorded,
)
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.disk_budget import DiskRoom
from registry_sync.reconcile.gateway import TargetUnreachableError
from registry_sync.reconcile.polling import Polls
from registry_sync.reconcile.registry import Hints
from registry_sync.reconcile.steps import Copies, EnvironmentStep, FetchStep, Steps
from registry_sync.reconcile.view import Descriptions, Snapshots, with_pauses
from registry_sync.system import ModelFaults, run_forever

_LONGEST_SLEEP_S = 5.0
_ALL_EVERY_S = 300.0
"""Interval of the passes that plan all models, in case a change was missed. With 5,000 models such
a pass takes 0.3 to 0.5 s: a thousandth of a core."""
_ROUNDS = 5
_log = structlog.get_logger("registry_sync.reconcile")


class Reconciler:
    """Follows the registry on one node. Event loop only; `run` does the work."""

    def __init__(
        self,
        context: Context,
        *,
        due: DueActions,
        faults: ModelFaults,
        polling: Polls,
        hints: Hints,
        fetch_step: FetchStep,
        copies: Copies,
        disk_room: DiskRoom,
        environment_step: EnvironmentStep,
        snapshots: Snapshots,
        descriptions: Descriptions,
        steps: Steps,
    ) -> None:
        self.journal = context.journal
        self.ledger = context.ledger
        self.store = context.store
        self.artifacts = context.artifacts
        self.observation = context.observation
        self.announcer = context.announcer
        self.listings = context.listings
        self.threads = context.threads
        self.clock = context.clock
        self.changes = context.changes
        self.fetch_step = fetch_step
        self.disk_room = disk_room
        self.environment_step = environment_step
        self.steps = steps
        self.poll = polling.poll
        self.hint = hints.add
        self.wake = context.changes.wake
        self.next_decision = context.changes.next_decision
        self.look = snapshots.of
        self._due = due
        self._faults = faults
        self._hints = hints
        self._copies = copies
        self._snapshots = snapshots
        self._descriptions = descriptions
        self._unrecorded: dict[str, None] = {}
        self._all_planned_at = -math.inf
        self._store_damaged: dict[str, str] = {}
        self._store_unhealed = False
        self._libraries: str | None = None

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow registry and gateway until cancelled; then end all steps."""
        await self._load_records()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run_forever("observation", self.observation.follow))
                group.create_task(run_forever("reconciliation", self._decide_forever))
        finally:
            await self._hints.close()
            await self.steps.end()

    async def _load_records(self) -> None:
        """Load the node's own records, with which it can serve without the registry."""
        self.artifacts.update(await self.threads.ledger(self.store.all))
        await self.environment_step.look(self.artifacts.values())
        await self.journal.refresh(self.artifacts.values(), None)
        await self.listings.recall()

    async def _decide_forever(self) -> None:
        while True:
            self.changes.begin_pass()
            try:
                await self.reconcile()
            except TargetUnreachableError as error:
                self.observation.suspect(error.reason)
            except SyncError as error:
                _log.error("reconciliation.failed", reason=error.reason)
            except Exception:  # noqa: BLE001 - the next pass tries again
                _log.exception("reconciliation.failed")
            self.changes.end_pass()
            next_at = self.steps.next_try_at()
            wait_s = _LONGEST_SLEEP_S if next_at is None else max(0.01, next_at - self.clock())
            await self.changes.wait(min(wait_s, _LONGEST_SLEEP_S))

    async def reconcile(self) -> None:
        """Record, publish to the gateway, plan, and start the steps that are due.

        Models that change meanwhile are published and planned again at once, a few times; after
        that, by the next pass.
        """
        for _ in range(_ROUNDS):
            if not await self._pass():
                return

    async def _pass(self) -> bool:
        """Plan the models with a change; return whether some have changed again meanwhile."""
        # First: a past time that stays in the list would end every sleep at once.
        self.changes.add(self.steps.woken())
        complete = await self.journal.refresh(self.artifacts.values(), self.listings.own)
        recording = complete and self.journal.trouble is None
        if self.journal.answered:
            await self.listings.recall()
        if self.observation.heard is None or self.observation.unreachable:
            return False
        models = self._take(self.observation.heard)
        try:
            return await self._decide(models, recording=recording)
        except BaseException:
            self.changes.add(models)
            raise
        finally:
            self.changes.planned()

    def _take(self, node: NodeState) -> frozenset[str]:
        """Return the models to plan: all of them after a start, and every few minutes."""
        damaged, libraries = self.store.damaged(), node.libraries
        is_time = time.monotonic() - self._all_planned_at > _ALL_EVERY_S
        news = damaged != self._store_damaged or libraries != self._libraries
        everything = self.changes.everything or is_time or news
        if everything:
            self._store_damaged, self._libraries = damaged, libraries
            self._store_unhealed = bool(damaged)
            self._all_planned_at = time.monotonic()
        models = self.changes.take(self._all_models, everything=everything)
        if everything:
            self._faults.keep_only(models)
        return models

    def _all_models(self) -> AbstractSet[str]:
        return {
            *self.listings.aspired.models,
            *self.observation.models(),
            *self.journal.models(),
            *self.announcer.models,
            *self._due.models(),
            *map(str, self.steps.backoff.models()),
        }

    async def _decide(self, models: frozenset[str], *, recording: bool) -> bool:
        """Plan some models, and start their due steps.

        ``recording`` says whether the ledger can be read and takes writes.

        Returns:
            Whether some of the models have changed meanwhile: these are not planned yet.

        Raises:
            TargetUnreachableError: The gateway does not answer.
        """
        await self._heal()
        await self._record(models, recording=recording)
        await self._descriptions.publish(models)
        if self.journal.trouble is None:  # else this pass would wait for it twice
            # Publishing takes a moment: read the writes made meanwhile.
            await self.journal.refresh(self.artifacts.values(), self.listings.own)
        published, models = models, self.changes.unchanged(models)
        due, planned = list[Action](), set[str]()
        async for model in with_pauses(models):
            actions: tuple[Action, ...] = ()
            with self._faults.isolate(model, "plan"):
                actions = plan(self._snapshots.of(model))
                planned.add(model)
            self._due.put(model, actions)
            due += actions
        self.steps.forget_idle([*due, *self._due.requested().values()], planned)
        begun = self._due.begin(self.steps.start)
        await self._descriptions.publish(
            {one.model for one in begun if isinstance(one, Fetch | BuildEnvironment)}
        )
        return models != published

    async def _heal(self) -> None:
        """Drop damaged copies, while the registry answers and can replace them."""
        node = self.observation.heard
        if node is None or not self.listings.count or self.listings.error is not None:
            return
        if not (node.damaged or self._store_unhealed):
            return
        aspired, view = self.listings.aspired, self.journal.view
        await self._copies.heal(node.damaged, aspired, view)
        # Once per pass over all models: it costs as much, and a copy that must stay does so long.
        if self._store_unhealed and not self.listings.applied.missing:
            present = await self.disk_room.ask()  # news does not name the residents
            if present is not None:
                await self._copies.heal_store(present, aspired, view)
                self._store_unhealed = False

    async def _record(self, models: AbstractSet[str], *, recording: bool) -> None:
        """Record changes by the gateway itself, and those not recorded when they were made.

        A later pass records the models that the ledger does not take now.
        """
        self._unrecorded |= dict.fromkeys(sorted(models))
        for model in tuple(self._unrecorded) if recording else ():
            taken = True
            with self._faults.isolate(model, "recording"):
                taken = await self._record_model(model)
            del self._unrecorded[model]
            if not taken:
                # Behind the others: a refused write of one model must not delay them.
                # Not on with the others: each call of a dead database takes long.
                self._unrecorded[model] = None
                return

    async def _record_model(self, model: str) -> bool:
        """Record one model's changes; return whether the ledger took all of them."""
        node = self.observation.state_of(model)
        return (
            node is not None
            and await self._record_rollbacks(node, self.journal.view_of(model))
            and await self._end_outdated_rejections(model, node)
            and await self.journal.adopt(
                tuple(self.observation.active_of(model).values()),
                self.observation.generation,
                self._is_moving,
            )
            and await self.journal.note_aspired(self.listings.aspired, model)
        )

    async def _end_outdated_rejections(self, model: str, node: NodeState) -> bool:
        """End rejections of versions that failed under other libraries than the gateway's.

        Returns whether the ledger recorded that.
        """
        for found in tuple(self.journal.view_of(model).rejections.values()):
            if not found.is_outdated(node.libraries):
                continue
            version, digest = found.version, found.digest
            if not await self.journal.decide(
                model,
                partial(LedgerView.without_rejection, model=model, version=version, digest=digest),
                self.ledger.end_rejection,
                *(model, version, digest),
                ended_by=Initiator.RESTART,
            ):
                return False
            self.steps.try_now(model)
            _log.info("rejection.ended", model=model, version=version)
        return True

    async def _record_rollbacks(self, node: NodeState, view: LedgerView) -> bool:
        """Record the gateway's automatic rollbacks; return whether the ledger took them.

        They may be older than this process.
        """
        for held in unrecorded(node, view):
            if ("activate", held.model, held.alias) in self.steps.busy:
                continue  # the activation that was rolled back is being recorded
            aspired, built = self.listings.aspired, self.environment_step.built.keys()
            own = runs_in_own(aspired, built, held.model, held.version or 0, held.digest)
            view = self.journal.view_of(held.model)
            done = rollback_of(held, view, own=own)
            if not await self.journal.decide(
                held.model,
                partial(LedgerView.with_rollback, done=done),
                self.ledger.rolled_back,
                done,
            ):
                return False
            _log.warning(
                "rollback.recorded",
                model=held.model,
                alias=held.alias,
                version=held.to_version,
                rejected=held.version,
                reason=held.reason,
            )
        return True

    def _is_moving(self, active: ActiveAlias) -> bool:
        of = active.alias_ref
        leaving = ("retire", *of)  # recorded as retired, and still active on the gateway
        going = leaving in self.steps.busy or self.steps.backoff.waits(leaving)
        return going or ("activate", *of) in self.steps.busy
