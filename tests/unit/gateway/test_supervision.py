"""Probes: who does not answer in its own time ends, and nobody delays the others."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.bootstrap import _LoadObserver
from gateway.node import Node
from gateway.room import ReplicaKey
from gateway.routing import RouteTable
from gateway.supervision import Supervisor
from gateway.telemetry import Telemetry
from gateway.worker.messages import Alive

KEY = ReplicaKey("m", 1, "sha256:" + "a" * 64)


class Probed:
    """A replica that takes so long to predict its example."""

    in_flight = 0

    def __init__(self, seconds: float) -> None:
        self.seconds, self.probes = seconds, 0
        self.killed: str | None = None

    async def probe(self, timeout_s: float) -> Alive:
        self.probes += 1
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(self.seconds)
        return Alive(1, True, "")

    def kill(self, reason: str) -> None:
        self.killed = reason


class Residents:
    """What the supervisor asks of the resident set."""

    def __init__(self, *replicas: Probed) -> None:
        self.replicas, self.rounds, self.measurements = replicas, 0, 0

    def residents(self) -> list[Any]:
        return [SimpleNamespace(replica=one, ready=True, key=KEY) for one in self.replicas]

    def measured(self, resident: Any, private_bytes: int) -> None:
        self.measurements += 1

    def end_idle(self, idle_s: float, ends: Any) -> None:
        self.rounds += 1
        if self.rounds == 1:
            raise RuntimeError("odd")

    def hottest(self) -> list[ReplicaKey]:
        return []

    def cool(self) -> None:
        """Nothing."""


def supervisor(residents: Residents, own_timeout_s: float | None = None) -> Supervisor:
    versions: Any = SimpleNamespace(
        timeout_s=lambda key: own_timeout_s, ends_when_idle=lambda key: False
    )
    given: Any = residents
    none: Any = None
    return Supervisor(
        given,
        versions,
        none,
        none,
        interval_s=0.01,
        request_timeout_s=0.05,
        stuck_grace_s=0.05,
        idle_s=1,
    )


async def watched(residents: Residents, own_timeout_s: float | None, until: Any) -> None:
    watch = asyncio.ensure_future(supervisor(residents, own_timeout_s).run())
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    assert not watch.done()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_who_does_not_answer_ends_and_delays_no_other() -> None:
    silent, sound = Probed(3600.0), Probed(0.0)
    await watched(Residents(silent, sound), None, lambda: silent.killed)
    assert sound.probes > 3
    assert sound.killed is None


async def test_a_model_has_the_time_for_its_example_that_its_tag_gives_it() -> None:
    slow = Probed(0.2)
    residents = Residents(slow)
    await watched(residents, 5.0, lambda: residents.measurements)
    assert slow.killed is None


async def test_a_round_that_fails_is_not_the_last() -> None:
    residents = Residents()
    await watched(residents, None, lambda: residents.rounds > 2)


def a_node() -> Node:
    return Node(node_id="n", boot_id="b", table=RouteTable("champion"))


async def test_a_copy_that_fails_its_check_is_told_until_one_was_loaded() -> None:
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


async def test_news_of_damaged_copies_are_bounded() -> None:
    node = a_node()
    for number in range(1, 301):
        node.copy_damaged("m", number, f"sha256:{number:064x}", "altered")
    assert [one.version for one in node.damaged()] == list(range(45, 301))


@pytest.mark.parametrize(
    ("evicted", "died", "counted"), [(True, False, 0), (False, False, 0), (False, True, 1)]
)
async def test_only_ends_that_nobody_asked_for_are_deaths(
    evicted: bool, died: bool, counted: int
) -> None:
    telemetry = Telemetry()
    observer = _LoadObserver(telemetry, a_node())
    observer.ended(KEY, "because", evicted=evicted, died=died)
    assert telemetry.deaths.labels("m", "1")._value.get() == counted
