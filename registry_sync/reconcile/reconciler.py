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
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, assert_never

import structlog

from gateway.contract import ActiveAlias, CatalogueModel, NodeState
from gateway.system.logs import remember_location
from registry_sync.artifacts import ArtifactStore, BuildsEnvironments, OnMismatch, StoredArtifact
from registry_sync.domain import (
    AskedBy,
    Aspired,
    AspiredModel,
    Hold,
    LedgerView,
    OnSignatureChange,
    PromotionWindows,
    StandingChange,
    aspired_version,
    window_state,
)
from registry_sync.errors import SyncError
from registry_sync.ledger import HoldsFile, Journal, Ledger
from registry_sync.planning import (
    Action,
    Activate,
    Begin,
    BuildEnvironment,
    Due,
    Fetch,
    Known,
    ReleaseDigest,
    ReleaseHold,
    Remembered,
    RetireAlias,
    RetireStandby,
    Stage,
    Subject,
    Trouble,
    Urgency,
    Why,
    World,
    describe_model,
    explain,
    plan,
    rollback_of,
    runs_in_own,
    signature_change,
    subject_of,
    unrecorded,
)
from registry_sync.reconcile.disk_budget import DiskRoom, RoomLimits
from registry_sync.reconcile.gateway import (
    Announcer,
    Listed,
    Observation,
    ServingTarget,
    TargetUnreachableError,
)
from registry_sync.reconcile.hints import Hints
from registry_sync.reconcile.registry_view import Listings
from registry_sync.reconcile.signature_cache import Signatures
from registry_sync.reconcile.steps import (
    Arrival,
    Completed,
    Copies,
    Intake,
    Preparation,
    Promotion,
    Steps,
    Stopped,
    Stopwatch,
)
from registry_sync.sources import Source
from registry_sync.system import DamagedFiles, Faults, Threads, without_end

