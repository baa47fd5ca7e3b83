"""The resident set keeps more than plain LRU keeps, and a scan costs no model in use its place.

Its decisions are the product's; its workers are a fake's, and time is virtual, so that a thousand
models and minutes of traffic are tried in seconds and in the same way each time.
"""

import asyncio
import collections

import pytest

from tests.acceptance.scale import SOAK
from tests.fakes.replacement import belady_hits, lru_hits, zipf
from tests.fakes.resident_set import World, key
from tests.fakes.virtual_time import run

MODELS = 1000
CALLS = 50_000 if SOAK else 2_000
SLOTS = (8, 32, 128)
BETTER_THAN_LRU = 1.1 if SOAK else 1.05
"""A short trace says less of how often each model is used."""


class TimedWorld(World):
    """A world whose loads and answers take virtual time."""

    def __init__(self, count: int, load_s: float) -> None:
        super().__init__(count=count, megabytes=100_000, load_budget_s=60.0)
        self.load_s = load_s

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def prepare(self, key: object) -> None:
        await asyncio.sleep(self.load_s)

    async def call(self, name: str, answer_s: float) -> float:
        """Have a model answer; return how long its caller waited for it."""
        began = self.clock()
        lease = await self.set.lease(key(name))
        waited_s = self.clock() - began
        await asyncio.sleep(answer_s)
        lease.release()
        return waited_s


async def hits(trace: list[str], slots: int, aliases: int) -> int:
    """Ask for one model after the other; return for how many a worker was there."""
    world = TimedWorld(slots, load_s=0.1)
    world.last = {key(f"m{number}") for number in range(aliases)}
    for name in trace:
        await world.call(name, answer_s=0.001)
    await world.set.close(0)
    return len(trace) - len(world.starts)


@pytest.mark.parametrize("slots", SLOTS)
def test_zipf_load_meets_more_than_plain_lru_keeps(slots: int) -> None:
    trace = zipf([f"m{number}" for number in range(MODELS)], CALLS, seed=slots)
    ours = run(hits(trace, slots, aliases=MODELS // 2))
    lru, best = lru_hits(trace, slots), belady_hits(trace, slots)
    print(f"{slots} slots: {ours / CALLS:.3f}, LRU {lru / CALLS:.3f}, optimum {best / CALLS:.3f}")
    assert BETTER_THAN_LRU * lru <= ours <= best


HOT = [f"hot{number}" for number in range(5)]
SCANS = 2
SCAN_S = 120.0 if SOAK else 60.0


async def scan(slots: int, load_s: float) -> tuple[World, list[float]]:
    """Call five models ten times a second each, beside a scan of others, each once."""
    world = TimedWorld(slots, load_s)
    loop = asyncio.get_running_loop()
    waits: list[float] = []

    async def hot(name: str) -> None:
        await world.call(name, answer_s=0.01)
        while loop.time() < SCAN_S:
            waits.append(await world.call(name, answer_s=0.01))
            await asyncio.sleep(0.09)

    async def cold(first: int) -> None:
        for number in range(first, MODELS, SCANS):
            if loop.time() >= SCAN_S:
                return
            await world.call(f"cold{number}", answer_s=0.01)

    world.last = {key(f"cold{number}") for number in range(MODELS)}
    async with asyncio.TaskGroup() as group:
        for name in HOT:
            group.create_task(hot(name))
        await asyncio.sleep(2.0)
        for first in range(SCANS):
            group.create_task(cold(first))
    await world.set.close(0)
    return world, waits


@pytest.mark.parametrize("load_s", [0.2, 2.0])
@pytest.mark.parametrize("slots", [8, 32])
def test_a_scan_of_cold_models_evicts_no_hot_one(slots: int, load_s: float) -> None:
    world, waits = run(scan(slots, load_s))
    loads = collections.Counter(world.starts)
    assert {name: loads[f"{name}/1"] for name in HOT} == dict.fromkeys(HOT, 1)
    assert sum(loads.values()) > len(HOT) + slots, "the scan has to need room"
    assert max(waits) == 0
