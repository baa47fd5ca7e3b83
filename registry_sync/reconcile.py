"""The spine: list → plan → fetch → verify → stage → activate → record, each model on its own.

One loop decides; every step that takes time is a task of its own, so that a slow fetch holds up
nobody else's promotion. Whatever ends wakes the loop, which decides again from what is. Nothing
is resumed: a killed process starts by looking.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import assert_never

import structlog

from gateway.control_contract import ActiveAlias, NodeState
from registry_sync.actions import (
    Action,
    Activate,
    BuildEnvironment,
    Fetch,
    ReleaseDigest,
    ReleaseHold,
    RetireAlias,
    RetireStandby,
    Stage,
    Subject,
    Urgency,
    subject_of,
)
from registry_sync.announcer import Announcer
from registry_sync.arrival import Arrival, Stopped
from registry_sync.artifact_store import ArtifactStore
from registry_sync.aspired import Aspired
from registry_sync.by_rule import rollback_of, unrecorded
from registry_sync.catalogue import Known, Trouble
from registry_sync.copies import Copies
from registry_sync.damaged_files import DamagedFiles
from registry_sync.dependencies import OnMismatch
from registry_sync.disk_room import DiskRoom, RoomLimits
from registry_sync.environments import BuildsEnvironments
from registry_sync.errors import SyncError
from registry_sync.hints import Hints
from registry_sync.holds_file import HoldsFile
from registry_sync.intake import Intake, Stopwatch
from registry_sync.journal import Journal
from registry_sync.ledger import Ledger
from registry_sync.listings import Listings
from registry_sync.observation import Observation
from registry_sync.plan import plan
from registry_sync.preparation import Preparation
from registry_sync.promotion import Promotion
from registry_sync.records import (
    AskedBy,
    Freeze,
    Hold,
    LedgerView,
    ends_by_operator,
)
from registry_sync.remembered import Remembered
from registry_sync.serving_target import ServingTarget, TargetUnreachableError
from registry_sync.signature_change import OnSignatureChange
from registry_sync.signatures import Signatures
from registry_sync.sources.source import Source
from registry_sync.standing import aspired_version, runs_in_own
from registry_sync.steps import Steps
from registry_sync.threads import Threads
from registry_sync.why import Why, explain, signature_change
from registry_sync.world import World

_LONGEST_SLEEP_S = 5.0
_MODELS_LOOKED_AT = 10
_BRINGING = frozenset({"fetch", "environment"})
_BRINGING_UP = frozenset({"stage", "activate"})
_UNHEARD = NodeState(node_id="", boot_id="", seq=0, generation=0)
"""A gateway that has never answered: as far as is known, it serves nothing."""
_log = structlog.get_logger("registry_sync.reconcile")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the spine waits for, in seconds; how often it asks for everything, in polls; and `room`.

    ``room`` says when bytes may go.
    """

    stage_timeout_s: float = 600.0
    thorough_poll_every: int = 10
    room: RoomLimits = field(default_factory=RoomLimits)


@dataclass(frozen=True, slots=True)
class Trial:
    """A hold of which nobody knows yet whether it can serve.

    Attributes:
        before: What held the alias before, and holds it again if it cannot; None: nothing did.
    """

    hold: Hold
    before: Hold | None


