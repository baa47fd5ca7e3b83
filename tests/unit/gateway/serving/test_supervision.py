"""Probes: silent and wrong replicas are replaced, and none delays the others."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.bootstrap import _LoadObserver
from gateway.contract.references import ArtifactRef
from gateway.errors import LoadError, NotDeliveredError, TableFileError
from gateway.observability.metrics import Telemetry
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.replica.replica import ReplicaState
from gateway.serving.supervision import Supervisor, may_go
from gateway.worker.protocol.messages import Alive
from tests.fakes.resident_set import World, key, until
from tests.fakes.waiting import becomes

INTERVAL_S = 0.01
KEY = ArtifactRef("m", 1, "sha256:" + "a" * 64)


class Probed:
    """A replica that takes so long to predict its example."""

    in_flight = 0

    def __init__(self, seconds: float) -> None:
        self.seconds, self.probes, self.example_s = seconds, 0, 0.0
        self.killed: str | None = None

    async def probe(self, timeout_s: float) -> Alive:
        self.probes += 1
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(self.seconds)
        self.example_s = self.seconds
        return Alive(1, True, "")

    def kill(self, reason: str) -> None:
        self.killed = reason


class Odd(Probed):
    """Its answer to a probe is none."""

    async def probe(self, timeout_s: float) -> Alive:
        raise ValueError("nonsense")


class Busy(Probed):
    """A quick one with a queue: the first answer comes too late, the next ones late."""

    in_flight = 1

    async def probe(self, timeout_s: float) -> Alive:
        self.probes += 1
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(0.08 if self.probes > 1 else 3600)
        return Alive(1, True, "")


class Residents:
    """What the supervisor asks of the resident set."""

    def __init__(self, *replicas: Probed) -> None:
        self.replicas, self.rounds, self.measurements = replicas, 0, 0

    def residents(self) -> list[Any]:
        return [
            SimpleNamespace(replica=one, ready=not one.killed, key=KEY._replace(version=number))
            for number, one in enumerate(self.replicas)
        ]

    def measured(self, resident: Any, private_bytes: int) -> None:
        self.measurements += 1

    def end_idle(self, idle_s: float, ends: Any) -> None:
        self.rounds += 1
        if self.rounds == 1:
            raise RuntimeError("odd")

    def hottest(self) -> list[ArtifactRef]:
        return []

    def cool(self) -> None:
        """Nothing."""


def supervisor(residents: Residents, own_timeout_s: float | None = None) -> Supervisor:
    versions: Any = SimpleNamespace(
        timeout_s=lambda key: own_timeout_s, ends_when_idle=lambda key: False
    )
    given: Any = residents
    table_file: Any = SimpleNamespace(write_due=lambda: None)
    return Supervisor(
        given,
        versions,
        table_file,
        interval_s=0.01,
        request_timeout_s=0.05,
        stuck_grace_s=0.05,
        idle_s=1,
    )


async def watched(residents: Residents, own_timeout_s: float | None, until: Any) -> None:
    watch = asyncio.ensure_future(supervisor(residents, own_timeout_s).run())
    await becomes(until, "it has been looked at")
    assert not watch.done()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_silent_worker_is_ended_and_delays_no_other() -> None:
    silent, sound = Probed(3600.0), Probed(0.0)
    await watched(Residents(silent, sound), None, lambda: silent.killed)
    assert sound.probes > 3
    assert sound.killed is None


async def test_example_may_take_the_models_time_out() -> None:
    slow = Probed(0.2)
    residents = Residents(slow)
    await watched(residents, 5.0, lambda: residents.measurements)
    assert slow.killed is None


async def test_probes_take_a_tenth_of_a_workers_time_at_most() -> None:
    slow, quick = Probed(0.04), Probed(0.0)
    began_at = time.monotonic()
    await watched(Residents(slow, quick), 5.0, lambda: slow.probes == 3)
    assert time.monotonic() - began_at > 2 * (1 + 9) * slow.seconds
    assert quick.probes > slow.probes


async def test_busy_worker_is_not_slow() -> None:
    busy = Busy(0.0)
    began_at = time.monotonic()
    await watched(Residents(busy), None, lambda: busy.probes == 4)
    assert time.monotonic() - began_at < (1 + 9) * 0.08, "its queue is not its example"
    assert busy.killed is None


async def test_worker_with_an_invalid_probe_reply_is_ended() -> None:
    odd = Odd(0.0)
    await watched(Residents(odd), None, lambda: odd.killed)
    assert "its probe failed" in str(odd.killed)


async def test_one_that_is_about_to_end_is_no_failure() -> None:
    class WaitOutcome(Probed):
        async def probe(self, timeout_s: float) -> Alive:
            self.probes += 1
            raise NotDeliveredError

    ending = WaitOutcome(0.0)
    with capture_logs() as logs:
        await watched(Residents(ending), None, lambda: ending.probes > 2)
    assert ending.killed is None
    assert [one for one in logs if one.get("replica")] == []


async def test_fault_while_taking_a_measurement_ends_no_other_probe() -> None:
    class Odd(Residents):
        def measured(self, resident: Any, private_bytes: int) -> None:
            super().measured(resident, private_bytes)
            if resident.key.version == 0:
                raise RuntimeError("odd")

    residents = Odd(Probed(0.0), Probed(0.0))
    await watched(residents, None, lambda: residents.measurements > 6)


async def test_what_is_hot_is_written_when_it_changes_and_until_the_disk_takes_it() -> None:
    residents, written = Residents(), list[list[ArtifactRef]]()
    of = supervisor(residents)
    hot = [KEY]
    residents.hottest = lambda: list(hot)  # type: ignore[method-assign]  # what the test says

    def save(keys: list[ArtifactRef]) -> None:
        written.append(keys)
        if len(written) == 1:
            raise TableFileError("the disk is full")

    of._table_file = SimpleNamespace(save_hot=save, write_due=lambda: None)  # type: ignore[assignment]  # a fake
    for _ in range(4):
        await of.remember_hot()
    assert written == [[KEY], [KEY]]
    hot.append(KEY._replace(version=2))
    watch = asyncio.ensure_future(of.run())
    await becomes(lambda: len(written) == 3, "what is hot now is written")
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert written[2:] == [hot]


async def test_the_rounds_have_their_interval() -> None:
    residents = Residents()
    began_at = time.monotonic()
    await watched(residents, None, lambda: residents.rounds > 5)
    assert time.monotonic() - began_at > 5 * INTERVAL_S


async def test_failed_round_is_not_the_last() -> None:
    residents = Residents()
    await watched(residents, None, lambda: residents.rounds > 2)


def a_node() -> Node:
    return Node(node_id="n", boot_id="b", table=RouteTable("champion"))


async def test_damaged_copy_is_reported_until_one_was_loaded() -> None:
    node = a_node()
    observer = _LoadObserver(Telemetry(), node)
    observer.load_failed(KEY, "load_failed", "the model raised ImportError")
    assert node.damaged() == []
    before = node.seq
    observer.load_failed(KEY, "integrity", "'model.pkl' is not the file of the manifest")
    (told,) = node.damaged()
    assert (told.model, told.version, told.digest) == (KEY.model, KEY.version, KEY.digest)
    assert "model.pkl" in told.reason
    assert node.seq > before
    observer.loaded(KEY, 0.5, 1)
    assert node.damaged() == []


def supervisor_of(world: World) -> Supervisor:
    given: Any = world
    none: Any = SimpleNamespace(save_hot=lambda hot: None, write_due=lambda: None)
    return Supervisor(
        world.set,
        given,
        none,
        interval_s=INTERVAL_S,
        request_timeout_s=5,
        stuck_grace_s=5,
        idle_s=3600,
    )


@asynccontextmanager
async def supervised(world: World) -> AsyncIterator[None]:
    """The resident set of a world, under the eyes of a supervisor."""
    watch = asyncio.ensure_future(supervisor_of(world).run())
    try:
        yield
    finally:
        assert not watch.done()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def up(world: World, count: int) -> list[Any]:
    """Bring ``count`` workers of the version ``a`` up."""
    world.asked_replicas["a"] = count
    await world.use("a")
    await until(lambda: sum(one.state is ReplicaState.READY for one in world.workers) == count)
    return list(world.workers)


async def test_replicas_of_a_version_are_probed_one_by_one() -> None:
    world = World(count=4)
    workers = await up(world, 3)
    world.probe_s = 3 * INTERVAL_S
    async with supervised(world):
        await until(lambda: min(one.probes for one in workers) > 2)
    assert world.probed_at_once == 1
    assert world.ends == []


async def test_replica_that_is_wrong_once_stays() -> None:
    world = World(count=4)
    workers = await up(world, 2)
    turns = Counter[Any]()

    def every_other(one: Any) -> tuple[bool, str]:
        turns[one] += 1
        return turns[one] % 2 == 0, "no features"

    world.example = every_other
    async with supervised(world):
        await until(lambda: min(one.probes for one in workers) > 6)
    assert world.ends == []


async def test_replica_that_is_wrong_twice_drains_while_its_sibling_serves() -> None:
    world = World(count=4)
    wrong, sound = await up(world, 2)
    wrong.pace, sound.pace = 0.1, 1.0
    held = await world.set.lease(key("a"))
    wrong.pace, sound.pace = 0.0, 0.0
    assert held.replica is wrong
    world.example = lambda one: (one is not wrong, "no features")
    async with supervised(world):
        await until(lambda: len(world.workers) == 3 and world.workers[2].loaded)
        assert wrong not in stopped(world)
        assert world.ends == []
        for _ in range(5):
            lease = await world.set.lease(key("a"))
            assert lease.replica is not wrong
            lease.release()
        held.release()
        await until(lambda: wrong.state is ReplicaState.STOPPED)
    told = "it answered its own example wrongly, twice: no features"
    assert world.ends == [("a/1", told)]
    assert world.told[-1] == ("ended", "a", False)
    assert sound.state is ReplicaState.READY


async def test_siblings_that_are_all_wrong_are_replaced_one_at_a_time() -> None:
    world = World(count=4)
    first = await up(world, 3)
    world.example = lambda one: (one not in first, "no features")
    fewest = 3
    async with supervised(world):
        async with asyncio.timeout(10):
            while any(one.state is not ReplicaState.STOPPED for one in first):
                ready = sum(one.ready for one in world.set.residents())
                fewest = min(fewest, ready)
                await asyncio.sleep(0)
                world.later += 0.05  # pauses pass
    assert fewest == 2


async def test_siblings_stay_if_their_successors_fail() -> None:
    world = World(count=4)
    first, second = await up(world, 2)
    world.example = lambda one: (False, "no features")
    world.failures = [LoadError("warm_up_failed", "no features") for _ in range(50)]
    async with supervised(world):
        await until(lambda: world.told.count(("load_failed", "a", "warm_up_failed")))
        gone, left = (first, second) if first in stopped(world) else (second, first)
        probes = left.probes
        await until(lambda: left.probes > probes + 6)
    assert stopped(world)[0] is gone
    assert left.state is ReplicaState.READY


def stopped(world: World) -> list[Any]:
    return [one for one in world.workers if one.state is ReplicaState.STOPPED]


async def test_sole_wrong_replica_gets_a_successor_while_it_drains() -> None:
    world = World(count=2)
    (wrong,) = await up(world, 1)
    held = await world.set.lease(key("a"))
    world.example = lambda one: (one is not wrong, "no features")
    async with supervised(world):
        await until(lambda: not world.set.is_ready(key("a")))
        (await world.set.lease(key("a"))).release()
        assert wrong not in stopped(world)
        held.release()
        await until(lambda: wrong.state is ReplicaState.STOPPED)
    assert len(world.workers) == 2


async def test_version_that_stays_wrong_pauses_with_a_reason() -> None:
    world = World(count=2)
    world.last = {key("a")}
    await up(world, 1)
    world.example = lambda one: (False, "no features")
    record = world.set.load_history
    async with supervised(world):
        await until(lambda: record.trouble(key("a")) is not None)
        assert len(stopped(world)) >= 2
        trouble, dying = record.trouble(key("a")), record.keeps_dying(key("a"))
    assert trouble is not None
    assert dying is not None
    assert "died 3 times" in trouble[0]
    assert "wrongly, twice: no features" in dying
    assert not world.set.is_ready(key("a"))


@pytest.mark.parametrize(
    ("siblings", "troubled", "may"),
    [
        ([], False, True),
        ([], True, False),
        ([True], False, True),
        ([True], True, False),
        ([False], False, False),
        ([True, False], False, False),
    ],
)
def test_replica_may_go_if_its_successor_would_come(
    siblings: list[bool], troubled: bool, may: bool
) -> None:
    wrong: Any = SimpleNamespace(ready=True)
    group: list[Any] = [wrong, *(SimpleNamespace(ready=ready) for ready in siblings)]
    assert may_go(wrong, group, troubled=troubled) is may


@pytest.mark.parametrize(
    ("evicted", "died", "counted"), [(True, False, 0), (False, False, 0), (False, True, 1)]
)
async def test_only_ends_without_a_stop_are_deaths(evicted: bool, died: bool, counted: int) -> None:
    telemetry = Telemetry()
    observer = _LoadObserver(telemetry, a_node())
    observer.ended(KEY, "because", evicted=evicted, died=died)
    assert telemetry.deaths.labels("m", "1")._value.get() == counted
