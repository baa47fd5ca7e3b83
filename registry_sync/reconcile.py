"""The spine: list → plan → fetch → verify → stage → activate → record, each model on its own.

One loop decides; every step that takes time is a task of its own, so that a slow fetch holds up
nobody else's promotion. Whatever ends wakes the loop, which decides again from what is. Nothing
is resumed: a killed process starts by looking.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from gateway.control_contract import (
    PERMANENT_STAGE_FAILURES,
    ActivateRequest,
    ActiveAlias,
    RetireRequest,
    StageOutcome,
    StageRequest,
)
from registry_sync.announcer import Announcer
from registry_sync.artifact_store import ArtifactStore, StoredArtifact
from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.backoff import Backoff, Subject
from registry_sync.catalogue import Known, Trouble
from registry_sync.errors import LedgerError, RolloutRejectedError, SourceError, SyncError
from registry_sync.intake import Brought, Intake, Refused, Stopwatch
from registry_sync.journal import Journal
from registry_sync.ledger import Ledger
from registry_sync.observation import Observation
from registry_sync.plan import (
    Action,
    Activate,
    Fetch,
    ReleaseHold,
    RetireAlias,
    Settled,
    Stage,
    Urgency,
    World,
    expected_digest,
    find,
    is_quarantined,
    plan,
    settle,
)
from registry_sync.records import (
    Activation,
    AskedBy,
    Attempt,
    Hold,
    LedgerView,
    PinnedVersion,
    Quarantine,
    Rejection,
)
from registry_sync.serving_target import ServingTarget, TargetUnreachableError
from registry_sync.sources.source import Source
from registry_sync.threads import Threads

_LONGEST_SLEEP_S = 5.0
_WANTED_RETRY_S = 5.0
_CONFIRMATION_LASTS_S = 120.0
_QUARANTINE_LOOK_S = 300.0
_QUARANTINE_FETCH_S = 900.0
_GENERATION_WAIT_S = 2.0
_SLOTS = {Fetch: 3, Stage: 2, Activate: 8, RetireAlias: 4, ReleaseHold: 4}
_URGENT_EXTRA_SLOTS = 2
_URGENT = frozenset({Urgency.WANTED, Urgency.ACTIVATE, Urgency.PROMOTION, Urgency.RECOVERY})
_NOTHING = Aspired(models={}, listed_at=0.0)
_log = structlog.get_logger("registry_sync.reconcile")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the spine waits for, in seconds."""

    stage_timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A step that went no further: ``refused`` ones are not tried again by themselves."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """The registry had these bytes between two times, in epoch seconds."""

    digest: str
    began_at: float
    ended_at: float


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
        boot_id: str,
        jitter: Callable[[], float],
        limits: Limits,
        require_digest: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store. ``clock`` gives epoch seconds, ``jitter`` numbers from 0 to 1."""
        self.source = source
        self.intake = intake
        self.store = store
        self.ledger = ledger
        self.target = target
        self.threads = threads
        self.clock = clock
        self.boot_id = boot_id
        self._limits = limits
        self._require_digest = require_digest
        self.backoff = Backoff(clock=clock, jitter=jitter)
        self.journal = Journal(ledger, threads)
        self.observation = Observation(target, on_news=self.wake)
        self.announcer = Announcer(target, writer=boot_id)
        self.artifacts: dict[str, StoredArtifact] = {}
        self.settled = Settled(_NOTHING)
        self.listings = 0
        self.listed_at: float | None = None
        self.source_error: str | None = None
        self.busy: dict[Subject, asyncio.Task[None]] = {}
        self._doing: dict[Subject, Action] = {}
        self._asked_by: str = AskedBy.POLL
        self._remembered: Mapping[str, AspiredModel] | None = None
        self._wishes: dict[tuple[str, str], tuple[int, float]] = {}
        self._confirmed: dict[tuple[str, int], _Confirmed] = {}
        self._looked_at: dict[tuple[str, int], float] = {}
        self._awake = asyncio.Event()
        self._decided = asyncio.Event()
        self._deciding = False
        self._polling = asyncio.Lock()
        self._activating = asyncio.Lock()

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow registry and gateway until cancelled; then nothing of it goes on."""
        await self._remember()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.observation.follow())
                group.create_task(self._decide_forever())
        finally:
            await self._end_steps()

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
        next_at = self.backoff.next_at()
        wait_s = _LONGEST_SLEEP_S if next_at is None else max(0.01, next_at - self.clock())
        try:
            async with asyncio.timeout(min(wait_s, _LONGEST_SLEEP_S)):
                await self._awake.wait()
        except TimeoutError:
            return

    async def _end_steps(self) -> None:
        tasks = list(self.busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reconcile(self) -> None:
        """One pass: record what is, tell the gateway, decide, and start what is due."""
        await self.journal.refresh(self.artifacts.values(), self._own_listing())
        node = self.observation.node
        if node is None or self.observation.unreachable:
            return
        await self.journal.adopt(node, self._is_moving)
        await self._publish()
        actions = plan(self._world())
        self._forget_idle(actions)
        for action in actions:
            self._start(action)
        await self._publish()

    async def _remember(self) -> None:
        """Begin with what the node itself knows, so that the registry may be down."""
        self.artifacts = await self.threads.ledger(self.store.all)
        await self.journal.refresh(self.artifacts.values(), None)
        try:
            listing = await self.journal.read(self.ledger.last_listing)
        except LedgerError:
            listing = None
        if listing is not None:
            self.settled = Settled(listing)
            self.listed_at = listing.listed_at
            self._remembered = listing.models

    def _world(self) -> World:
        node = self.observation.node
        if node is None:
            raise AssertionError("decided before the gateway has answered")
        return World(
            aspired=self.settled.aspired,
            listings=self.listings,
            node=node,
            ledger=self.journal.view,
            stored=self.artifacts.keys(),
            proved=self.observation.proved,
            require_digest=self._require_digest,
            asked_by=self._asked_by,
        )

    # --- list -------------------------------------------------------------------------------------

    async def poll(self, asked_by: str = AskedBy.POLL) -> None:
        """List the registry; what it says counts from the next pass on. One at a time."""
        async with self._polling:
            await self._poll(asked_by)

    async def _poll(self, asked_by: str) -> None:
        try:
            listed = await self.threads.registry(self.source.aspired)
        except SourceError as error:
            if self.source_error != error.reason:
                _log.warning("list.failed", reason=error.reason)
            self.source_error = error.reason
            self.wake()
            return
        self._take_listing(listed, asked_by)
        await self._remember_listing()
        await self._look_at_quarantined()
        self.wake()

    def _take_listing(self, listed: Aspired, asked_by: str) -> None:
        settled = settle(self.settled, listed)
        if settled.aspired.models == self.settled.aspired.models:
            # The same object again, so that nothing is described anew.
            same = replace(settled.aspired, models=self.settled.aspired.models)
            settled = replace(settled, aspired=same)
        self.settled = settled
        self.source_error = settled.ignored
        self.listed_at = listed.listed_at
        self._asked_by = asked_by
        if settled.ignored is None:
            self.listings += 1
        else:
            _log.warning("list.ignored", reason=settled.ignored)
        now = self.clock()
        wishes = {
            (model.name, alias): version
            for model in settled.aspired.models.values()
            for alias, version in model.aliases.items()
        }
        self._wishes = {
            key: self._wishes[key]
            if key in self._wishes and self._wishes[key][0] == version
            else (version, now)
            for key, version in wishes.items()
        }

    def _own_listing(self) -> Aspired | None:
        return self.settled.aspired if self.settled.aspired.models else None

    async def _remember_listing(self) -> None:
        aspired = self.settled.aspired
        if self._remembered is aspired.models or self._remembered == aspired.models:
            return
        if await self.journal.write(self.ledger.remember_listing, aspired):
            self._remembered = aspired.models

    async def _look_at_quarantined(self) -> None:
        """Release a quarantine whose bytes have changed at the registry: they are fetched again.

        Where the storage does not tell of changes, only fetching and hashing again does.
        """
        now = self.clock()
        for key, found in self.journal.view.quarantines.items():
            listed = find(self.settled.aspired, *key)
            rest_s = _QUARANTINE_FETCH_S if found.listing is None else _QUARANTINE_LOOK_S
            if listed is None or now - self._looked_at.get(key, found.at) < rest_s:
                continue
            self._looked_at[key] = now
            if found.listing is None:
                self._start(Fetch(*key, Urgency.PREFETCH))
                continue
            try:
                listing = await self.threads.registry(self.intake.listing_of, listed)
            except SourceError:
                return
            if listing is not None and listing != found.listing:
                _log.info("quarantine.released", model=key[0], version=key[1])
                await self.journal.write(self.ledger.release_quarantine, *key)

    # --- tell -------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        node = self.observation.node
        aspired = self.settled.aspired
        if not aspired.models and not self.listings:
            if self.source_error is None:
                return  # the first listing is on its way: nothing is known yet
            aspired = _from_ledger(self.journal.view)
            if not aspired.models:
                return
        if node is not None:
            await self.announcer.publish(
                node,
                aspired,
                self.journal.view,
                self._known(),
                listed_at=self.listed_at,
                source_error=self.source_error,
            )

    def _known(self) -> Known:
        troubles = {
            (str(subject[1]), int(subject[2])): Trouble(failure.reason, failure.retry_at)
            for subject, failure in self.backoff.failures().items()
            if subject[0] == "fetch" and self.backoff.waits(subject)
        }
        fetching = {(a.model, a.version) for a in self._doing.values() if isinstance(a, Fetch)}
        return Known(
            descriptions={digest: one.description for digest, one in self.artifacts.items()},
            fetching=fetching,
            troubles=troubles,
        )

    # --- start what is due ------------------------------------------------------------------------

    def _start(self, action: Action) -> None:
        """Start a step unless it is under way, waits for its next try, or finds no slot."""
        subject = _subject(action)
        # Callers who wait for bytes shorten the wait.
        longest_s = _WANTED_RETRY_S if action.urgency is Urgency.WANTED else None
        if subject in self.busy or self.backoff.waits(subject, longest_s=longest_s):
            return
        slots = _SLOTS[type(action)]
        if action.urgency in _URGENT:
            slots += _URGENT_EXTRA_SLOTS
        if sum(type(one) is type(action) for one in self._doing.values()) >= slots:
            return
        self._doing[subject] = action
        task = asyncio.get_running_loop().create_task(self._step(subject, action))
        self.busy[subject] = task
        task.add_done_callback(lambda _: self._done(subject))

    def _done(self, subject: Subject) -> None:
        self.busy.pop(subject, None)
        self._doing.pop(subject, None)
        self.wake()

    def _forget_idle(self, actions: tuple[Action, ...]) -> None:
        self.backoff.keep_only({_subject(action) for action in actions} | set(self.busy))

    def _is_moving(self, active: ActiveAlias) -> bool:
        return ("activate", active.model, active.alias) in self.busy

    async def _step(self, subject: Subject, action: Action) -> None:
        """Do one step and record how it ended. A fault stays in its model."""
        started_at = self.clock()
        watch = Stopwatch()
        try:
            stopped = await self._do(action, watch)
        except SyncError as error:
            stopped = Stopped(error.reason)
        except Exception as error:  # noqa: BLE001 - a fault of ours stays in its model too
            _log.exception("step.failed", model=action.model, action=subject)
            stopped = Stopped(f"internal error: {type(error).__name__}")
        if stopped is None:
            self.backoff.succeeded(subject)
        else:
            # Callers who wait for bytes shorten the wait.
            longest_s = _WANTED_RETRY_S if action.urgency is Urgency.WANTED else None
            failure = self.backoff.failed(subject, stopped.reason, longest_s=longest_s)
            _log.warning(
                f"{_verb(action)}.{'refused' if stopped.refused else 'failed'}",
                model=action.model,
                alias=getattr(action, "alias", None),
                version=getattr(action, "version", None),
                reason=stopped.reason,
                failures=failure.count,
            )
        await self.journal.write(
            self.ledger.attempted, _attempt(action, started_at, watch, stopped)
        )

    async def _do(self, action: Action, watch: Stopwatch) -> Stopped | None:
        match action:
            case Fetch():
                return await self._fetch(action, watch)
            case Stage():
                return await self._stage(action, watch)
            case Activate():
                return await self._activate(action, watch)
            case RetireAlias():
                return await self._retire(action)
            case ReleaseHold():
                if await self.journal.write(self.ledger.release_hold, action.model, action.alias):
                    return None
                return Stopped(self.journal.trouble or "the ledger did not take it")
            case _:
                assert_never(action)

    # --- fetch, verify ----------------------------------------------------------------------------

    async def _fetch(self, action: Fetch, watch: Stopwatch) -> Stopped | None:
        """Bring a version's bytes here, or learn that they are wrong."""
        listed = find(self.settled.aspired, action.model, action.version)
        if listed is None:
            return await self._fetch_unlisted(action, watch)
        return await self._bring(listed, watch)

    async def _fetch_unlisted(self, action: Fetch, watch: Stopwatch) -> Stopped | None:
        """Fetch what only a hold still means."""
        listed = await self.threads.registry(self.source.version, action.model, action.version)
        return await self._bring(listed, watch)

    async def _bring(self, listed: AspiredVersion, watch: Stopwatch) -> Stopped | None:
        key = (listed.model, listed.version)
        started_at = self.clock()
        _log.info("fetch.started", model=listed.model, version=listed.version)
        found = await self.threads.fetching(
            self.intake.bring,
            listed,
            self.journal.view.pins.get(key),
            watch=watch,
            on_progress=self.threads.check_stopping,
        )
        if isinstance(found, Refused):
            await self._quarantine(listed, found)
            return Stopped(found.reason, refused=True)
        return await self._accept(key, found, started_at)

    async def _accept(
        self, key: tuple[str, int], found: Brought, started_at: float
    ) -> Stopped | None:
        digest = found.artifact.digest
        self._confirmed[key] = _Confirmed(digest, started_at, self.clock())
        self.artifacts[digest] = found.artifact
        known = self.journal.view.pins.get(key)
        if key in self.journal.view.quarantines:
            await self.journal.write(self.ledger.release_quarantine, *key)
        pinned = await self.journal.write(self.ledger.pin, found.pin)
        if not pinned and (known is None or known.digest != digest):
            # Without its pin the version does not count as here, and would be fetched at once.
            return Stopped(self.journal.trouble or "the ledger did not take the version's digest")
        _log.info("fetch.complete", model=key[0], version=key[1], digest=digest)
        return None

    async def _quarantine(self, listed: AspiredVersion, found: Refused) -> None:
        _log.error("quarantine", model=listed.model, version=listed.version, reason=found.reason)
        self._looked_at.pop((listed.model, listed.version), None)
        await self.journal.write(
            self.ledger.quarantine,
            Quarantine(
                model=listed.model,
                version=listed.version,
                expected_digest=expected_digest(listed, self.journal.view),
                listing=found.listing,
                found_digest=found.found,
                reason=found.reason,
                at=self.clock(),
            ),
        )

    # --- stage ------------------------------------------------------------------------------------

    async def _stage(self, action: Stage, watch: Stopwatch) -> Stopped | None:
        """Have the gateway start and warm a standby; wait for its outcome."""
        stage_id = uuid.uuid4().hex
        expected = self.observation.expect(stage_id)
        try:
            with watch.phase("stage"):
                async with asyncio.timeout(self._limits.stage_timeout_s):
                    await self.target.stage(
                        StageRequest(
                            stage_id=stage_id,
                            model=action.model,
                            version=action.version,
                            digest=action.digest,
                            replaces=action.replaces,
                            keep=action.keep,
                        )
                    )
                    outcome = await expected
        except TimeoutError:
            return Stopped(f"no outcome of the stage within {self._limits.stage_timeout_s:g} s")
        finally:
            expected.cancel()
        watch.seconds.update({f"stage.{k}": v for k, v in outcome.durations_s.items()})
        if outcome.failure is not None:
            return await self._stage_failed(outcome)
        if action.keep and not self._stands_by(stage_id):
            return Stopped("the standby ended before it was activated")
        return None

    def _stands_by(self, stage_id: str) -> bool:
        node = self.observation.node
        return node is not None and any(one.stage_id == stage_id for one in node.standbys)

    async def _stage_failed(self, outcome: StageOutcome) -> Stopped:
        reason = outcome.message or f"the stage failed: {outcome.failure}"
        if outcome.failure not in PERMANENT_STAGE_FAILURES:
            return Stopped(reason)
        if outcome.failure == "integrity":
            return await self._drop_altered(outcome.digest, reason)
        await self.journal.write(
            self.ledger.reject,
            Rejection(
                model=outcome.model,
                version=outcome.version,
                digest=outcome.digest,
                failure=str(outcome.failure),
                reason=reason,
                at=self.clock(),
            ),
        )
        return Stopped(reason, refused=True)

    async def _drop_altered(self, digest: str, reason: str) -> Stopped:
        """Drop a copy that was altered on this node after it was verified.

        That says nothing of the publisher's bytes: they are fetched again, and judged as ever.
        """
        self.artifacts.pop(digest, None)
        await self.threads.ledger(self.store.remove, digest)
        return Stopped(f"{reason}; this node's copy is dropped and fetched again")

    # --- activate ---------------------------------------------------------------------------------

    async def _activate(self, action: Activate, watch: Stopwatch) -> Stopped | None:
        """Compare with the registry once more, move the alias, record it."""
        with watch.phase("confirm"):
            stopped = await self._confirm(action, watch)
        if stopped is not None:
            return stopped
        async with self._activating:
            node = self.observation.node
            if node is None:
                return Stopped("the gateway has gone")
            if not self._is_still_due(action):
                return Stopped("it is no longer what ought to be active")
            try:
                with watch.phase("activate"):
                    ack = await self.target.activate(
                        ActivateRequest(
                            model=action.model,
                            alias=action.alias,
                            version=action.version,
                            digest=action.digest,
                            if_generation=node.generation,
                            stage_id=action.stage_id,
                            asked_by=str(action.asked_by),
                        )
                    )
            except RolloutRejectedError as error:
                return await self._activation_refused(action, error)
            before = _active(node.active, action.model, action.alias)
            active = _activated(action, before, at=self.clock())
            self.observation.activated(active, ack)
        await self._record(action, active, ack.generation)
        return None

    def _is_still_due(self, action: Activate) -> bool:
        """Whether the same would be decided now: the alias may have moved, or be held, since."""
        return any(
            isinstance(one, Activate)
            and (one.model, one.alias, one.version, one.digest)
            == (action.model, action.alias, action.version, action.digest)
            for one in plan(self._world())
        )

    async def _record(self, action: Activate, active: ActiveAlias, generation: int) -> None:
        _log.info(
            "activate.complete",
            model=action.model,
            alias=action.alias,
            version=action.version,
            previous=active.previous_version,
            asked_by=str(action.asked_by),
            generation=generation,
        )
        await self.journal.write(
            self.ledger.activated,
            Activation(
                model=active.model,
                alias=active.alias,
                version=active.version,
                digest=active.digest,
                previous_version=active.previous_version,
                previous_digest=active.previous_digest,
                asked_by=action.asked_by,
                at=active.since,
                generation=generation,
            ),
        )

    async def _activation_refused(self, action: Activate, error: RolloutRejectedError) -> Stopped:
        if error.code == "not_staged":
            self.observation.disprove((action.model, action.version, action.digest))
        if error.code == "generation_mismatch" and error.generation is not None:
            await self._await_generation(error.generation)
        return Stopped(error.reason)

    async def _await_generation(self, generation: int) -> None:
        """Wait until the long poll has told of a newer table; the plan is made on that."""
        give_up_at = self.clock() + _GENERATION_WAIT_S
        while self.clock() < give_up_at:
            node = self.observation.node
            if node is not None and node.generation >= generation:
                return
            await asyncio.sleep(0.02)

    async def _confirm(self, action: Activate, watch: Stopwatch) -> Stopped | None:
        """Make sure that the registry still has the bytes that are about to serve.

        Returns:
            None: it has; or nobody can be asked, and an operator or a recovery goes on with what
            was verified before.
        """
        key = (action.model, action.version)
        view = self.journal.view
        listed = find(self.settled.aspired, *key)
        local = action.asked_by in (AskedBy.OPERATOR, AskedBy.RECOVERY)
        if local and listed is None:
            return None  # there is nothing to compare with
        if listed is not None and is_quarantined(listed, view):
            if action.asked_by == AskedBy.RECOVERY:
                return None  # known already, and what served before is better than nothing
            return Stopped(view.quarantines[key].reason, refused=True)
        if listed is None:
            return Stopped("the registry no longer lists this version")
        if self._is_confirmed(action):
            return None
        pin = view.pins.get(key)
        try:
            stopped = await self._compare(listed, pin, watch)
        except SourceError as error:
            if local:
                _log.warning("confirm.skipped", model=key[0], version=key[1], reason=error.reason)
                return None
            raise
        confirmed = self._confirmed.get(key)
        if stopped is None and (confirmed is None or confirmed.digest != action.digest):
            return Stopped("the registry has other bytes now; they are staged first")
        return stopped

    async def _compare(
        self, listed: AspiredVersion, pin: PinnedVersion | None, watch: Stopwatch
    ) -> Stopped | None:
        """Compare the listings; where that does not tell, fetch and hash again."""
        key = (listed.model, listed.version)
        started_at = self.clock()
        if pin is not None and await self.threads.registry(
            self.intake.remote_is_as_pinned, listed, pin
        ):
            self._confirmed[key] = _Confirmed(pin.digest, started_at, self.clock())
            return None
        return await self._bring(listed, watch)

    def _is_confirmed(self, action: Activate) -> bool:
        """Whether the bytes were compared after this was first wished for, and lately.

        What took long to compare counts for longer: a standby does not wait for ever.
        """
        found = self._confirmed.get((action.model, action.version))
        version, wished_at = self._wishes.get((action.model, action.alias), (0, 0.0))
        if found is None or (found.digest, version) != (action.digest, action.version):
            return False
        lasts_s = max(_CONFIRMATION_LASTS_S, 2 * (found.ended_at - found.began_at))
        return wished_at <= found.began_at and self.clock() - found.ended_at < lasts_s

    # --- retire -----------------------------------------------------------------------------------

    async def _retire(self, action: RetireAlias) -> Stopped | None:
        """Take an alias away."""
        ack = await self.target.retire(RetireRequest(model=action.model, alias=action.alias))
        self.observation.retired(action.model, action.alias, ack.generation)
        _log.info("retire.complete", model=action.model, alias=action.alias)
        return None

    # --- for operators ----------------------------------------------------------------------------

    async def hold(self, hold: Hold) -> bool:
        """Keep an alias where an operator wants it, from now on; whether that is recorded."""
        written = await self.journal.write(self.ledger.hold, hold)
        self.backoff.succeeded(("activate", hold.model, hold.alias))
        self.wake()
        return written

    async def next_decision(self) -> None:
        """Wait until a pass that begins now, or later, is over."""
        if self._deciding:
            await self._decided.wait()  # that one began before
        self.wake()
        await self._decided.wait()