class Reconciler:
    """Follows the registry on one node. Event loop only; `run` does the work.

    Attributes:
        trials: Holds whose outcome an operator waits for, by model and alias.
    """

    def __init__(
        self,
        *,
        source: Source,
        intake: Intake,
        store: ArtifactStore,
        ledger: Ledger,
        target: ServingTarget,
        threads: Threads,
        environments: BuildsEnvironments,
        boot_id: str,
        jitter: Callable[[], float],
        limits: Limits,
        require_digest: bool = False,
        on_mismatch: OnMismatch = OnMismatch.WARN,
        on_signature_change: OnSignatureChange = OnSignatureChange.WARN,
        holds_file: HoldsFile | None = None,
        damaged_files: DamagedFiles | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store.

        ``clock`` gives epoch seconds, ``jitter`` numbers from 0 to 1; ``holds_file`` is the one
        that the ledger writes; ``damaged_files`` are told to operators; ``on_mismatch`` says what
        other libraries than ours mean, ``on_signature_change`` what other inputs and outputs do.
        """
        self.store = store
        self.damaged_files = damaged_files or DamagedFiles(clock)
        self.ledger = ledger
        self.threads = threads
        self.clock = clock
        self.boot_id = boot_id
        self._require_digest = require_digest
        self.journal = Journal(ledger, threads, holds_file)
        self.observation = Observation(target, on_news=self.wake)
        self.announcer = Announcer(target, writer=boot_id)
        self.listings = Listings(
            source=source,
            threads=threads,
            store=store,
            ledger=ledger,
            journal=self.journal,
            thorough_every=limits.thorough_poll_every,
            clock=clock,
        )
        self.arrival = Arrival(
            source=source,
            intake=intake,
            ledger=ledger,
            journal=self.journal,
            listings=self.listings,
            threads=threads,
            make_room=self._make_room,
            clock=clock,
        )
        self.disk_room = DiskRoom(
            target=target,
            observation=self.observation,
            announcer=self.announcer,
            arrival=self.arrival,
            listings=self.listings,
            journal=self.journal,
            store=store,
            threads=threads,
            next_decision=self.next_decision,
            wake=self.wake,
            limits=limits.room,
            clock=clock,
        )
        self.preparation = Preparation(
            environments=environments,
            on_mismatch=on_mismatch,
            ledger=ledger,
            journal=self.journal,
            threads=threads,
            clock=clock,
        )
        self._copies = Copies(
            arrival=self.arrival, store=store, threads=threads, clock=clock, jitter=jitter
        )
        self._promotion = Promotion(
            target=target,
            observation=self.observation,
            arrival=self.arrival,
            copies=self._copies,
            ledger=ledger,
            journal=self.journal,
            as_due_now=self._as_due_now,
            is_due_now=self._is_due_now,
            stage_timeout_s=limits.stage_timeout_s,
            clock=clock,
        )
        self._remembered = Remembered()
        self._signatures = Signatures(on_signature_change)
        self._signature_changes: dict[tuple[str, str], str] = {}
        self._hints = Hints(self._look)
        self.steps = Steps(
            do=self._do,
            record=lambda attempt: self.journal.write(ledger.attempted, attempt),
            on_end=self.wake,
            may_overtake=self._may_overtake,
            clock=clock,
            jitter=jitter,
        )
        self.trials: dict[tuple[str, str], Trial] = {}
        self._awake = asyncio.Event()
        self._decided = asyncio.Event()
        self._deciding = False

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow registry and gateway until cancelled; then nothing of it goes on."""
        await self._remember()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.observation.follow())
                group.create_task(self._decide_forever())
        finally:
            await self._hints.close()
            await self.steps.end()

    def wake(self) -> None:
        """Decide again, now."""
        self._awake.set()

    async def _decide_forever(self) -> None:
        while True:
            self._awake.clear()
            self._deciding = True
            try:
                await self.reconcile()
            except TargetUnreachableError as error:
                self.observation.suspect(error.reason)
            except SyncError as error:
                _log.error("reconcile.failed", reason=error.reason)
            except Exception:  # noqa: BLE001 - the spine outlives its own faults, and looks again
                _log.exception("reconcile.failed")
            self._deciding = False
            decided, self._decided = self._decided, asyncio.Event()
            decided.set()
            await self._sleep()

    async def _sleep(self) -> None:
        next_at = self.steps.next_try_at()
        wait_s = _LONGEST_SLEEP_S if next_at is None else max(0.01, next_at - self.clock())
        try:
            async with asyncio.timeout(min(wait_s, _LONGEST_SLEEP_S)):
                await self._awake.wait()
        except TimeoutError:
            return

    async def reconcile(self) -> None:
        """One pass: record what is, tell the gateway, decide, and start what is due."""
        completed = self.steps.completed()
        answered = await self.journal.refresh(self.arrival.artifacts.values(), self.listings.own)
        if self.journal.answered:
            await self.listings.recall()
        node = self.observation.node
        if node is None or self.observation.unreachable:
            return
        self.disk_room.note(node)
        if self.listings.count and self.listings.error is None:  # else what goes may not come back
            aspired, view = self.listings.aspired, self.journal.view
            await self._copies.heal(node.damaged, aspired, view)
            if not self.listings.settled.missing:  # else it may be gone for good by the next one
                await self._copies.heal_store(node, aspired, view)
        if answered:
            await self._record_rollbacks(node)
            await self._retry_beside_other_libraries(node)
            await self.journal.adopt(node, self._is_moving)
        await self.journal.note_aspired(self.listings.aspired)
        await self._publish()
        if self.journal.trouble is None:  # else it would be waited for twice
            # Telling the gateway takes a moment, and what was written meanwhile counts.
            await self.journal.refresh(self.arrival.artifacts.values(), self.listings.own)
        actions = plan(self._world())
        self.steps.hold_against(completed, actions)
        self.steps.forget_idle(actions)
        for action in actions:
            self.steps.start(action)
        await self._publish()

    async def _remember(self) -> None:
        """Begin with what the node itself knows, so that the registry may be down."""
        self.arrival.artifacts = await self.threads.ledger(self.store.all)
        await self.preparation.look(self.arrival.artifacts.values())
        await self.journal.refresh(self.arrival.artifacts.values(), None)
        await self.listings.recall()

    def _world(self) -> World:
        self._signatures.artifacts = self.arrival.artifacts
        return World(
            aspired=self.listings.aspired,
            listings=self.listings.count,
            node=self.observation.node or _UNHEARD,
            ledger=self.journal.view,
            stored=self.arrival.artifacts.keys(),
            proved=self.observation.proved,
            require_digest=self._require_digest,
            wished_by=self.listings.wished_by(),
            environments=self.preparation.built.keys(),
            refused=self.preparation.refused(self.arrival.artifacts),
            signature_change=self._signatures.between,
            refuses_signatures=self._signatures.on_change is OnSignatureChange.REFUSE,
            rollback_since=self.clock() - self.disk_room.limits.rollback_window_s,
            failure=self._failure,
        )

    def _failure(self, subject: Subject) -> tuple[Hashable, str] | None:
        found = self.steps.backoff.get(subject)
        return (found.goal, found.reason) if found else None

    async def _make_room(self, folder: Path, total_bytes: int) -> None:
        await self.disk_room.make(folder, total_bytes)

    # --- list -------------------------------------------------------------------------------------

    async def poll(self, asked_by: str = AskedBy.POLL, *, thorough: bool = False) -> None:
        """List the registry; what it says counts from the next pass on."""
        if await self.listings.poll(asked_by, thorough=thorough):
            await self._release_rejections()
            for action in await self.arrival.look_at_quarantined():
                self.steps.start(action)
        self.wake()

    def hint(self, model: str | None, asked_by: str) -> None:
        """Look at a model soon, since it may have changed; None: at everything. Returns at once.

        Hints coalesce. One that is wrong, or lost, does no harm: what counts is what is found.
        """
        self._hints.add(model, asked_by)

    async def _look(self, models: frozenset[str] | None, asked_by: str) -> None:
        """Look at what was hinted at: at each of a few models, else at everything."""
        if models is None or len(models) > _MODELS_LOOKED_AT:
            await self.poll(asked_by, thorough=True)
            return
        for model in sorted(models):
            await self.listings.look(model, asked_by)
            self.try_now(model)
        await self._release_rejections()
        self.wake()

    async def _release_rejections(self) -> None:
        """Try once more what was rejected, where the registry has moved an alias there anew."""
        for model, version in tuple(self.listings.pointed_anew):
            if await self.journal.write(self.ledger.release_rejection, model, version):
                self.listings.pointed_anew.discard((model, version))
                _log.info("rejection.released", model=model, version=version)

    async def _retry_beside_other_libraries(self, node: NodeState) -> None:
        """Try once more what failed to load under other libraries than the gateway has now."""
        for found in tuple(self.journal.view.rejections.values()):
            if not found.is_outdated(node.libraries):
                continue
            which = (found.model, found.version, found.digest)
            if not await self._release_rejection(*which, released_by=AskedBy.RESTART):
                return  # the next pass tries again
            self.steps.try_now(found.model)
            _log.info("rejection.released", model=found.model, version=found.version)

    async def _release_rejection(
        self, model: str, version: int, digest: str | None = None, *, released_by: str
    ) -> bool:
        return await self.journal.decide(
            partial(LedgerView.without_rejection, model=model, version=version, digest=digest),
            self.ledger.release_rejection,
            *(model, version, digest),
            released_by=released_by,
        )

    # --- tell -------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        node = self.observation.node
        if node is None:
            return
        aspired = self.listings.aspired
        remembered: AbstractSet[str] | None = None
        if not self.listings.complete:
            aspired, remembered = self._remembered.beside(aspired, self.journal.view)
            if not node.partial_catalogues and not self._is_better(aspired, node):
                return
        await self.announcer.publish(
            node,
            aspired,
            self.journal.view,
            self._known(),
            listed_at=self.listings.listed_at,
            source_error=self.listings.error,
            remembered=remembered,
        )

    def _is_better(self, aspired: Aspired, node: NodeState) -> bool:
        """Whether a gateway that takes every catalogue for complete had better have this one."""
        if self.listings.error is None or not aspired.models:
            return False  # the first listing is on its way, or nothing is known
        # The process before us knew the registry's list, or the ledger's.
        return self.journal.answered or node.catalogue_writer in (None, self.boot_id)

    def _known(self) -> Known:
        troubles = {
            (str(subject[1]), int(subject[2])): Trouble(
                failure.reason, failure.retry_at, failure.settling
            )
            for subject, failure in self.steps.backoff.failures().items()
            if subject[0] in _BRINGING and self.steps.backoff.waits(subject, goal=failure.goal)
        }
        doing = self.steps.doing()
        bringing = (action for action in doing if isinstance(action, Fetch | BuildEnvironment))
        changes, refused = self._compare_signatures()
        return Known(
            descriptions=self.preparation.described(self.arrival.artifacts),
            fetching={(action.model, action.version) for action in bringing},
            troubles=troubles,
            environments=self.preparation.built,
            signature_changes=changes,
            refused_signatures=refused,
            damaged=self.store.damaged(),
            failing=self._failing(),
        )

    def _failing(self) -> dict[tuple[str, str], str]:
        """Say of aliases whose version is here, and does not come up, what failed of it last."""
        world = self._world()
        active = {(one.model, one.alias): one for one in world.node.active}
        failures = self.steps.backoff.failures()
        models = {str(one[1]) for one in failures if one[0] in _BRINGING_UP}
        found = {
            (name, alias): explain(world, name, alias, active.get((name, alias)))
            for name in models
            if (model := world.aspired.models.get(name)) is not None
            for alias in model.aliases
        }
        return {key: one.reason for key, one in found.items() if one.why is Why.FAILING}

    def _compare_signatures(self) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
        """Say what aliases change for their callers, and what is refused; log what is new of it."""
        changes: dict[tuple[str, str], str] = {}
        refusals: dict[tuple[str, str], str] = {}
        if self._signatures.on_change is not OnSignatureChange.IGNORE:
            self._collect_signature_changes(changes, refusals)
        told = {**changes, **refusals}
        for (model, alias), reason in told.items():
            if self._signature_changes.get((model, alias)) != reason:
                _log.warning("signature.changed", model=model, alias=alias, reason=reason)
        self._signature_changes = told
        return changes, refusals

    def _collect_signature_changes(
        self, changes: dict[tuple[str, str], str], refusals: dict[tuple[str, str], str]
    ) -> None:
        world = self._world()
        for active in world.node.active:
            model, alias = active.model, active.alias
            hold = world.ledger.holds.get((model, alias))
            wish = world.wish(model, alias, hold, aspired_version(world.aspired, model, alias))
            if wish and (refused := world.why_refused_signature(active, wish)):
                refusals[model, alias] = refused
            if change := signature_change(world, active, wish):
                changes[model, alias] = change

    def _as_due_now(self, action: Activate) -> Activate | Stage | None:
        """Return what would be decided now to the same end; None: the alias moved, or is held.

        Its standby may be another one, or one that has still to be staged: aliases that move to one
        version share a standby, which ends with the first of them to be activated, and the next
        ones are given a new one.
        """
        wanted = (action.model, action.alias, action.version, action.digest)
        return next(
            (
                one
                for one in plan(self._world())
                if isinstance(one, Activate | Stage)
                and (one.model, one.alias, one.version, one.digest) == wanted
            ),
            None,
        )

    def _is_due_now(self, action: RetireAlias | ReleaseHold) -> bool:
        """Whether it would be decided now, too: an operator may have decided otherwise since."""
        return action in plan(self._world())

    def _may_overtake(self, doing: Action, action: Action) -> bool:
        """Whether it is a comparison whose outcome nobody wants now that other bytes are due.

        It may fetch a whole artifact, and a rollback must not wait for that. An activation that has
        asked the gateway ends by itself, and soon. A fetch of a creation that is gone is over, too.
        """
        if isinstance(doing, Fetch) and isinstance(action, Fetch):
            return action.creation not in (None, doing.creation)
        if not (isinstance(doing, Activate) and isinstance(action, Activate)):
            return False
        same = (doing.version, doing.digest) == (action.version, action.digest)
        return not same and self._promotion.is_comparing(doing)

    async def _record_rollbacks(self, node: NodeState) -> None:
        """Record what the gateway did by rule, whoever was there to see it."""
        for held in unrecorded(node, self.journal.view):
            if ("activate", held.model, held.alias) in self.steps.busy:
                continue  # what it went back from is being recorded
            aspired, built = self.listings.aspired, self.preparation.built.keys()
            own = runs_in_own(aspired, built, held.model, held.version or 0, held.digest)
            standing = self.journal.view.holds.get((held.model, held.alias))
            done = rollback_of(held, standing, self.journal.view, own=own)
            if not await self.journal.decide(
                partial(LedgerView.with_rollback, done=done), self.ledger.rolled_back, done
            ):
                return  # the next pass tries again
            _log.warning(
                "rollback.recorded",
                model=held.model,
                alias=held.alias,
                version=held.to_version,
                rejected=held.version,
                reason=held.reason,
            )

    # --- do ---------------------------------------------------------------------------------------

    def _is_moving(self, active: ActiveAlias) -> bool:
        of = (active.model, active.alias)
        leaving = ("retire", *of)  # was recorded as taken away, and is on the gateway still
        going = leaving in self.steps.busy or self.steps.backoff.waits(leaving)
        return going or ("activate", *of) in self.steps.busy

    async def _do(self, action: Action, watch: Stopwatch) -> Stopped | None:
        match action:
            case Fetch():
                return await self.arrival.fetch(action, watch)
            case BuildEnvironment():
                return await self._build(action, watch)
            case Stage():
                return await self._promotion.stage(action, watch)
            case Activate():
                return await self._promotion.activate(action, watch)
            case RetireAlias():
                return await self._promotion.retire(action)
            case RetireStandby():
                return await self._promotion.retire_standby(action)
            case ReleaseHold():
                return await self._follow_again(action)
            case ReleaseDigest():
                return await self._promotion.release(action)
            case _:
                assert_never(action)

    async def _build(self, action: BuildEnvironment, watch: Stopwatch) -> Stopped | None:
        """Build a version's own environment, from bytes that are what they were."""
        artifact = self.arrival.artifacts.get(action.digest)
        if artifact is not None:
            damage = await self._copies.lost(action.digest, self.threads.check_stopping)
            if damage is not None:
                return Stopped(damage)
        return await self.preparation.build(action, artifact, watch)

    async def _follow_again(self, action: ReleaseHold) -> Stopped | None:
        """End a hold, unless another decision has replaced it since, or it is due no more."""
        if not self._is_due_now(action):
            return Stopped("the alias is no longer held so, or no longer to follow the registry")
        if await self._release_hold(action.hold, AskedBy.POLL):
            return None
        return Stopped(self.journal.trouble or "the ledger did not take it")

    # --- for operators ----------------------------------------------------------------------------

    async def hold(self, hold: Hold) -> bool:
        """Keep an alias where an operator wants it, from now on; whether that is recorded."""
        written = await self.journal.decide(
            lambda view: view.with_hold(hold), self.ledger.hold, hold
        )
        self.steps.backoff.succeeded(("activate", hold.model, hold.alias))
        # What takes down what serves pauses for up to an hour: who decides does not wait for that.
        self.steps.backoff.succeeded(("stage", hold.model, hold.target_version, hold.target_digest))
        self.wake()
        return written

    async def replace_hold(self, hold: Hold, before: Hold) -> bool:
        """Hold an alias as ``before`` again, if it is ``hold`` that holds it.

        What another operator has decided since stays.

        Returns:
            Whether the ledger answered.
        """
        written = await self.journal.decide(
            lambda view: view.with_hold(before), self.ledger.hold, before, instead_of=hold
        )
        self.wake()
        return written

    async def unhold(self, hold: Hold) -> bool:
        """Let an alias follow the registry again, if it is this that holds it.

        Returns:
            Whether the ledger answered.
        """
        written = await self._release_hold(hold, AskedBy.OPERATOR)
        self.wake()
        return written

    async def _release_hold(self, hold: Hold, released_by: str) -> bool:
        def change(view: LedgerView) -> LedgerView:
            followed = view.without_hold(hold.model, hold.alias)
            if not ends_by_operator(hold, released_by):
                return followed
            return followed.without_live_rejection(hold.model, hold.aspired_version)

        return await self.journal.decide(change, self.ledger.release_hold, hold, released_by)

    async def retry(self, model: str, version: int) -> bool:
        """Let a rejected version be tried again, now; whether that is recorded."""
        written = await self._release_rejection(model, version, released_by=AskedBy.OPERATOR)
        self.try_now(model)
        return written

    async def freeze(self) -> bool:
        """Let no alias follow the registry; when it returns True, none does any more."""
        freeze = Freeze(AskedBy.OPERATOR, self.clock())
        if not await self.journal.decide(
            lambda view: view.with_freeze(freeze), self.ledger.freeze, freeze
        ):
            return False
        await self.in_force()
        return True

    async def in_force(self) -> None:
        """Wait until no alias is moved any more by what was decided before.

        Whatever begins later is decided on again just before the gateway is asked for it.
        """
        await self.next_decision()
        await self._promotion.rest()

    async def unfreeze(self) -> bool:
        """Let aliases follow the registry again; whether that is recorded."""
        written = await self.journal.decide(
            lambda view: view.with_freeze(None), self.ledger.unfreeze, AskedBy.OPERATOR
        )
        self.wake()
        return written

    def look(self) -> World:
        """Return what the next decision is made of, as far as is known now."""
        return self._world()

    def bring(self, model: str, version: int, accepts: str | None = None) -> bool:
        """Fetch and check a version now; whether that is under way: else there is no slot yet.

        ``accepts`` is the digest that an operator accepts; None: whichever is expected.
        """
        subject = ("fetch", model, version)
        if subject not in self.steps.busy:
            self.steps.backoff.succeeded(subject)
            of = self._world().creation_of(model, version)
            by, urgency = AskedBy.OPERATOR, Urgency.WANTED
            fetch = Fetch(model, version, urgency, by, creation=of, accepts=accepts)
            self.steps.start(fetch)
        return any(
            isinstance(one, Fetch) and one.accepts == accepts and subject_of(one) == subject
            for one in self.steps.doing()
        )

    def try_now(self, model: str) -> None:
        """Let nothing of a model wait for its next try."""
        self.steps.try_now(model)
        self.wake()

    async def next_decision(self) -> None:
        """Wait until a pass that begins now, or later, is over."""
        if self._deciding:
            await self._decided.wait()  # that one began before
        self.wake()
        await self._decided.wait()

    async def any_decision(self) -> None:
        """Wait until a pass is over, without asking for one: there is one after every change."""
        await self._decided.wait()
