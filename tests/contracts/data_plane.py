"""A data plane without its listeners, over workers of any kind, that is watched while it is used.

Only the launcher differs between a fake and the real thing: node, table, resident set, rollout,
dispatcher and replicas are the ones that serve.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import contract
from gateway.contract.references import AliasRef, ArtifactRef, parse_selector
from gateway.errors import GatewayError, RolloutRefusedError
from gateway.observability.live_tallies import LiveTallies
from gateway.observability.metrics import Telemetry
from gateway.rollout.rollout import Rollout
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.routing.table_file import TableFile
from gateway.serving.admission import Admission
from gateway.serving.call import Call
from gateway.serving.dispatch import Dispatcher
from gateway.serving.replica.launcher import Launcher
from gateway.serving.replica.replica import Replica, ReplicaLimits, ReplicaState
from gateway.serving.replica.requests import WorkerReply
from gateway.serving.residency.decision import ResidentLimits, spared
from gateway.serving.residency.replica_pool import ReplicaPool, Resident
from gateway.serving.residency.resident_set import ResidentSet
from gateway.worker.protocol.messages import Load
from tests.fakes.activations import activation
from tests.fakes.worker import EXIT_ON, HANG_ON

MODELS = ("a", "b", "c")
VERSIONS = (1, 2, 3)
ALIAS = "champion"
SWAPS = {"a": "blue_green", "b": "auto", "c": "unload_first"}
REPLICAS = {"a": 2}
_MAY_END_LEASED = ("stuck", "ended by itself", "shutting down")


def digest_of(version: int) -> str:
    """Return the digest under which a fake artifact of this version is known."""
    return f"sha256:{version:064x}"


@dataclass(eq=False)
class Asked:
    """One caller, and what its answer may be.

    Attributes:
        told: Gets its version and its body, or why there is none.
        leave: Hangs up.
    """

    call: Call
    x: float
    meant: set[int]
    told: asyncio.Future[tuple[int, bytes]]
    leave: Callable[[], object]


@dataclass(frozen=True)
class Terms:
    """How much there is of everything. Seconds and bytes.

    Attributes:
        version_bytes: What one worker of a version takes.
    """

    workers: int
    room_bytes: int
    version_bytes: Callable[[int], int]
    request_timeout_s: float
    stuck_grace_s: float
    load_budget_s: float


@dataclass
class Requirements:
    """What the resident set must know about versions."""

    node: Node
    terms: Terms

    def estimate_bytes(self, key: ArtifactRef) -> int:
        return self.terms.version_bytes(key.version)

    def replicas(self, key: ArtifactRef) -> int:
        return REPLICAS.get(key.model, 1)

    def restarts(self, key: ArtifactRef) -> bool:
        return key in self.node.table.targets

    def is_reachable(self, key: ArtifactRef) -> bool:
        return True

    def keep_resident(self, key: ArtifactRef) -> bool:
        return False


class DataPlane:
    """What a machine of random operations plays on. All methods on one event loop."""

    def __init__(
        self,
        folder: Path,
        launcher: Launcher,
        terms: Terms,
        orders: Callable[[ArtifactRef], Load],
        digests: Callable[[int], str] = digest_of,
    ) -> None:
        """Build it. ``orders`` says what a worker is told about a version."""
        self.terms = terms
        self.digests = digests
        self.violations: list[str] = []
        self.tally: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.changes: set[asyncio.Task[Any]] = set()
        self._about_to_be_active: Counter[tuple[str, int]] = Counter()
        self._grown: dict[int, int] = {}
        self._orders = orders
        self._launcher = launcher
        self._ids = itertools.count()
        self.node = Node(node_id="n", boot_id="b", table=RouteTable(ALIAS))
        self.node.replace(self.node.table.with_catalogue(_catalogue(digests)))
        self.residents = ResidentSet(
            ReplicaPool(new_replica=self._new_replica, prepare=self._prepare, observer=self),
            limits=ResidentLimits(terms.workers, terms.room_bytes),
            load_budget_s=terms.load_budget_s,
            max_waiting=1000,
            requirements=Requirements(self.node, terms),
        )
        self.rollout = Rollout(
            node=self.node,
            residents=self.residents,
            table_file=TableFile(folder),
            telemetry=Telemetry(),
            stage_wait_s=terms.load_budget_s,
        )
        self.dispatcher = Dispatcher(
            self.node,
            self.residents,
            LiveTallies(),
            request_timeout_s=terms.request_timeout_s,
            load_budget_s=terms.load_budget_s,
            max_waiting=1000,
        )
        self.admission = Admission(max_in_flight=1000, max_in_flight_bytes=1 << 20)

    # --- what can be done with it -----------------------------------------------------------------

    def ask(self, model: str, selector: str, x: float, *, whole: bool = True) -> None:
        """Send a request: ``whole``, as most come, or in pieces."""
        call = Call(
            model=model,
            selector=parse_selector(selector),
            second_selector=None,
            protocol="predict",
            content_type="application/json",
            content_encoding="",
            request_id="r",
            body=json.dumps({"features": [x]}).encode(),
            slot=self.admission.enter(1),
        )
        meant = {int(selector)} if selector.isdigit() else self._active(model)
        if whole:
            told: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
            self.asked.append(Asked(call, x, meant, told, call.leave))
            self._begin(call, told)
        else:
            task = asyncio.ensure_future(self._answered(call))
            self.asked.append(Asked(call, x, meant, task, task.cancel))

    def _begin(self, call: Call, told: asyncio.Future[tuple[int, bytes]]) -> None:
        def ended(pending: asyncio.Future[WorkerReply]) -> None:
            call.slot.release()
            if told.done():
                self.violations.append(f"{call!r} was told twice")
            elif pending.cancelled():
                told.cancel()
            elif (error := pending.exception()) is not None:
                told.set_exception(error)
            else:
                assert call.route is not None
                told.set_result((call.route.version, pending.result().body))

        try:
            self.dispatcher.begin(call, ended)
        except GatewayError as error:
            call.slot.release()
            told.set_exception(error)

    async def _answered(self, call: Call) -> tuple[int, bytes]:
        try:
            reply = await self.dispatcher.predict(call)
            assert call.route is not None
            return call.route.version, reply.body
        finally:
            call.slot.release()

    def hang_up(self, number: int) -> None:
        """Let one of the callers leave."""
        waiting = [one for one in self.asked if not one.told.done()]
        if waiting:
            waiting[number % len(waiting)].leave()

    def promote(self, model: str, version: int) -> None:
        """Begin to point the alias at a version, as the control plane does."""
        self._change(self._promote(model, version))

    def roll_back(self, model: str) -> None:
        """Begin to point the alias at what it meant before."""
        active = self.node.table.active.get(AliasRef(model, ALIAS))
        if active is not None and active.previous_version is not None:
            self._change(self._promote(model, active.previous_version))

    def grow(self, number: int, more_bytes: int) -> None:
        """Let a ready worker tell, as in a probe's answer, that it holds more than when it came."""
        ready = [one for one in self.residents.residents() if one.ready]
        if ready:
            one = ready[number % len(ready)]
            self._grown[one.number] = self._grown.get(one.number, 0) + more_bytes
            self.tally["grown"] += 1
            self.residents.measured(one, one.bytes + more_bytes)
            self._check_trimmed()

    def _check_trimmed(self) -> None:
        """See that idle workers went, if that is enough to be within the room again."""
        kept = spared(self.residents._queue.standbys.values())
        staying = [one for one in self.residents.residents() if not one.ending]
        idle = [one for one in staying if one.ready and not one.leases and one.key not in kept]
        excess = sum(one.bytes for one in staying) - self.terms.room_bytes
        assert excess <= 0 or sum(one.bytes for one in idle) < excess, staying

    def workers(self) -> list[Resident]:
        """Return those whose process has been started."""
        return [one for one in self.residents.residents() if one.replica.pid is not None]

    def _change(self, change: Any) -> None:
        task = asyncio.ensure_future(change)
        self.changes.add(task)
        task.add_done_callback(self._changed)

    def _changed(self, task: asyncio.Task[Any]) -> None:
        self.changes.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RolloutRefusedError):
            self.violations.append(f"a change ended with {error!r}")

    async def _promote(self, model: str, version: int) -> None:
        stage_id = f"s{next(self._ids)}"
        active = self.node.table.active.get(AliasRef(model, ALIAS))
        request = contract.StageRequest(
            stage_id=stage_id,
            model=model,
            version=version,
            digest=self.digests(version),
            replaces=active.version if active else None,
        )
        self.rollout.standbys.start(request)
        while (outcome := self._outcome(stage_id)) is None:
            await self.node.next_change()
        if outcome.failure is not None:
            return
        for one in self.asked:  # from now on an answer by the alias may be this version's
            if one.call.model == model and not one.told.done() and not _by_number(one):
                one.meant.add(version)
        ref = ArtifactRef(model, version, self.digests(version))
        self._about_to_be_active[model, version] += 1
        try:
            await self.rollout.activate(activation(self.node.table, ALIAS, ref, stage_id=stage_id))
        except RolloutRefusedError:
            await self.rollout.retire(contract.RetireRequest(model=model, stage_id=stage_id))
            raise
        finally:
            self._about_to_be_active[model, version] -= 1
        self.tally["swapped"] += 1

    def _outcome(self, stage_id: str) -> contract.StageOutcome | None:
        events = (event.stage for event in self.node.events_after(0))
        return next((one for one in events if one.stage_id == stage_id), None)

    def _active(self, model: str) -> set[int]:
        """Return what an alias may mean to who asks now."""
        active = self.node.table.active.get(AliasRef(model, ALIAS))
        soon = {
            v for (name, v), count in self._about_to_be_active.items() if count and name == model
        }
        return soon | ({active.version} if active else set())

    # --- what must hold at any time ---------------------------------------------------------------

    def check(self) -> None:
        """Look for what may never be."""
        residents = self.residents.residents()
        assert not self.violations, self.violations
        assert len(residents) <= self.terms.workers, residents
        held = sum(one.bytes for one in residents)
        grown = sum(self._grown.get(one.number, 0) for one in residents)
        assert held <= self.terms.room_bytes + grown, (held, grown, residents)
        for one in residents:
            assert one.leases >= 0, one
            assert not (one.leases and one.replica.state is ReplicaState.STOPPED), one
            assert one.replica.in_flight <= one.leases, one
        for asked in [one for one in self.asked if one.told.done()]:
            self.asked.remove(asked)
            self._check_answer(asked)

    def _check_answer(self, asked: Asked) -> None:
        if asked.told.cancelled():
            self.tally["hung_up"] += 1
            return
        error = asked.told.exception()
        if error is not None:
            assert isinstance(error, GatewayError), repr(error)
            self.tally[error.code] += 1
            return
        self.tally["answered"] += 1
        version, body = asked.told.result()
        assert json.loads(body)["predictions"] == [version * asked.x], (version, asked)
        assert version in asked.meant, (version, asked)
        assert asked.x not in (HANG_ON, EXIT_ON), (version, asked)

    async def finish(self) -> None:
        """See that every caller is answered, that nothing is held, and that every worker ends.

        And that the node still serves: whatever has happened, whoever asks now by an alias whose
        version is not left alone gets a prediction.
        """
        async with asyncio.timeout(120):
            await self._answer_all()
            await self._all_let_go()
            for model in MODELS:
                await self._still_serves(model)
            await self._all_let_go()
            await self._fits_again()
        assert (self.admission.in_flight, self.admission.in_flight_bytes) == (0, 0)
        await self.rollout.close()
        await self.residents.close(5.0)
        assert (left := self.residents.residents()) == [], left
        assert not self.violations, self.violations

    async def _answer_all(self) -> None:
        while self.asked or self.changes:
            await asyncio.sleep(0.005)
            self.check()

    async def _all_let_go(self) -> None:
        """Wait until workers have answered, or ended, those whose callers have left."""
        while any(one.leases for one in self.residents.residents()):  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.005)

    async def _fits_again(self) -> None:
        """Wait until no more is held than may be, once somebody has measured it."""
        while held := self.residents.residents():
            if sum(one.bytes for one in held) <= self.terms.room_bytes:
                return
            self.residents.measured(held[0], held[0].bytes)
            await asyncio.sleep(0.005)

    async def _still_serves(self, model: str) -> None:
        active = self.node.table.active.get(AliasRef(model, ALIAS))
        if active is None:
            return
        key = ArtifactRef(model, active.version, active.digest)
        if self.residents.load_history.trouble(key) is not None:
            return
        before = self.tally["answered"]
        self.ask(model, f"@{ALIAS}", 7.0)
        (asked,) = self.asked
        await self._answer_all()
        told = asked.told.exception() or asked.told.result()
        assert self.tally["answered"] == before + 1, (told, self.residents.residents())

    # --- what it is built of ----------------------------------------------------------------------

    async def _prepare(self, key: ArtifactRef) -> Load:
        return self._orders(key)

    def _new_replica(self, key: ArtifactRef, on_stopped: Callable[[Replica], None]) -> Replica:
        limits = ReplicaLimits(
            max_in_flight=100,
            max_in_flight_bytes=1 << 20,
            load_timeout_s=60.0,
            warm_up_timeout_s=60.0,
            stuck_grace_s=self.terms.stuck_grace_s,
        )
        return _WatchedReplica(self, str(key), self._launcher, limits, on_stopped)

    def loaded(self, key: ArtifactRef, seconds: float, resident_bytes: int) -> None:
        """Count."""
        self.tally["loaded"] += 1

    def load_failed(self, key: ArtifactRef, failure: str, message: str) -> None:
        """Count."""
        self.tally["load_failed"] += 1

    def ended(self, key: ArtifactRef, reason: str, *, evicted: bool, died: bool) -> None:
        """Count."""
        self.tally["evicted" if evicted else "ended"] += 1