def _subject(action: Action) -> Subject:
    """What an action is about: one at a time, with one back-off."""
    match action:
        case Fetch():
            return ("fetch", action.model, action.version)
        case Stage():
            return ("stage", action.model, action.version, action.digest)
        case Activate():
            return ("activate", action.model, action.alias)
        case RetireAlias():
            return ("retire", action.model, action.alias)
        case ReleaseHold():
            return ("release", action.model, action.alias)
        case _:
            assert_never(action)


def _verb(action: Action) -> str:
    return str(_subject(action)[0])


def _attempt(
    action: Action, started_at: float, watch: Stopwatch, stopped: Stopped | None
) -> Attempt:
    outcome = "complete" if stopped is None else "refused" if stopped.refused else "failed"
    return Attempt(
        model=action.model,
        alias=getattr(action, "alias", None),
        version=getattr(action, "version", None),
        action=_verb(action),
        asked_by=action.asked_by,
        started_at=started_at,
        durations_s=watch.seconds,
        outcome=outcome,
        reason=stopped.reason if stopped else None,
    )


def _active(active: list[ActiveAlias], model: str, alias: str) -> ActiveAlias | None:
    return next((one for one in active if (one.model, one.alias) == (model, alias)), None)


def _activated(action: Activate, before: ActiveAlias | None, *, at: float) -> ActiveAlias:
    return ActiveAlias(
        model=action.model,
        alias=action.alias,
        version=action.version,
        digest=action.digest,
        since=at,
        previous_version=before.version if before else None,
        previous_digest=before.digest if before else None,
    )


def _from_ledger(view: LedgerView) -> Aspired:
    """What the registry listed, as far as pins and activations tell."""
    models: dict[str, AspiredModel] = {}
    for (name, number), pin in sorted(view.pins.items()):
        known = models.get(name) or AspiredModel(name=name, versions={})
        version = AspiredVersion(
            model=name,
            version=number,
            location="",
            expected_digest=pin.expected_digest if pin.stamped else None,
        )
        models[name] = replace(known, versions={**known.versions, number: version})
    for (name, alias), last in view.last_active.items():
        if name in models and last.version in models[name].versions:
            aliases = {**models[name].aliases, alias: last.version}
            models[name] = replace(models[name], aliases=aliases)
    return Aspired(models=models, listed_at=0.0)
