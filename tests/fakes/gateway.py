"""A gateway in memory: the control contract without workers. Stages end as the test says."""

import asyncio
import time
import uuid
from typing import get_args

from gateway.contract.body import AliasBody
from gateway.contract.catalogue import (
    Catalogue,
    CatalogueVersion,
    ModelChange,
    UnchangedCatalogue,
)
from gateway.contract.node_state import (
    AbandonedVersion,
    ActiveAlias,
    AwaitedVersion,
    DamagedCopy,
    Event,
    NodeState,
    RefusedDigest,
)
from gateway.contract.references import AliasRef
from gateway.contract.rollout_requests import (
    Ack,
    ActivateRequest,
    AllowRequest,
    NackCode,
    RetireRequest,
    StageFailure,
    StageOutcome,
    StageRequest,
)
from gateway.routing.node import MOST_EVENTS
from gateway.routing.route_table import RouteTable
from registry_sync.errors import RolloutRejectedError
from registry_sync.reconcile.gateway.target import TargetUnreachableError

_LONG_POLL_S = 25.0


class FakeGateway:
    """A `ServingTarget`. Event loop only.

    ``fails`` says how the stage of a (model, version) ends; ``stages_wait`` keeps stages under way
    until cleared; ``resident`` is what has a worker; ``down`` makes every call fail;
    ``libraries`` is the mark of its libraries, from its next start on. ``snapshots`` and
    ``changes`` count what came of the catalogue, and ``differences`` the states that were told as
    such.
    """

    def __init__(self) -> None:
        self.down = False
        self.boot_id = uuid.uuid4().hex
        self.seq = 1
        self.generation = 0
        self.catalogue: Catalogue | None = None
        self.active: dict[AliasRef, ActiveAlias] = {}
        self.standbys: dict[str, StageRequest] = {}
        self.outcomes: dict[str, StageOutcome] = {}
        self.events: list[Event] = []
        self.wanted: dict[tuple[str, int], float] = {}
        self.wanted_for: dict[tuple[str, int], str] = {}
        self.resident: set[str] = set()
        self.fails: dict[tuple[str, int], tuple[StageFailure, str]] = {}
        self.refuses: dict[tuple[str, str], tuple[NackCode, str]] = {}
        self.refused_digests: list[RefusedDigest] = []
        self.damaged: list[DamagedCopy] = []
        self.libraries: str | None = None
        self.stages_wait = False
        self.stages: list[StageRequest] = []
        self.activations: list[ActivateRequest] = []
        self.observed = 0
        self.snapshots = 0
        self.changes: list[str] = []
        self.differences = 0
        self._told: dict[int, tuple[dict[AliasRef, ActiveAlias], list[AwaitedVersion]]] = {}
        self._change = asyncio.Event()

    # --- what a test does -------------------------------------------------------------------------

    def want(self, model: str, version: int) -> None:
        """A caller waits for a version's bytes."""
        self.wanted[model, version] = 1.0
        self._changed()

    def find_damaged(self, model: str, version: int, at: float | None = None) -> None:
        """A worker was to be loaded from a copy that was altered: of what serves, or did before."""
        digest = next(
            digest
            for one in self.active.values()
            for number, digest in (
                (one.version, one.digest),
                (one.previous_version, one.previous_digest),
            )
            if (one.model, number) == (model, version) and digest
        )
        self.damaged = [
            DamagedCopy(
                model=model, version=version, digest=digest, at=at or time.time(), reason="altered"
            )
        ]
        self._changed()

    def find_whole(self) -> None:
        """Every copy was loaded, or has come anew."""
        self.damaged = []
        self._changed()

    def restart(self, *, lose_table: bool = False) -> None:
        """Start anew: stages and catalogue are gone; the table is on disk, if not lost."""
        self.boot_id = uuid.uuid4().hex
        self.catalogue = None
        self.standbys.clear()
        self.outcomes.clear()
        self.events.clear()
        if lose_table:
            self.active.clear()
            self.generation = 0
        self.seq += 1000
        self._changed()

    def go_back(self, model: str, alias: str, reason: str, *, since: float | None = None) -> None:
        """Make an automatic rollback."""
        bad = self.active[AliasRef(model, alias)]
        assert bad.previous_version is not None
        self.generation += 1
        hold = RefusedDigest(
            model=model,
            alias=alias,
            digest=bad.digest,
            reason=reason,
            version=bad.version,
            since=time.time() if since is None else since,
            to_version=bad.previous_version,
            to_digest=bad.previous_digest,
            generation=self.generation,
        )
        self.refused_digests.append(hold)
        self.active[AliasRef(model, alias)] = ActiveAlias(
            model=model,
            alias=alias,
            version=bad.previous_version,
            digest=bad.previous_digest or "",
            since=hold.since,
            previous_version=bad.version,
            previous_digest=bad.digest,
            asked_by="gateway",
        )
        self._changed()

    def lose_standby(self, stage_id: str) -> None:
        self.standbys.pop(stage_id, None)
        self._changed()

    def version(self, model: str, version: int) -> CatalogueVersion | None:
        """What the catalogue says of a version."""
        for listed in self.catalogue.models if self.catalogue else ():
            if listed.name == model:
                return next((one for one in listed.versions if one.version == version), None)
        return None

    def points(self, model: str, alias: str) -> int | None:
        active = self.active.get(AliasRef(model, alias))
        return active.version if active else None

    # --- ServingTarget ----------------------------------------------------------------------------

    async def publish(self, catalogue: Catalogue) -> Ack:
        self._answer()
        before = self.catalogue
        if before and before.writer == catalogue.writer and before.epoch >= catalogue.epoch:
            raise self._nack("stale_epoch", "an epoch as new was taken before")
        table = RouteTable("champion", catalogue=before, active=self.active)
        table = table.with_catalogue(catalogue)
        self.catalogue, self.active = table.catalogue, dict(table.active)
        self.snapshots += 1
        here = {(m.name, v.version) for m in catalogue.models for v in m.versions if v.digest}
        self.wanted = {key: since for key, since in self.wanted.items() if key not in here}
        self._changed()
        return Ack(generation=self.generation)

    async def change(self, change: ModelChange) -> Ack:
        self._answer()
        present = self.catalogue
        if not present or (present.writer, present.epoch) != (change.writer, change.epoch):
            raise self._nack("stale_epoch", "another snapshot is in place")
        table = RouteTable("champion", catalogue=present, active=self.active)
        table = table.with_model(change.name, change.model)
        moved = table.active is not self.active
        self.catalogue, self.active = table.catalogue, dict(table.active)
        self.changes.append(change.name)
        versions = change.model.versions if change.model else []
        here = {(change.name, one.version) for one in versions if one.digest}
        if moved or here & self.wanted.keys():
            self.wanted = {key: since for key, since in self.wanted.items() if key not in here}
            self._changed()
        return Ack(generation=self.generation)

    async def keep(self, unchanged: UnchangedCatalogue) -> Ack:
        self._answer()
        present = self.catalogue
        if not present or (present.writer, present.epoch) != (unchanged.writer, unchanged.epoch):
            raise self._nack("stale_epoch", "another snapshot is in place")
        table = RouteTable("champion", catalogue=present)
        self.catalogue = table.with_listing(unchanged.listed_at, unchanged.source_error).catalogue
        return Ack(generation=self.generation)

    async def stage(self, request: StageRequest) -> Ack:
        self._answer()
        if request.stage_id in self.outcomes:
            return Ack(generation=self.generation)
        if not any(one.stage_id == request.stage_id for one in self.stages):
            self.stages.append(request)
        if not self.stages_wait:
            self.end_stage(request)
        return Ack(generation=self.generation)

    def end_stage(self, request: StageRequest) -> None:
        """Let a stage end, as ``fails`` says."""
        failure, message = self.fails.get((request.model, request.version), (None, None))
        outcome = StageOutcome(
            stage_id=request.stage_id,
            model=request.model,
            version=request.version,
            digest=request.digest,
            failure=failure,
            message=message,
            durations_s={"load": 0.25},
        )
        self.outcomes[request.stage_id] = outcome
        if failure is None and request.keep:
            self.standbys[request.stage_id] = request
        self.report(outcome)

    def report(self, outcome: StageOutcome) -> None:
        """Tell of an outcome until it is acknowledged; of as many as a gateway tells."""
        self._changed()
        self.events = [*self.events, Event(seq=self.seq, stage=outcome)][-MOST_EVENTS:]

    async def activate(self, request: ActivateRequest) -> Ack:
        self._answer()
        key = request.alias_ref
        present = self.active.get(key)
        if present and (present.version, present.digest) == (request.version, request.digest):
            return Ack(generation=self.generation)
        held = [one for one in self.refused_digests if one.alias_ref == key]
        if reason := next((one.reason for one in held if one.digest == request.digest), None):
            raise self._nack("digest_refused", reason)
        if key in self.refuses:
            raise self._nack(*self.refuses[key])
        meant = (present.version, present.digest) if present else (None, None)
        if (request.if_active.version, request.if_active.digest) != meant:
            raise self._nack("generation_mismatch", "the table has moved on")
        outcome = self.outcomes.get(request.stage_id or "")
        if outcome is None or outcome.failure or outcome.digest != request.digest:
            raise self._nack("not_staged", "this version was not staged by this gateway")
        self.generation += 1
        self.activations.append(request)
        self.active[key] = ActiveAlias(
            model=request.model,
            alias=request.alias,
            version=request.version,
            digest=request.digest,
            since=time.time(),
            previous_version=present.version if present else None,
            previous_digest=present.digest if present else None,
            asked_by=request.asked_by,
        )
        self.standbys.pop(request.stage_id or "", None)
        self._changed()
        return Ack(generation=self.generation)

    async def retire(self, request: RetireRequest) -> Ack:
        self._answer()
        if request.alias and self.active.pop(AliasRef(request.model, request.alias), None):
            self.generation += 1
            self._changed()
        if request.stage_id and self.standbys.pop(request.stage_id, None):
            self._changed()
        return Ack(generation=self.generation)

    async def allow(self, request: AllowRequest) -> Ack:
        self._answer()
        gone = (request.alias_ref, request.digest)
        kept = [one for one in self.refused_digests if (one.alias_ref, one.digest) != gone]
        if len(kept) != len(self.refused_digests):
            self.refused_digests = kept
            self._changed()
        return Ack(generation=self.generation)

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        self._answer()
        try:
            async with asyncio.timeout(_LONG_POLL_S):
                while self.seq == after:
                    await self._change.wait()
        except TimeoutError:
            pass
        self._answer()
        self.observed += 1
        self.events = [event for event in self.events if event.seq > after]
        wanted = [
            AwaitedVersion(model=m, version=v, since=s, alias=self.wanted_for.get((m, v)))
            for (m, v), s in self.wanted.items()
        ]
        told = self._told.get(after) if of == self.boot_id else None
        self._told = {**dict(list(self._told.items())[-20:]), self.seq: (dict(self.active), wanted)}
        self.differences += told is not None
        before, wished = told or ({}, [])
        moved = [one for key, one in self.active.items() if before.get(key) != one]
        gone = [AliasBody(**key._asdict()) for key in before if key not in self.active]
        names = {(one.model, one.version, one.alias) for one in wanted}
        unwanted = [
            AbandonedVersion(model=one.model, version=one.version, alias=one.alias)
            for one in wished
            if (one.model, one.version, one.alias) not in names
        ]
        return NodeState(
            node_id="node",
            boot_id=self.boot_id,
            seq=self.seq,
            generation=self.generation,
            catalogue_writer=self.catalogue.writer if self.catalogue else None,
            catalogue_epoch=self.catalogue.epoch if self.catalogue else None,
            since=None if told is None else after,
            active=moved,
            inactive=gone,
            standbys=list(self.standbys.values()),
            wanted=[one for one in wanted if one not in wished],
            unwanted=unwanted,
            resident=sorted(self.resident) if told is None else [],
            refused_digests=list(self.refused_digests),
            damaged=list(self.damaged),
            libraries=self.libraries,
            events=list(self.events),
        )

    def stop(self) -> None:
        """Answer nobody any more, long polls included."""
        self.down = True
        self._changed()

    def _answer(self) -> None:
        if self.down:
            raise TargetUnreachableError("the gateway does not answer")

    def _changed(self) -> None:
        self.seq += 1
        waiting, self._change = self._change, asyncio.Event()
        waiting.set()

    def _nack(self, code: NackCode, message: str) -> RolloutRejectedError:
        assert code in get_args(NackCode)
        return RolloutRejectedError(code, message)