class _WatchedReplica(Replica):
    """A replica that tells when it is ended although somebody has a lease on it."""

    def __init__(self, plane: DataPlane, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._plane = plane

    def stop(self, reason: str) -> None:
        self._note_end(reason)
        super().stop(reason)

    def kill(self, reason: str) -> None:
        self._note_end(reason)
        super().kill(reason)

    def _note_end(self, reason: str) -> None:
        if self.state is not ReplicaState.READY or any(ok in reason for ok in _MAY_END_LEASED):
            return
        for one in self._plane.residents.residents():
            if one.replica is self and one.leases:
                self._plane.violations.append(f"{self!r} with {one.leases} leases ended: {reason}")


def _by_number(asked: Asked) -> bool:
    return isinstance(asked.call.selector, int)


def _catalogue(digests: Callable[[int], str]) -> contract.Catalogue:
    models = [
        contract.CatalogueModel(
            name=name,
            versions=[
                contract.CatalogueVersion(
                    version=version,
                    state=contract.VersionState.AVAILABLE,
                    digest=digests(version),
                )
                for version in VERSIONS
            ],
            aliases={ALIAS: 1},
            policy=contract.Policy(swap=SWAPS[name], replicas=REPLICAS.get(name)),
        )
        for name in MODELS
    ]
    return contract.Catalogue(writer="w", epoch=1, models=models)


@dataclass
class LoopErrors:
    """Collects what the event loop would only log."""

    seen: list[str] = field(default_factory=list)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.seen.append(f"{context.get('message')}: {context.get('exception')!r}")
