"""The spine of a change on this node: stage → activate → go back → retire, and what is observed.

The control plane proposes; this node acknowledges, or refuses with a reason and goes on serving
what it served. One change at a time: ``activate``, ``go_back`` and ``retire`` decide, write
the table to disk, and only then replace the snapshot and answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from typing import get_args

import structlog

from gateway.control_contract import (
    CONTRACT_VERSION,
    OBSERVE_TIMEOUT_S,
    ActivateAck,
    ActivateRequest,
    ActiveAlias,
    AliasHold,
    Catalogue,
    CatalogueAck,
    NodeState,
    Policy,
    ReleaseAck,
    ReleaseRequest,
    RetireAck,
    RetireRequest,
    StageAck,
    StageFailure,
    StageOutcome,
    StageRequest,
    UnchangedCatalogue,
)
from gateway.errors import GatewayError, LoadError, RolloutRefusedError, TableFileError
from gateway.model_ref import LATEST
from gateway.node import Node
from gateway.residency import ResidentSet
from gateway.room import ReplicaKey
from gateway.routing import RouteTable
from gateway.table_file import TableFile
from gateway.telemetry import Telemetry

_REMEMBERED_STAGES = 1024
_FAILURES = frozenset(get_args(StageFailure))
_log = structlog.get_logger("gateway.rollout")


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
                await self._keep_for_the_next_start(document)
            node.catalogue_writer, node.catalogue_epoch = catalogue.writer, catalogue.epoch
            before = node.table
            table = before.with_catalogue(catalogue)
            if table.active is not before.active:
                await self._keep_what_aliases_know(table)
            node.replace(table)
            self._load_what_came_anew(before)
        self._residents.look_again()
        await self._forget_unlisted()
        return CatalogueAck(generation=self._node.table.generation)

    async def _keep_for_the_next_start(self, document: bytes) -> None:
        """Write a catalogue to disk. It counts without: it is published anew after every start."""
        try:
            await asyncio.to_thread(self._table_file.save_catalogue, document)
        except TableFileError as error:
            _log.warning("catalogue.not_written", reason=str(error))

    async def _keep_what_aliases_know(self, table: RouteTable) -> None:
        """Write down what the catalogue told of bytes that it no longer describes."""
        try:
            await asyncio.to_thread(self._table_file.save_table, table)
        except TableFileError as error:
            _log.warning("table.not_written", reason=str(error))

    async def keep_catalogue(self, unchanged: UnchangedCatalogue) -> CatalogueAck:
        """Take note that the registry was listed again, and lists the same. Not written to disk.

        Raises:
            RolloutRefusedError: Another snapshot is in place: the whole one is needed.
        """
        async with self._change:
            node = self._node
            if (unchanged.writer, unchanged.epoch) != (node.catalogue_writer, node.catalogue_epoch):
                raise RolloutRefusedError(
                    "stale_epoch", f"the snapshot in place is epoch {node.catalogue_epoch}"
                )
            node.replace(node.table.with_listing(unchanged.listed_at, unchanged.source_error))
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
        key = ReplicaKey(request.model, request.version, request.digest)
        log = _log.bind(model=request.model, version=request.version, stage_id=request.stage_id)
        policy = self._node.table.policy_of(request.model, request.version, request.digest)
        replaced = self._replaced(request)
        swap = self._swap(request, replaced, policy)
        log.info("stage.started", replaces=request.replaces, swap=swap)
        try:
            loaded = await self._residents.stage(
                key,
                request.stage_id,
                replaces=replaced,
                swap=swap,
                replicas=(policy.replicas or 1) if request.keep else 1,
                wait_s=self._stage_wait_s,
            )
        except LoadError as error:
            log.warning("stage.failed", failure=error.failure, reason=error.message)
            self._finish(request, failure=error.failure, message=error.message, durations={})
            return
        except Exception as error:
            log.exception("stage.failed", failure="load_failed")
            self._finish(request, "worker_died", f"internal error: {error!r}", {})
            return
        log.info("stage.complete", durations_s=loaded.durations_s, warm_up=loaded.warm_up)
        if request.keep:
            self._stand_by(request)
        else:
            self._residents.unstage(request.stage_id)
            self._residents.demote(key)
        self._finish(request, failure=None, message=None, durations=loaded.durations_s)

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
        async with self._change:
            table = self._node.table
            present = table.active.get((request.model, request.alias))
            if present and (present.version, present.digest) == (request.version, request.digest):
                # Asked again: the first acknowledgement may have been lost, or two staged the same.
                if request.stage_id is not None:
                    self._dismiss(request.stage_id)
                return ActivateAck(generation=table.generation, previous=present.previous_version)
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
            await self._put_in_place(table.with_active(entry))
        if request.stage_id is not None:
            self._dismiss(request.stage_id)
        self._telemetry.swaps.labels(request.model, request.alias).inc()
        _log.info(
            "activate.complete",
            model=request.model,
            alias=request.alias,
            version=request.version,
            previous=entry.previous_version,
            generation=self._node.table.generation,
            asked_by=request.asked_by,
        )
        return ActivateAck(generation=self._node.table.generation, previous=entry.previous_version)

    async def retire(self, request: RetireRequest) -> RetireAck:
        """Take an alias or a standby away, or end a version's worker after its last request.

        Raises:
            RolloutRefusedError: The table has moved on, or the version still serves an alias.
        """
        async with self._change:
            table = self._node.table
            self._check_generation(table, request.if_generation)
            if request.alias is not None and (request.model, request.alias) in table.active:
                await self._put_in_place(table.without_alias(request.model, request.alias))
                self._telemetry.forget_alias(request.model, request.alias)
                _log.info("retire.alias", model=request.model, alias=request.alias)
            if request.version is not None:
                self._retire_version(table, request.model, request.version)
            if request.stage_id is not None:
                self._dismiss(request.stage_id)
        return RetireAck(generation=self._node.table.generation)

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
        stage_id = f"rule-{uuid.uuid4().hex}"
        try:
            await self._warm(back, stage_id, bad)
            async with self._change:
                table = self._node.table
                if table.active.get((bad.model, bad.alias)) != bad:
                    raise RolloutRefusedError("generation_mismatch", "the alias has moved since")
                self._way_back(table, bad)
                entry, hold = _gone_back(table, bad, reason, before, at=self._node.clock())
                await self._put_in_place(table.gone_back(entry, hold))
        finally:
            self._residents.unstage(stage_id)
        self._telemetry.swaps.labels(bad.model, bad.alias).inc()
        self._telemetry.rollbacks.labels(bad.model, bad.alias).inc()
        _log.warning(
            "rollback.complete",
            model=bad.model,
            alias=bad.alias,
            version=entry.version,
            rejected=bad.version,
            generation=hold.generation,
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
        async with self._change:
            table = self._node.table
            if table.hold_on(request.model, request.alias, request.digest) is not None:
                released = table.without_hold(request.model, request.alias, request.digest)
                await self._put_in_place(released)
                _log.info("release.complete", model=request.model, alias=request.alias)
        return ReleaseAck(generation=self._node.table.generation)

    # --- details ----------------------------------------------------------------------------------

    def _admit(self, table: RouteTable, request: ActivateRequest) -> None:
        """Refuse what may not become active. Pure but for the question who was staged."""
        self._check_generation(table, request.if_generation)
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

    async def _put_in_place(self, table: RouteTable) -> None:
        """Disk first, then the snapshot: what was acknowledged survives a crash."""
        try:
            await asyncio.to_thread(self._table_file.save_table, table)
        except TableFileError as error:
            raise RolloutRefusedError("table_write_failed", str(error)) from error
        # The catalogue may not change between: take_catalogue holds the same lock.
        self._node.replace(table)
        self._telemetry.generation.set(table.generation)

    # --- observe ----------------------------------------------------------------------------------

    async def observe(self, after: int) -> NodeState:
        """Return the node's state once its number is above ``after``, or after 25 s as it is."""
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
        return NodeState(
            node_id=node.node_id,
            boot_id=node.boot_id,
            seq=node.seq,
            generation=node.table.generation,
            catalogue_writer=node.catalogue_writer,
            catalogue_epoch=node.catalogue_epoch,
            active=list(node.table.active.values()),
            standbys=list(self._standbys.values()),
            wanted=node.wanted(),
            resident=sorted(self._residents.digests()),
            holds=list(node.table.holds),
            damaged=node.damaged(),
            damaged_files=self._table_file.damaged(),
            libraries=node.libraries,
            partial_catalogues=True,
            events=node.events_after(after),
        )

    async def close(self) -> None:
        """End what is being staged, and every timer."""
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._stages.values()):
            task.cancel()
        await asyncio.gather(*self._stages.values(), return_exceptions=True)


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
