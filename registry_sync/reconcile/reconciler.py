"""The spine: list → plan → fetch → verify → stage → activate → record, each model on its own.

One loop decides; every step that takes time is a task of its own, so that a slow fetch holds up no
other model's promotion. A pass decides about the models of which something has changed: a listing,
the gateway's state, the ledger, a step that ended, a time that has come. What a change costs is
what its model has, not what the registry has. All models are looked at after a start, and now and
then, in case a change was missed. Nothing is resumed: a killed process starts by looking.
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
"""How often all models are looked at, in case a change was missed. With 5,000 models this takes
0.3 to 0.5 s: a thousandth of a core, which no change of a model has to pay for."""
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
        self._looked_at_all = -math.inf
        self._store_damaged: dict[str, str] = {}
        self._store_unhealed = False
        self._libraries: str | None = None

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow registry and gateway until cancelled; then nothing of it goes on."""
        await self._remember()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run_forever("observation", self.observation.follow))
                group.create_task(run_forever("reconciliation", self._decide_forever))
        finally:
            await self._hints.close()
            await self.steps.end()

    async def _remember(self) -> None:
        """Begin with what the node itself knows, so that the registry may be down."""
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
            except Exception:  # noqa: BLE001 - the spine outlives its own faults, and looks again
                _log.exception("reconciliation.failed")
            self.changes.end_pass()
            next_at = self.steps.next_try_at()
            wait_s = _LONGEST_SLEEP_S if next_at is None else max(0.01, next_at - self.clock())
            await self.changes.wait(min(wait_s, _LONGEST_SLEEP_S))

    async def reconcile(self) -> None:
        """One pass: record what is, tell the gateway, decide, and start what is due.

        What changes while the gateway is told is decided on once that has been told too, a few
        times: after that, the next pass does.
        """
        for _ in range(_ROUNDS):
            if not await self._pass():
                return

    async def _pass(self) -> bool:
        """Decide about what has changed; return whether some of it has changed again meanwhile."""
        # First: a time that has come and stays in the list would be slept for again and again.
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
        """Return the models to decide about: all of them after a start, and now and then."""
        damaged, libraries = self.store.damaged(), node.libraries
        is_time = time.monotonic() - self._looked_at_all > _ALL_EVERY_S
        news = damaged != self._store_damaged or libraries != self._libraries
        everything = self.changes.everything or is_time or news
        if everything:
            self._store_damaged, self._libraries = damaged, libraries
            self._store_unhealed = bool(damaged)
            self._looked_at_all = time.monotonic()
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
        """Decide about some models. ``recording``: the ledger is read, and takes what is written.

        Returns:
            Whether some of them have changed meanwhile: these are not decided about yet.

        Raises:
            TargetUnreachableError: The gateway does not answer.
        """
        await self._heal()
        await self._record(models, recording=recording)
        await self._descriptions.publish(models)
        if self.journal.trouble is None:  # else it would be waited for twice
            # Telling the gateway takes a moment, and what was written meanwhile counts.
            await self.journal.refresh(self.artifacts.values(), self.listings.own)
        told, models = models, self.changes.unchanged(models)
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
        return models != told

    async def _heal(self) -> None:
        """Drop copies that are damaged, so that they come again; what goes may not come back."""
        node = self.observation.heard
        if node is None or not self.listings.count or self.listings.error is not None:
            return
        if not (node.damaged or self._store_unhealed):
            return
        aspired, view = self.listings.aspired, self.journal.view
        await self._copies.heal(node.damaged, aspired, view)
        # Once for each look at everything: it costs as much, and what has to stay stays for long.
        if self._store_unhealed and not self.listings.applied.missing:
            present = await self.disk_room.ask()  # who is resident is told by no news
            if present is not None:
                await self._copies.heal_store(present, aspired, view)
                self._store_unhealed = False

    async def _record(self, models: AbstractSet[str], *, recording: bool) -> None:
        """Record what the gateway has done by itself, or what was not recorded when it was done.

        What the ledger does not take now, the next pass records in which the ledger does.
        """
        self._unrecorded |= dict.fromkeys(sorted(models))
        for model in tuple(self._unrecorded) if recording else ():
            taken = True
            with self._faults.isolate(model, "recording"):
                taken = await self._record_model(model)
            del self._unrecorded[model]
            if not taken:
                # Behind the others: what the ledger refuses of one model holds up none of them.
                # Asking a dead database for each of them takes long.
                self._unrecorded[model] = None
                return

    async def _record_model(self, model: str) -> bool:
        """Record what is news of one model; return whether the ledger took all of it."""
        node = self.observation.state_of(model)
        return (
            node is not None
            and await self._record_rollbacks(node, self.journal.view_of(model))
            and await self._retry_beside_other_libraries(model, node)
            and await self.journal.adopt(
                tuple(self.observation.active_of(model).values()),
                self.observation.generation,
                self._is_moving,
            )
            and await self.journal.note_aspired(self.listings.aspired, model)
        )

    async def _retry_beside_other_libraries(self, model: str, node: NodeState) -> bool:
        """Try once more what failed to load under other libraries than the gateway has now.

        Returns:
            Whether the ledger took that.
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
        """Record the automatic rollbacks of the gateway, and return whether the ledger took them.

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
        leaving = ("retire", *of)  # was recorded as taken away, and is on the gateway still
        going = leaving in self.steps.busy or self.steps.backoff.waits(leaving)
        return going or ("activate", *of) in self.steps.busy