_LONGEST_SLEEP_S = 5.0
_MODELS_LOOKED_AT = 10
_ALL_EVERY_S = 300.0
"""How often all models are looked at, in case a change was missed. With 5,000 models this takes
0.3 to 0.5 s: a thousandth of a core, which no change of a model has to pay for."""
_ROUNDS = 5
_MODELS_AT_A_TURN = 20
"""Of which one takes a few tenths of a millisecond."""
_BRINGING = frozenset({"fetch", "environment"})
_BRINGING_UP = frozenset({"stage", "activate"})
_DELAYS = frozenset({Why.FAILING, Why.AWAITS_WINDOW})
_UNHEARD = NodeState(node_id="", boot_id="", seq=0, generation=0)
"""A gateway that has never answered: as far as is known, it serves nothing."""
_log = structlog.get_logger("registry_sync.reconcile")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the spine waits for, in seconds; ``room`` says when bytes may go.

    Attributes:
        windows: When the registry may promote an alias that is active; empty: always.
    """

    stage_timeout_s: float = 600.0
    room: RoomLimits = field(default_factory=RoomLimits)
    windows: PromotionWindows = ()


class Reconciler:
    """Follows the registry on one node. Event loop only; `run` does the work."""

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
        self._windows = limits.windows
        self.journal = Journal(ledger, threads, holds_file, on_news=self._changed)
        self.observation = Observation(target, on_news=self._heard)
        self.announcer = Announcer(target, writer=boot_id)
        self.listings = Listings(
            source=source,
            threads=threads,
            store=store,
            ledger=ledger,
            journal=self.journal,
            clock=clock,
            on_news=self._changed,
        )
        self.arrival = Arrival(
            source=source,
            intake=intake,
            ledger=ledger,
            journal=self.journal,
            listings=self.listings,
            threads=threads,
            make_room=self._make_room,
            on_here=self._changed,
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
            on_moved=self._changed,
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
            arrival=self.arrival,
            store=store,
            threads=threads,
            on_dropped=self.wake,
            clock=clock,
            jitter=jitter,
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
        self._published: Mapping[str, AspiredModel] | None = None
        self._signatures = Signatures(on_signature_change)
        self._signature_changes: dict[str, dict[str, str]] = {}
        self._hints = Hints(self._look)
        self.steps = Steps(
            do=self._do,
            record=lambda attempt: self.journal.note(ledger.attempted, attempt),
            on_end=lambda model: self._changed({model}),
            may_overtake=self._may_overtake,
            clock=clock,
            jitter=jitter,
        )
        self._due = Due()
        self._asked: dict[Subject, Fetch] = {}
        self._unplanned: set[str] = set()
        self._planning: AbstractSet[str] = frozenset()
        self._unrecorded: dict[str, None] = {}
        self._faults = Faults()
        self._everything = True
        self._looked_at_all = -math.inf
        self._store_damaged: dict[str, str] = {}
        self._store_unhealed = False
        self._libraries: str | None = None
        self._awake = asyncio.Event()
        self._decided = asyncio.Event()
        self._deciding = False

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow registry and gateway until cancelled; then nothing of it goes on."""
        await self._remember()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(without_end("observation", self.observation.follow))
                group.create_task(without_end("reconciliation", self._decide_forever))
        finally:
            await self._hints.close()
            await self.steps.end()

    def wake(self) -> None:
        """Decide again about everything, now."""
        self._changed(None)

    def _changed(self, models: AbstractSet[str] | None) -> None:
        """Decide again about some models, now, or with None about all."""
        if models is None:
            self._everything = True
        else:
            self._unplanned |= models
        self._awake.set()

    def _heard(self, models: AbstractSet[str] | None) -> None:
        """Decide again about what the gateway tells something else of than before."""
        heard = self.observation.heard
        libraries = heard.libraries if heard else None
        if libraries != self._libraries:
            self._libraries, models = libraries, None
        self._changed(models)

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
        self._unplanned |= self.steps.woken()
        complete = await self.journal.refresh(self.arrival.artifacts.values(), self.listings.own)
        recording = complete and self.journal.trouble is None
        if self.journal.answered:
            await self.listings.recall()
        if self.observation.heard is None or self.observation.unreachable:
            return False
        completed = self.steps.completed()
        models = self._planning = self._take_unplanned()
        try:
            return await self._decide(models, completed, recording=recording)
        except BaseException:
            self._unplanned |= models
            raise
        finally:
            self._planning = frozenset()

    def _take_unplanned(self) -> frozenset[str]:
        """Return the models to decide about: all of them after a start, and now and then."""
        damaged = self.store.damaged()
        rested = time.monotonic() - self._looked_at_all > _ALL_EVERY_S
        if self._everything or rested or damaged != self._store_damaged:
            self._everything, self._store_damaged = False, damaged
            self._store_unhealed = bool(damaged)
            self._looked_at_all = time.monotonic()
            self._unplanned |= self._all_models()
            self._faults.keep_only(self._unplanned)
        models, self._unplanned = frozenset(self._unplanned), set()
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

    async def _decide(
        self, models: frozenset[str], completed: Mapping[Subject, Completed], *, recording: bool
    ) -> bool:
        """Decide about some models. ``recording``: the ledger is read, and takes what is written.

        Returns:
            Whether some of them have changed meanwhile: these are not decided about yet.

        Raises:
            TargetUnreachableError: The gateway does not answer.
        """
        self.disk_room.note(models)
        await self._heal()
        await self._record(models, recording=recording)
        await self._publish(models)
        if self.journal.trouble is None:  # else it would be waited for twice
            # Telling the gateway takes a moment, and what was written meanwhile counts.
            await self.journal.refresh(self.arrival.artifacts.values(), self.listings.own)
        told, models = models, frozenset() if self._everything else models - self._unplanned
        due, planned = list[Action](), set[str]()
        async for model in with_pauses(models):
            actions: tuple[Action, ...] = ()
            with self._faults.stay_in(model, "plan"):
                actions = plan(self._world_of(model))
                planned.add(model)
            self._due.put(model, self._with_asked(model, actions))
            due += actions
        self.steps.hold_against(completed, due, planned)
        self.steps.forget_idle([*due, *self._asked.values()], planned)
        begun = self._due.begin(self.steps.start)
        self._asked = {of: one for of, one in self._asked.items() if one not in begun}
        await self._publish(
            {one.model for one in begun if isinstance(one, Fetch | BuildEnvironment)}
        )
        return models != told

    def _with_asked(self, model: str, actions: Iterable[Action]) -> list[Action]:
        """Return what is due of a model: what an operator has asked for, before what is planned."""
        asked = {of: one for of, one in self._asked.items() if one.model == model}
        return [*asked.values(), *(one for one in actions if subject_of(one) not in asked)]

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
        if self._store_unhealed and not self.listings.settled.missing:
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
            with self._faults.stay_in(model, "recording"):
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

    async def _remember(self) -> None:
        """Begin with what the node itself knows, so that the registry may be down."""
        self.arrival.artifacts = await self.threads.ledger(self.store.all)
        await self.preparation.look(self.arrival.artifacts.values())
        await self.journal.refresh(self.arrival.artifacts.values(), None)
        await self.listings.recall()

    def _world(self) -> World:
        """Return everything that the decisions are made of, of all models."""
        aspired, node = self.listings.aspired, self.observation.node
        stored = self.arrival.artifacts.values()
        return self._world_of_parts(
            aspired, node, self.journal.view, self.listings.wished_by(), stored
        )

    def _world_of(self, model: str) -> World:
        """Return what the decision about one model is made of, at the cost of that model."""
        everything, view = self.listings.aspired, self.journal.view_of(model)
        listed = everything.models.get(model)
        aspired = replace(everything, models={model: listed} if listed else {}, marks={})
        node = self.observation.state_of(model)
        active = node.active if node else []
        digests = {
            *(pin.digest for pin in view.pins.values()),
            *(hold.target_digest for hold in view.holds.values()),
            *(last.digest for last in view.last_active.values()),
            *(one.digest for one in active),
        }
        artifacts = self.arrival.artifacts
        stored = [artifacts[digest] for digest in digests if digest in artifacts]
        wished_by = self.listings.wished_by(model)
        return self._world_of_parts(aspired, node, view, wished_by, stored)

    def _world_of_parts(
        self,
        aspired: Aspired,
        node: NodeState | None,
        view: LedgerView,
        wished_by: Mapping[tuple[str, str], str],
        stored: Iterable[StoredArtifact],
    ) -> World:
        self._signatures.artifacts = self.arrival.artifacts
        return World(
            aspired=aspired,
            listings=self.listings.count,
            lists_any=bool(self.listings.aspired.models),
            node=node or _UNHEARD,
            ledger=view,
            stored=self.arrival.artifacts.keys(),
            proved=self.observation.proved,
            require_digest=self._require_digest,
            wished_by=wished_by,
            environments=self.preparation.built.keys(),
            refused=self.preparation.refused(stored),
            signature_change=self._signatures.between,
            refuses_signatures=self._signatures.on_change is OnSignatureChange.REFUSE,
            rollback_since=self.clock() - self.disk_room.limits.rollback_window_s,
            failure=self._failure,
            promotions_act_at=window_state(self._windows, self.clock()).opens_at,
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
                self._begin(action)
        self._awake.set()

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
        self._awake.set()

    async def _release_rejections(self) -> None:
        """Try once more what was rejected, where the registry has moved an alias there anew."""
        for model, version in tuple(self.listings.pointed_anew):
            if await self.journal.write(model, self.ledger.release_rejection, model, version):
                self.listings.pointed_anew.discard((model, version))
                _log.info("rejection.released", model=model, version=version)

    async def _retry_beside_other_libraries(self, model: str, node: NodeState) -> bool:
        """Try once more what failed to load under other libraries than the gateway has now.

        Returns:
            Whether the ledger took that.
        """
        for found in tuple(self.journal.view_of(model).rejections.values()):
            if not found.is_outdated(node.libraries):
                continue
            which = (found.model, found.version, found.digest)
            if not await self._release_rejection(*which, released_by=AskedBy.RESTART):
                return False
            self.steps.try_now(found.model)
            _log.info("rejection.released", model=found.model, version=found.version)
        return True

    async def _release_rejection(
        self, model: str, version: int, digest: str | None = None, *, released_by: str
    ) -> bool:
        return await self.journal.decide(
            model,
            partial(LedgerView.without_rejection, model=model, version=version, digest=digest),
            self.ledger.release_rejection,
            *(model, version, digest),
            released_by=released_by,
        )

    # --- tell -------------------------------------------------------------------------------------

    async def _publish(self, models: AbstractSet[str]) -> None:
        """Describe some models as they are now, and tell the gateway what is news to it."""
        node = self.observation.heard
        if node is None:
            return
        aspired = self.listings.aspired
        if self.listings.complete:
            remembered: AbstractSet[str] = frozenset()
        else:
            aspired, remembered = self._remembered.beside(aspired, self.journal.view)
            if not node.partial_catalogues and not self._is_better(aspired, node):
                return
            if aspired.models is not self._published:
                models = {*models, *aspired.models}
            self._published = aspired.models
        async for name in with_pauses(models):
            with self._faults.stay_in(name, "description"):
                model = self._describe(name, aspired.models.get(name))
                if model is not None and name in remembered:
                    model = model.model_copy(update={"remembered": True})
                self.announcer.describe(name, model)
        listed = Listed(self.listings.listed_at, self.listings.error, self.listings.complete)
        await self.announcer.publish(node, listed)

    def _is_better(self, aspired: Aspired, node: NodeState) -> bool:
        """Whether a gateway that takes every catalogue for complete had better have this one."""
        if self.listings.error is None or not aspired.models:
            return False  # the first listing is on its way, or nothing is known
        # The process before us knew the registry's list, or the ledger's.
        return self.journal.answered or node.catalogue_writer in (None, self.boot_id)

    def _describe(self, name: str, listed: AspiredModel | None) -> CatalogueModel | None:
        model = describe_model(name, listed, self.journal.view_of(name), self._known(name))
        if model is not None and listed is not None:
            _remember_locations(model, listed)
        return model

    def _known(self, model: str) -> Known:
        """Return what is known of one model's versions on this node."""
        backoff = self.steps.backoff
        troubles = {
            (model, int(subject[2])): Trouble(failure.reason, failure.retry_at, failure.settling)
            for subject, failure in backoff.failures(model).items()
            if subject[0] in _BRINGING and backoff.waits(subject, goal=failure.goal)
        }
        bringing = (one for one in self.steps.doing() if isinstance(one, Fetch | BuildEnvironment))
        artifacts = self.arrival.artifacts
        digests = {pin.digest for pin in self.journal.view_of(model).pins.values()}
        world = self._world_of(model)
        changes, refused = self._compare_signatures(model, world)
        return Known(
            descriptions={
                digest: self.preparation.described(artifacts[digest])
                for digest in digests
                if digest in artifacts
            },
            fetching={(one.model, one.version) for one in bringing if one.model == model},
            troubles=troubles,
            environments=self.preparation.built,
            signature_changes=changes,
            refused_signatures=refused,
            damaged=self._store_damaged,
            delayed=self._delayed(model, world),
        )

    def _delayed(self, model: str, world: World) -> dict[tuple[str, str], str]:
        """Return why aliases do not mean their version yet, although its bytes are here."""
        fails = any(one[0] in _BRINGING_UP for one in self.steps.backoff.failures(model))
        listed = world.aspired.models.get(model)
        if listed is None or not (fails or world.promotions_act_at):
            return {}
        active = self.observation.active_of(model)
        found = {alias: explain(world, model, alias, active.get(alias)) for alias in listed.aliases}
        return {(model, alias): one.reason for alias, one in found.items() if one.why in _DELAYS}

    def _compare_signatures(
        self, model: str, world: World
    ) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
        """Say what aliases change for their callers, and what is refused; log what is new of it."""
        changes: dict[tuple[str, str], str] = {}
        refusals: dict[tuple[str, str], str] = {}
        if self._signatures.on_change is not OnSignatureChange.IGNORE:
            self._collect_signature_changes(world, changes, refusals)
        told = {alias: reason for (_, alias), reason in {**changes, **refusals}.items()}
        before = self._signature_changes.pop(model, {})
        for alias, reason in told.items():
            if before.get(alias) != reason:
                _log.warning("signature.changed", model=model, alias=alias, reason=reason)
        if told:
            self._signature_changes[model] = told
        return changes, refusals

    def _collect_signature_changes(
        self,
        world: World,
        changes: dict[tuple[str, str], str],
        refusals: dict[tuple[str, str], str],
    ) -> None:
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
                for one in plan(self._world_of(action.model))
                if isinstance(one, Activate | Stage)
                and (one.model, one.alias, one.version, one.digest) == wanted
            ),
            None,
        )

    def _is_due_now(self, action: Stage | RetireAlias | ReleaseHold) -> bool:
        """Whether it would be decided now, too: an operator may have decided otherwise since."""
        due = plan(self._world_of(action.model))
        return action in (replace(one, urgency=action.urgency) for one in due)

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

    async def _record_rollbacks(self, node: NodeState, view: LedgerView) -> bool:
        """Record the automatic rollbacks of the gateway, and return whether the ledger took them.

        They may be older than this process.
        """
        for held in unrecorded(node, view):
            if ("activate", held.model, held.alias) in self.steps.busy:
                continue  # the activation that was rolled back is being recorded
            aspired, built = self.listings.aspired, self.preparation.built.keys()
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
        release = self._decision("release", action.hold, asked_by=AskedBy.POLL)
        await self._put_in_force(release)
        return None

    # --- for operators ----------------------------------------------------------------------------

    # Each is in force when it is decided, and returns why it is not recorded yet, or None if it is.

    async def hold(self, hold: Hold) -> str | None:
        """Keep an alias where an operator wants it, from now on."""
        self.steps.backoff.succeeded(("activate", hold.model, hold.alias))
        # What takes down what serves pauses for up to an hour: who decides does not wait for that.
        self.steps.backoff.succeeded(("stage", hold.model, hold.target_version, hold.target_digest))
        return await self._put_in_force(self._decision("hold", hold))

    async def unhold(self, hold: Hold) -> str | None:
        """Let an alias follow the registry again, if it is this that holds it."""
        return await self._put_in_force(self._decision("release", hold))

    async def _put_in_force(self, change: StandingChange) -> str | None:
        self.journal.decided(change)
        self._changed(None if change.model is None else {change.model})
        unrecorded = await self.journal.record(change)
        if unrecorded is not None:
            _log.warning("decision.not_recorded", what=change.what, reason=unrecorded)
        return unrecorded

    def _decision(
        self,
        what: Literal["hold", "release", "freeze", "unfreeze"],
        hold: Hold | None = None,
        *,
        asked_by: str = AskedBy.OPERATOR,
    ) -> StandingChange:
        return StandingChange(what, str(asked_by), self.clock(), hold)

    async def retry(self, model: str, version: int) -> bool:
        """Let a rejected version be tried again, now; whether that is recorded."""
        written = await self._release_rejection(model, version, released_by=AskedBy.OPERATOR)
        self.try_now(model)
        return written

    async def release_quarantine(self, model: str, version: int) -> bool:
        """End a quarantine; whether the ledger took that, else it stands."""
        by = str(AskedBy.OPERATOR)
        return await self.journal.write(model, self.ledger.release_quarantine, model, version, by)

    async def freeze(self) -> str | None:
        """Let no alias follow the registry; those that are `moving` already arrive."""
        return await self._put_in_force(self._decision("freeze"))

    def moving(self) -> list[str]:
        """Return the models of which an alias is being moved, as was decided before."""
        return self._promotion.moving()

    async def unfreeze(self) -> str | None:
        """Let aliases follow the registry again."""
        return await self._put_in_force(self._decision("unfreeze"))

    def look(self, model: str | None = None) -> World:
        """Return what the next decision is made of, about one model or about all."""
        return self._world() if model is None else self._world_of(model)

    def fetch(self, model: str, version: int, accepts: str | None = None) -> None:
        """Have a version fetched and checked as soon as there is a slot.

        ``accepts`` is the digest that an operator accepts; None: whichever is expected.
        """
        of = self._world_of(model).creation_of(model, version)
        by, urgency = AskedBy.OPERATOR, Urgency.WANTED
        fetch = Fetch(model, version, urgency, by, creation=of, accepts=accepts)
        subject = subject_of(fetch)
        doing = (one for one in self.steps.doing() if subject_of(one) == subject)
        if any(isinstance(one, Fetch) and one.accepts == accepts for one in doing):
            return
        self.steps.backoff.succeeded(subject)
        self._asked[subject] = fetch
        self._changed({model})

    def doing(self, model: str) -> list[Subject]:
        """Return the steps of a model that are under way, or that an operator has asked for."""
        return [one for one in {*self.steps.busy, *self._asked} if one[1] == model]

    def unfinished(self, model: str) -> list[str]:
        """Return what may soon change what is known of a model; as `ExplainAnswer.doing`."""
        found = {
            "list": self._hints.pending,
            "decide": self._everything or model in self._unplanned or model in self._planning,
            "move": model in self._promotion.moving(),
        }
        return [what for what, is_so in found.items() if is_so]

    def _begin(self, fetch: Fetch) -> None:
        """Begin with what no plan has asked for; the next pass tells the gateway."""
        if self.steps.start(fetch) is Begin.BEGUN:
            self._changed({fetch.model})

    def try_now(self, model: str) -> None:
        """Let nothing of a model wait for its next try."""
        self.steps.try_now(model)
        self._changed({model})

    async def next_decision(self) -> None:
        """Wait until a pass that begins now, or later, is over."""
        if self._deciding:
            await self._decided.wait()  # that one began before
        self._awake.set()
        await self._decided.wait()


def _remember_locations(model: CatalogueModel, listed: AspiredModel) -> None:
    """Let no caller read where the bytes are of a version that has a reason to tell."""
    for told in model.versions:
        if told.reason is not None and told.version in listed.versions:
            remember_location(listed.versions[told.version].location)


async def with_pauses(models: Iterable[str]) -> AsyncIterator[str]:
    """Give the models one by one; let others have their turn between a few."""
    for number, model in enumerate(models, start=1):
        yield model
        if number % _MODELS_AT_A_TURN == 0:
            await asyncio.sleep(0)
