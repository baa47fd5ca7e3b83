"""The spine of a change on this node: stage → activate → go back → retire, and what is observed.

The control plane proposes; this node acknowledges, or refuses with a reason and goes on serving
what it served. ``activate``, ``go_back`` and ``retire`` decide, write the change to disk, and only
then replace the snapshot and answer. Changes that wait for the disk together share one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import get_args

import structlog

from gateway.contract import (
    CONTRACT_VERSION,
    LATEST,
    OBSERVE_TIMEOUT_S,
    ActivateAck,
    ActivateRequest,
    ActiveAlias,
    AliasHold,
    AliasName,
    AliasTarget,
    Catalogue,
    CatalogueAck,
    CatalogueModel,
    ModelChange,
    NodeState,
    Policy,
    ReleaseAck,
    ReleaseRequest,
    ReplicaKey,
    RetireAck,
    RetireRequest,
    StageAck,
    StageFailure,
    StageOutcome,
    StageRequest,
    UnchangedCatalogue,
)
from gateway.errors import GatewayError, LoadError, RolloutRefusedError, TableFileError
from gateway.observability import Telemetry
from gateway.routing import AliasKey, Node, RouteTable, TableFile
from gateway.serving import ResidentSet
from gateway.worker.protocol import messages

_REMEMBERED_STAGES = 16_384
_FAILURES = frozenset(get_args(StageFailure))
_log = structlog.get_logger("gateway.rollout")


_Decide = Callable[[RouteTable], RouteTable]


@dataclass(frozen=True, slots=True)
class _Queued:
    """A change that waits for its write.

    Attributes:
        key: The alias that it is about.
        decide: Returns the next table.
        done: The tables before and after it.
    """

    key: AliasKey
    decide: _Decide
    done: asyncio.Future[tuple[RouteTable, RouteTable]]


class Rollout:
    """Stages and activates versions on this node. Event loop only."""

    def __init__(
        self,
        *,
        node: Node,
        residents: ResidentSet,
        table_file: TableFile,
        telemetry: Telemetry,
        standby_timeout_s: float,
        stage_wait_s: float,
    ) -> None:
        """Store. Both limits in seconds."""
        self._node = node
        self._residents = residents
        self._table_file = table_file
        self._telemetry = telemetry
        self._standby_timeout_s = standby_timeout_s
        self._stage_wait_s = stage_wait_s
        self._change = asyncio.Lock()
        self._stages: dict[str, asyncio.Task[None]] = {}
        self._standbys: dict[str, StageRequest] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._outcomes: OrderedDict[str, StageOutcome] = OrderedDict()
        self._revision = 0
        self._queue: list[_Queued] = []
        self._committing: asyncio.Task[None] | None = None

    # --- catalogue --------------------------------------------------------------------------------

    async def take_catalogue(self, catalogue: Catalogue, document: bytes) -> CatalogueAck:
        """Take what the registry lists. No version that serves comes or goes by it.

        ``document`` is the catalogue as it came: kept on disk as it is, since to encode thousands
        of versions again would hold up the event loop, even from a thread.

        Raises:
            RolloutRefusedError: A newer contract, or an older snapshot than the present one.
        """
        if catalogue.contract_version > CONTRACT_VERSION:
            raise RolloutRefusedError(
                "contract_version",
                f"this gateway speaks contract {CONTRACT_VERSION}, the control plane "
                f"{catalogue.contract_version}: upgrade the gateway first",
            )
        async with self._change:
            node = self._node
            if (
                catalogue.writer == node.catalogue_writer
                and node.catalogue_epoch is not None
                and catalogue.epoch <= node.catalogue_epoch
            ):
                raise RolloutRefusedError(
                    "stale_epoch", f"epoch {node.catalogue_epoch} was taken before"
                )
            present = node.table.catalogue
            if catalogue.complete or present is None or not present.complete:
                await asyncio.to_thread(self._table_file.keep_catalogue, document)
            node.catalogue_writer, node.catalogue_epoch = catalogue.writer, catalogue.epoch
            self._revision = 0
            before = node.table
            await self._list(before.with_catalogue(catalogue), news=True)
            self._load_what_came_anew(before)
        self._residents.look_again()
        await self._forget_unlisted()
        return CatalogueAck(generation=self._node.table.generation)

    async def take_model(self, change: ModelChange, document: bytes) -> CatalogueAck:
        """Take what has changed of one model since the snapshot in place was sent.

        ``document`` is the change as it came, in one line.

        Raises:
            RolloutRefusedError: Another snapshot is in place, or the file of changes is full: the
                whole snapshot is needed.
        """
        async with self._change:
            node = self._node
            self._check_epoch(change.writer, change.epoch)
            if change.revision <= self._revision:
                return CatalogueAck(generation=node.table.generation)
            if await asyncio.to_thread(self._table_file.is_catalogue_long):
                raise RolloutRefusedError("stale_epoch", "the changes take too much of the disk")
            complete = node.table.catalogue is None or node.table.catalogue.complete
            if complete:
                await asyncio.to_thread(self._table_file.keep_model, document)
            self._revision = change.revision
            before = node.table
            table = before.with_model(change.name, change.model)
            await self._list(table, news=False, models=(change.name,))
            self._load_what_came_anew(before)
        self._residents.look_again()
        if change.model is None or _has_fewer(before, change.model):
            await self._forget_unlisted()
        return CatalogueAck(generation=self._node.table.generation)

    def _check_epoch(self, writer: str, epoch: int) -> None:
        node = self._node
        if (writer, epoch) != (node.catalogue_writer, node.catalogue_epoch):
            raise RolloutRefusedError(
                "stale_epoch", f"the snapshot in place is epoch {node.catalogue_epoch}"
            )

    async def _list(
        self, table: RouteTable, *, news: bool, models: Collection[str] | None = None
    ) -> None:
        """Put a table in place that lists other things; no alias moves by it.

        ``models``: those of which it lists other things; None: any may be.
        """
        before = self._node.table
        moved: list[AliasKey] = []
        if table.active is not before.active:
            moved = [key for key, one in table.active.items() if one is not before.active[key]]
            await asyncio.to_thread(self._table_file.keep_change, table, moved)
        self._node.replace(table, moved, news=news, models=models)

    async def keep_catalogue(self, unchanged: UnchangedCatalogue) -> CatalogueAck:
        """Take note that the registry was listed again, and lists the same. Not written to disk.

        Raises:
            RolloutRefusedError: Another snapshot is in place: the whole one is needed.
        """
        async with self._change:
            node = self._node
            self._check_epoch(unchanged.writer, unchanged.epoch)
            table = node.table.with_listing(unchanged.listed_at, unchanged.source_error)
            node.replace(table, (), news=False, models=())
        return CatalogueAck(generation=self._node.table.generation)

    def _load_what_came_anew(self, before: RouteTable) -> None:
        """Let a copy that was damaged, dropped and fetched again be loaded without a pause."""
        for one in self._node.damaged():
            key = ReplicaKey(one.model, one.version, one.digest)
            if _lists(self._node.table, key) and not _lists(before, key):
                self._node.copy_whole(one.digest)
                self._residents.renew(key)

    async def _forget_unlisted(self) -> None:
        await self._telemetry.forget_all_but(self._is_known)

    def _is_known(self, model: str, version: int | None) -> bool:
        """Ask the table of the moment: another may come between two slices."""
        return self._node.table.knows(model, version)

    # --- stage ------------------------------------------------------------------------------------

    def stage(self, request: StageRequest) -> StageAck:
        """Begin to bring a standby up. Asking again with the same id changes nothing."""
        if request.stage_id not in self._stages and request.stage_id not in self._outcomes:
            task = asyncio.get_running_loop().create_task(self._stage(request))
            self._stages[request.stage_id] = task
            task.add_done_callback(lambda _: self._stages.pop(request.stage_id, None))
        return StageAck(stage_id=request.stage_id)

    async def _stage(self, request: StageRequest) -> None:
        """Bring a standby up, and tell how that ended, whatever raises."""
        log = _log.bind(model=request.model, version=request.version, stage_id=request.stage_id)
        try:
            loaded = await self._bring_up(request, log)
        except LoadError as error:
            log.warning("stage.failed", failure=error.failure, reason=error.message)
            self._finish(request, failure=error.failure, message=error.message, durations={})
        except Exception as error:
            log.exception("stage.failed", failure="load_failed")
            self._residents.unstage(request.stage_id)
            self._finish(request, "internal_error", f"internal error: {error!r}", {})
        else:
            log.info("stage.complete", durations_s=loaded.durations_s, warm_up=loaded.warm_up)
            self._finish(request, failure=None, message=None, durations=loaded.durations_s)

    async def _bring_up(
        self, request: StageRequest, log: structlog.stdlib.BoundLogger
    ) -> messages.Loaded:
        """Load and warm what is staged; then it stands by, or is the first to make room."""
        key = ReplicaKey(request.model, request.version, request.digest)
        policy = self._node.table.policy_of(request.model, request.version, request.digest)
        replaced = self._replaced(request)
        swap = self._swap(request, replaced, policy)
        log.info("stage.started", replaces=request.replaces, swap=swap)
        loaded = await self._residents.stage(
            key,
            request.stage_id,
            replaces=replaced,
            swap=swap,
            replicas=(policy.replicas or 1) if request.keep else 1,
            wait_s=self._stage_wait_s,
        )
        if request.keep:
            self._stand_by(request)
        else:
            self._residents.unstage(request.stage_id)
            self._residents.demote(key)
        return loaded

    def _replaced(self, request: StageRequest) -> ReplicaKey | None:
        """Return what the alias means now, by its bytes: two aliases may share a number only."""
        if request.replaces is None:
            return None
        standby = ReplicaKey(request.model, request.version, request.digest)
        for alias, active in self._node.table.active_of(request.model).items():
            key = ReplicaKey(request.model, active.version, active.digest)
            is_it = request.alias in (None, alias) and active.version == request.replaces
            if is_it and key != standby:
                return key
        return None

    def _swap(self, request: StageRequest, replaced: ReplicaKey | None, policy: Policy) -> str:
        """Return how to swap: never at the cost of another alias that is to mean the old version.

        ``latest`` alone does not count: a promotion, or going back, is worth more than it.
        """
        table = self._node.table
        aspired: dict[str, int] = {}
        with contextlib.suppress(GatewayError):  # nobody lists the model any more
            aspired = table.model(request.model).aliases
        for alias, active in table.active_of(request.model).items():
            means = ReplicaKey(request.model, active.version, active.digest)
            stays = means == replaced and aspired.get(alias) != request.version
            if stays and alias not in (request.alias, LATEST):
                return "blue_green"
        return policy.swap or "blue_green"

    def _stand_by(self, request: StageRequest) -> None:
        self._standbys[request.stage_id] = request
        self._timers[request.stage_id] = asyncio.get_running_loop().call_later(
            self._standby_timeout_s, self._dismiss, request.stage_id
        )

    def _dismiss(self, stage_id: str) -> None:
        """End a standby: it was activated, or its time is over."""
        timer = self._timers.pop(stage_id, None)
        if timer is not None:
            timer.cancel()
        if self._standbys.pop(stage_id, None) is not None:
            self._residents.unstage(stage_id)
            self._node.changed()

    def _finish(
        self,
        request: StageRequest,
        failure: str | None,
        message: str | None,
        durations: dict[str, float],
    ) -> None:
        outcome = StageOutcome.model_validate(
            {
                "stage_id": request.stage_id,
                "model": request.model,
                "version": request.version,
                "digest": request.digest,
                "failure": failure if failure in _FAILURES or failure is None else "load_failed",
                "message": message,
                "durations_s": durations,
            }
        )
        self._outcomes[request.stage_id] = outcome
        while len(self._outcomes) > _REMEMBERED_STAGES:
            self._outcomes.popitem(last=False)
        self._node.report(outcome)

    # --- activate, retire -------------------------------------------------------------------------

    async def activate(self, request: ActivateRequest) -> ActivateAck:
        """Point an alias at a version, in one replacement of the table.

        Raises:
            RolloutRefusedError: Says why; nothing has changed.
        """
        key = (request.model, request.alias)

        def decide(table: RouteTable) -> RouteTable:
            present = table.active.get(key)
            if present and (present.version, present.digest) == (request.version, request.digest):
                # Asked again: the first acknowledgement may have been lost, or two staged the same.
                return table
            self._admit(table, request)
            entry = ActiveAlias(
                model=request.model,
                alias=request.alias,
                version=request.version,
                digest=request.digest,
                since=self._node.clock(),
                previous_version=present.version if present else None,
                previous_digest=present.digest if present else None,
                asked_by=request.asked_by,
            )
            return table.with_active(entry)

        before, after = await self._commit(key, decide)
        if request.stage_id is not None:
            self._dismiss(request.stage_id)
        active = after.active[key]
        if before.active.get(key) is not active:
            self._telemetry.swaps.labels(request.model, request.alias).inc()
            _log.info(
                "activate.complete",
                model=request.model,
                alias=request.alias,
                version=request.version,
                previous=active.previous_version,
                generation=after.generation,
                asked_by=request.asked_by,
            )
        return ActivateAck(generation=after.generation, previous=active.previous_version)

    async def retire(self, request: RetireRequest) -> RetireAck:
        """Take an alias or a standby away, or end a version's worker after its last request.

        Raises:
            RolloutRefusedError: The table has moved on, or the version still serves an alias.
        """
        model, alias = request.model, request.alias
        if alias is None:
            self._check_generation(self._node.table, request.if_generation)
        else:
            await self._retire_alias((model, alias), request.if_generation)
        if request.version is not None:
            self._retire_version(self._node.table, model, request.version)
        if request.stage_id is not None:
            self._dismiss(request.stage_id)
        return RetireAck(generation=self._node.table.generation)

    async def _retire_alias(self, key: AliasKey, if_generation: int | None) -> None:
        def decide(table: RouteTable) -> RouteTable:
            self._check_generation(table, if_generation)
            return table.without_alias(*key) if key in table.active else table

        before, after = await self._commit(key, decide)
        if key in before.active and key not in after.active:
            self._telemetry.forget_alias(*key)
            _log.info("retire.alias", model=key[0], alias=key[1])

    def _retire_version(self, table: RouteTable, model: str, version: int) -> None:
        aliases = [a for a, one in table.active_of(model).items() if one.version == version]
        if aliases:
            raise RolloutRefusedError(
                "invalid_request", f"version {version} still serves alias {aliases[0]!r}"
            )
        for key in self._residents.versions():
            if (key.model, key.version) == (model, version):
                self._residents.retire(key, "retired")
        _log.info("retire.version", model=model, version=version)

    # --- go back, release -------------------------------------------------------------------------

    async def go_back(
        self, bad: ActiveAlias, reason: str, *, before: ActiveAlias | None = None
    ) -> None:
        """Put an alias back to what it pointed at before, and hold it from what it leaves.

        Both are one replacement of the table. The version to go back to is warmed first; beside the
        one that fails, unless its tags say that this one ends before. Without room for that, its
        callers wait for its load.

        Args:
            bad: What the alias points at, and must not any more.
            reason: Why, for people.
            before: How the version to go back to was activated, if that is on trial itself.

        Raises:
            RolloutRefusedError: Says why; nothing has changed.
        """
        back = self._way_back(self._node.table, bad)
        key = (bad.model, bad.alias)
        stage_id = f"rule-{uuid.uuid4().hex}"

        def decide(table: RouteTable) -> RouteTable:
            if table.active.get(key) != bad:
                raise RolloutRefusedError("generation_mismatch", "the alias has moved since")
            self._way_back(table, bad)
            return table.gone_back(*_gone_back(table, bad, reason, before, at=self._node.clock()))

        try:
            await self._warm(back, stage_id, bad)
            _, after = await self._commit(key, decide)
        finally:
            self._residents.unstage(stage_id)
        self._telemetry.swaps.labels(bad.model, bad.alias).inc()
        self._telemetry.rollbacks.labels(bad.model, bad.alias).inc()
        _log.warning(
            "rollback.complete",
            model=bad.model,
            alias=bad.alias,
            version=back.version,
            rejected=bad.version,
            generation=after.generation,
            reason=reason,
        )

    def _way_back(self, table: RouteTable, bad: ActiveAlias) -> ReplicaKey:
        reason = table.why_not_back(bad)
        if reason is not None or bad.previous_version is None or bad.previous_digest is None:
            raise RolloutRefusedError("unknown_version", reason or "there is nothing before")
        return ReplicaKey(bad.model, bad.previous_version, bad.previous_digest)

    async def _warm(self, back: ReplicaKey, stage_id: str, bad: ActiveAlias) -> None:
        """Have a worker of the version to go back to; none, where there is no room for it."""
        request = StageRequest(
            stage_id=stage_id,
            model=back.model,
            version=back.version,
            digest=back.digest,
            alias=bad.alias,
            replaces=bad.version,
        )
        policy = self._node.table.policy_of(*back)
        replaced = ReplicaKey(bad.model, bad.version, bad.digest)
        try:
            await self._residents.stage(
                back,
                stage_id,
                replaces=replaced,
                # Without room at all, a cold start beats staying.
                swap=self._swap(request, replaced, policy),
                replicas=1,  # one is better than the bad ones; its siblings come in their turn
                wait_s=self._stage_wait_s,
            )
        except LoadError as error:
            if error.failure != "no_room":
                raise RolloutRefusedError(
                    "not_staged", f"{back} does not come up: {error.message}"
                ) from error
            _log.warning("rollback.cold", replica=str(back), reason=error.message)

    async def release(self, request: ReleaseRequest) -> ReleaseAck:
        """Let an alias take again what it went back from. What is not held is fine.

        Raises:
            RolloutRefusedError: The table could not be written.
        """
        held = (request.model, request.alias, request.digest)

        def decide(table: RouteTable) -> RouteTable:
            return table if table.hold_on(*held) is None else table.without_hold(*held)

        before, after = await self._commit((request.model, request.alias), decide)
        if before is not after:
            _log.info("release.complete", model=request.model, alias=request.alias)
        return ReleaseAck(generation=after.generation)

    # --- details ----------------------------------------------------------------------------------

    def _admit(self, table: RouteTable, request: ActivateRequest) -> None:
        """Refuse what may not become active. Pure but for the question who was staged."""
        if request.if_active is None:
            self._check_generation(table, request.if_generation)
        else:
            self._check_active(table, request, request.if_active)
        hold = table.hold_on(request.model, request.alias, request.digest)
        if hold is not None:
            raise RolloutRefusedError("held", hold.reason)
        if not self._was_proved(request):
            raise RolloutRefusedError(
                "not_staged",
                f"version {request.version} was not staged and warmed by this gateway with "
                f"digest {request.digest}",
            )

    def _check_generation(self, table: RouteTable, expected: int | None) -> None:
        if expected is not None and expected != table.generation:
            raise RolloutRefusedError(
                "generation_mismatch",
                f"the route table has generation {table.generation}, not {expected}",
            )

    def _check_active(
        self, table: RouteTable, request: ActivateRequest, expected: AliasTarget
    ) -> None:
        found = table.active.get((request.model, request.alias))
        meant = (found.version, found.digest) if found else (None, None)
        if meant != (expected.version, expected.digest):
            raise RolloutRefusedError(
                "generation_mismatch",
                f"alias {request.alias!r} of model {request.model!r} points at version {meant[0]}, "
                f"not {expected.version}",
            )

    def _was_proved(self, request: ActivateRequest) -> bool:
        """Whether this gateway itself has seen these bytes load and warm."""
        key = ReplicaKey(request.model, request.version, request.digest)
        if self._residents.is_ready(key):
            return True
        outcome = self._outcomes.get(request.stage_id or "")
        return (
            outcome is not None
            and outcome.failure is None
            and (outcome.model, outcome.version, outcome.digest)
            == (request.model, request.version, request.digest)
        )

    # --- the table on disk ------------------------------------------------------------------------

    async def _commit(self, key: AliasKey, decide: _Decide) -> tuple[RouteTable, RouteTable]:
        """Have a change decided, written and put in place, with those that wait at that moment.

        Args:
            key: The alias that it is about.
            decide: Returns the next table, or the same one; raises to refuse.

        Returns:
            The tables before and after it.

        Raises:
            RolloutRefusedError: It was refused, or the disk did not take it.
        """
        queued = _Queued(key, decide, asyncio.get_running_loop().create_future())
        self._queue.append(queued)
        if self._committing is None:
            self._committing = asyncio.get_running_loop().create_task(self._commit_queued())
        return await queued.done

    async def _commit_queued(self) -> None:
        """Write what waits until nothing does: a caller that leaves does not stop it."""
        try:
            while self._queue:
                async with self._change:
                    batch, self._queue = self._queue, []
                    await self._commit_batch([one for one in batch if not one.done.done()])
        finally:
            self._committing = None
            for one in self._queue:
                one.done.cancel()
            self._queue = []

    async def _commit_batch(self, batch: list[_Queued]) -> None:
        """Answer every change of a batch, whatever becomes of them."""
        try:
            await self._commit_together(batch)
        except Exception as error:  # noqa: BLE001 - every caller of the batch is told
            _log.exception("commit.failed")
            for one in batch:
                if not one.done.done():
                    one.done.set_exception(error)

    async def _commit_together(self, batch: list[_Queued]) -> None:
        """Decide, disk first, then the snapshot: what is acknowledged survives a crash."""
        table, decided = self._node.table, list[tuple[_Queued, RouteTable, RouteTable]]()
        for one in batch:
            try:
                after = one.decide(table)
            except Exception as error:  # noqa: BLE001 - whoever asked is told; others go on
                one.done.set_exception(error)
                continue
            decided.append((one, table, after))
            table = after
        if table is not self._node.table:
            moved = [one.key for one, before, after in decided if before is not after]
            try:
                await asyncio.to_thread(self._table_file.save_change, table, moved)
            except TableFileError as error:
                for one, _, _ in decided:
                    if not one.done.done():
                        refused = RolloutRefusedError("table_write_failed", str(error))
                        one.done.set_exception(refused)
                return
            # The catalogue may not change between: take_catalogue holds the same lock.
            self._node.replace(table, moved, models={model for model, _ in moved})
            self._telemetry.generation.set(table.generation)
        for one, before, after in decided:
            if not one.done.done():
                one.done.set_result((before, after))

    # --- observe ----------------------------------------------------------------------------------

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        """Return the node's state once its number is above ``after``, or after 25 s as it is.

        Where ``of`` is this boot, what has changed since that number, if that is known still.
        """
        node = self._node
        node.listening(+1)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OBSERVE_TIMEOUT_S):
                    # A number of another boot says nothing about this one: answer at once.
                    while node.seq == after:
                        await node.next_change()
        finally:
            node.listening(-1)
        active = node.table.active
        moved, wishes = node.moved_after(after), node.wishes_after(after)
        if of != node.boot_id or moved is None or wishes is None:
            moved = wishes = None
        whole = moved is None
        keys = active.keys() if moved is None else moved
        return NodeState(
            node_id=node.node_id,
            boot_id=node.boot_id,
            seq=node.seq,
            generation=node.table.generation,
            catalogue_writer=node.catalogue_writer,
            catalogue_epoch=node.catalogue_epoch,
            since=None if whole else after,
            active=[active[key] for key in keys if key in active],
            inactive=[AliasName(model=m, alias=a) for m, a in keys if (m, a) not in active],
            standbys=list(self._standbys.values()),
            wanted=node.wanted() if wishes is None else node.wanted_of(wishes),
            unwanted=[] if wishes is None else node.unwanted_of(wishes),
            resident=sorted(self._residents.digests()) if whole else [],
            holds=list(node.table.holds),
            damaged=node.damaged(),
            damaged_files=self._table_file.damaged(),
            libraries=node.libraries,
            partial_catalogues=True,
            model_changes=True,
            events=node.events_after(after),
        )

    async def close(self) -> None:
        """End what is being staged, and every timer."""
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._stages.values()):
            task.cancel()
        await asyncio.gather(*self._stages.values(), return_exceptions=True)
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)


def _has_fewer(before: RouteTable, model: CatalogueModel) -> bool:
    """Whether a model has lost versions since a table."""
    return before.knows(model.name, None) and len(before.model(model.name).versions) > len(
        model.versions
    )


def _lists(table: RouteTable, key: ReplicaKey) -> bool:
    """Whether the control plane says that these bytes of a version are on this node."""
    with contextlib.suppress(GatewayError):
        return table.version(key.model, key.version).digest == key.digest
    return False


def _gone_back(
    table: RouteTable, bad: ActiveAlias, reason: str, before: ActiveAlias | None, *, at: float
) -> tuple[ActiveAlias, AliasHold]:
    """Return where the alias points now, and what it must not take again.

    A version that is on trial itself goes on being so: what it replaced stays its previous one.
    """
    previous = (before.previous_version, before.previous_digest) if before else None
    version, digest = previous or (bad.version, bad.digest)
    entry = bad.model_copy(
        update={
            "version": bad.previous_version,
            "digest": bad.previous_digest,
            "since": at,
            "previous_version": version,
            "previous_digest": digest,
            "asked_by": "rule",
            "environment": None,
            "policy": None,
        }
    )
    hold = AliasHold(
        model=bad.model,
        alias=bad.alias,
        digest=bad.digest,
        reason=f"went back to version {entry.version} by rule: {reason}",
        version=bad.version,
        since=at,
        to_version=entry.version,
        to_digest=entry.digest,
        generation=table.generation + 1,
    )
    return entry, hold
