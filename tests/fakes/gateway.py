"""A gateway in memory: the control contract without workers. Stages end as the test says."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import get_args

from gateway.control_contract import (
    ActivateAck,
    ActivateRequest,
    ActiveAlias,
    AliasHold,
    Catalogue,
    CatalogueAck,
    CatalogueVersion,
    DamagedCopy,
    Event,
    NackCode,
    NodeState,
    ReleaseAck,
    ReleaseRequest,
    RetireAck,
    RetireRequest,
    StageAck,
    StageFailure,
    StageOutcome,
    StageRequest,
    UnchangedCatalogue,
    Wanted,
)
from gateway.routing import RouteTable
from registry_sync.errors import RolloutRejectedError
from registry_sync.serving_target import TargetUnreachableError

_LONG_POLL_S = 25.0


class FakeGateway:
    """A `ServingTarget`. Event loop only.

    ``fails`` says how the stage of a (model, version) ends; ``stages_wait`` keeps stages under way
    until cleared; ``resident`` is what has a worker; ``down`` makes every call fail;
    ``libraries`` is the mark of its libraries, from its next start on; ``partial_catalogues`` False
    is an older gateway.
    """

    def __init__(self) -> None:
        self.down = False
        self.boot_id = uuid.uuid4().hex
        self.seq = 1
        self.generation = 0
        self.catalogue: Catalogue | None = None
        self.active: dict[tuple[str, str], ActiveAlias] = {}
        self.standbys: dict[str, StageRequest] = {}
        self.outcomes: dict[str, StageOutcome] = {}
        self.events: list[Event] = []
        self.wanted: dict[tuple[str, int], float] = {}
        self.resident: set[str] = set()
        self.fails: dict[tuple[str, int], tuple[StageFailure, str]] = {}
        self.refuses: dict[tuple[str, str], tuple[NackCode, str]] = {}
        self.holds: list[AliasHold] = []
        self.damaged: list[DamagedCopy] = []
        self.libraries: str | None = None
        self.partial_catalogues = True
        self.stages_wait = False
        self.stages: list[StageRequest] = []
        self.activations: list[ActivateRequest] = []
        self.observed = 0
        self.snapshots = 0
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
        """Do what a gateway does by rule."""
        bad = self.active[model, alias]
        assert bad.previous_version is not None
        self.generation += 1
        hold = AliasHold(
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
        self.holds.append(hold)
        self.active[model, alias] = ActiveAlias(
            model=model,
            alias=alias,
            version=bad.previous_version,
            digest=bad.previous_digest or "",
            since=hold.since,
            previous_version=bad.version,
            previous_digest=bad.digest,
            asked_by="rule",
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
        active = self.active.get((model, alias))
        return active.version if active else None

    # --- ServingTarget ----------------------------------------------------------------------------

    async def publish(self, catalogue: Catalogue) -> CatalogueAck:
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
        return CatalogueAck(generation=self.generation)

    async def keep(self, unchanged: UnchangedCatalogue) -> CatalogueAck:
        self._answer()
        present = self.catalogue
        if not present or (present.writer, present.epoch) != (unchanged.writer, unchanged.epoch):
            raise self._nack("stale_epoch", "another snapshot is in place")
        table = RouteTable("champion", catalogue=present)
        self.catalogue = table.with_listing(unchanged.listed_at, unchanged.source_error).catalogue
        self._changed()
        return CatalogueAck(generation=self.generation)

    async def stage(self, request: StageRequest) -> StageAck:
        self._answer()
        if request.stage_id in self.outcomes:
            return StageAck(stage_id=request.stage_id)
        if not any(one.stage_id == request.stage_id for one in self.stages):
            self.stages.append(request)
        if not self.stages_wait:
            self.end_stage(request)
        return StageAck(stage_id=request.stage_id)

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
        self._changed()
        self.events.append(Event(seq=self.seq, at=1.0, stage=outcome))

    async def activate(self, request: ActivateRequest) -> ActivateAck:
        self._answer()
        key = (request.model, request.alias)
        present = self.active.get(key)
        if present and (present.version, present.digest) == (request.version, request.digest):
            return ActivateAck(generation=self.generation, previous=present.previous_version)
        held = [one for one in self.holds if (one.model, one.alias) == key]
        if reason := next((one.reason for one in held if one.digest == request.digest), None):
            raise self._nack("held", reason)
        if key in self.refuses:
            raise self._nack(*self.refuses[key])
        if request.if_generation != self.generation:
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
        return ActivateAck(
            generation=self.generation, previous=present.version if present else None
        )

    async def retire(self, request: RetireRequest) -> RetireAck:
        self._answer()
        if request.if_generation not in (None, self.generation):
            raise self._nack("generation_mismatch", "the table has moved on")
        if request.alias and self.active.pop((request.model, request.alias), None):
            self.generation += 1
            self._changed()
        if request.stage_id and self.standbys.pop(request.stage_id, None):
            self._changed()
        return RetireAck(generation=self.generation)

    async def release(self, request: ReleaseRequest) -> ReleaseAck:
        self._answer()
        gone = (request.model, request.alias, request.digest)
        kept = [one for one in self.holds if (one.model, one.alias, one.digest) != gone]
        if len(kept) != len(self.holds):
            self.holds = kept
            self._changed()
        return ReleaseAck(generation=self.generation)

    async def observe(self, after: int) -> NodeState:
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
        return NodeState(
            node_id="node",
            boot_id=self.boot_id,
            seq=self.seq,
            generation=self.generation,
            catalogue_writer=self.catalogue.writer if self.catalogue else None,
            catalogue_epoch=self.catalogue.epoch if self.catalogue else None,
            active=list(self.active.values()),
            standbys=list(self.standbys.values()),
            wanted=[Wanted(model=m, version=v, since=s) for (m, v), s in self.wanted.items()],
            resident=sorted(self.resident),
            holds=list(self.holds),
            damaged=list(self.damaged),
            libraries=self.libraries,
            partial_catalogues=self.partial_catalogues,
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
        return RolloutRejectedError(code, message, generation=self.generation)


Look = Callable[[], object]


async def becomes(look: Look, what: str, *, patience_s: float = 20.0) -> None:
    """Wait until ``look`` is truthy."""
    try:
        async with asyncio.timeout(patience_s):
            while not look():  # noqa: ASYNC110 - any condition, not an event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it never came true: {what}") from None
