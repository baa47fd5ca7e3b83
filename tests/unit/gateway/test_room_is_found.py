"""Who waits for room gets it from whom it ought to, soon, and keeps nobody else waiting."""

import asyncio

import pytest

from gateway import load_queue, track_record
from gateway.errors import LoadError, ModelLoadingError
from tests.fakes.resident_set import MIB, World, key, staging, until


def crowded(**sizes: int) -> World:
    """A node with 100 MiB; how many each model's worker takes, c's known from before."""
    world = World(count=9, megabytes=100)
    world.sizes = {name: size * MIB for name, size in sizes.items()}
    if "c" in sizes:
        world.set.track_record.loaded(key("c"), 0.1, sizes["c"] * MIB)
    return world


def names_of_ended(world: World) -> list[str]:
    return [name for name, _ in world.ends]


# --- swaps ----------------------------------------------------------------------------------------


async def test_auto_keeps_the_old_version_while_an_evicted_one_still_ends() -> None:
    world = World(count=2)
    await world.use("b")
    await world.use("a")
    world.later = 60.0
    world.lingering = []
    stage = await staging(world, swap="auto")
    await until(lambda: world.ends)
    assert names_of_ended(world) == ["b/1"]
    await world.use("a")
    world.set._queue.pump()
    world.let_go()
    await stage
    assert names_of_ended(world) == ["b/1"]


async def test_auto_waits_for_one_that_is_fresh_rather_than_ending_the_old_version() -> None:
    world = World(count=2)
    world.gate.clear()
    fresh = asyncio.ensure_future(world.use("b"))
    await asyncio.sleep(0.3)  # as long as it loads, it is fresh
    world.gate.set()
    await fresh
    await world.use("a")
    await (await staging(world, swap="auto"))
    assert names_of_ended(world) == ["b/1"]


async def test_a_swap_that_cannot_fit_beside_the_old_version_is_told_so_at_once() -> None:
    world = crowded(a=60, b=5)
    await world.use("b")
    await world.use("a")
    world.later = 60.0
    world.set.track_record.loaded(key("a", 2), 1.0, 60 * MIB)
    async with asyncio.timeout(2):
        with pytest.raises(LoadError, match="to end the old version first"):
            await world.stage(key("a", 2), replaces=key("a"))


async def test_a_swap_looks_for_room_no_longer_than_callers_do() -> None:
    world = World(count=2, load_budget_s=0.1)
    world.last = {key("b")}
    busy = await world.set.lease(key("b"))
    await world.use("a")
    async with asyncio.timeout(4):
        with pytest.raises(LoadError, match="no worker could make room"):
            await world.stage(key("a", 2), replaces=key("a"))
    busy.release()


async def test_the_last_version_says_what_the_next_one_will_need() -> None:
    world = crowded(a=80)  # 10 MiB were guessed
    await world.use("a")
    with pytest.raises(LoadError) as raised:
        await world.stage(key("a", 2), replaces=key("a"))
    assert raised.value.failure == "no_room"
    assert sum(one.bytes for one in world.set.residents()) <= 100 * MIB


# --- those behind ---------------------------------------------------------------------------------


async def test_who_waits_for_busy_neighbours_keeps_nobody_from_free_room() -> None:
    world = crowded(a=40, b=40, c=5)
    world.last = {key("a"), key("b")}
    busy = await world.set.lease(key("b"))
    await world.use("a")
    world.later = 60.0
    world.set.track_record.loaded(key("a", 2), 1.0, 40 * MIB)
    stage = await staging(world)
    async with asyncio.timeout(4):
        await world.use("c")
    assert not stage.done()
    stage.cancel()
    busy.release()


async def test_who_is_waited_for_goes_before_what_nobody_waits_for() -> None:
    world = World(count=9)
    world.gate.clear()
    world.set.bring_up([key("b"), key("c")])
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    await until(lambda: "a/1" in world.starts)
    world.gate.set()
    (await caller).release()
    await until(lambda: world.set.is_ready(key("c")))


async def test_who_comes_late_waits_its_own_time() -> None:
    world = World(count=1, load_budget_s=1.0)
    world.last = {key("a")}  # who serves an alias is not closed for others
    busy = await world.set.lease(key("a"))
    first = asyncio.ensure_future(world.set.lease(key("b")))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.sleep(0.8)
    second = asyncio.ensure_future(world.set.lease(key("b")))
    await asyncio.sleep(0.3)
    assert not second.done()
    busy.release()
    (await second).release()


async def test_one_long_request_does_not_keep_others_from_making_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_queue, "TURN_WAIT_S", 0.02)
    world = World(count=2, load_budget_s=5.0)
    long = await world.set.lease(key("a"))

    async def call_for_ever(offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        while True:
            try:
                lease = await world.set.lease(key("b"))
            except ModelLoadingError:
                return
            await asyncio.sleep(0.01)
            lease.release()

    callers = [asyncio.ensure_future(call_for_ever(n * 0.003)) for n in range(3)]
    await until(lambda: world.set.is_ready(key("b")))
    await world.use("c")
    for one in callers:
        one.cancel()
    long.release()


# --- those that go, and come back -----------------------------------------------------------------


async def test_who_has_grown_goes_and_not_an_active_neighbour_that_has_not() -> None:
    world = crowded(a=60, b=10)
    world.last = {key("a")}
    a, b = await world.set.lease(key("a")), await world.set.lease(key("b"))
    world.set.measured(b.resident, 45 * MIB)
    assert (a.resident.closed_to_new, b.resident.closed_to_new) == (False, True)


async def test_an_active_version_whose_replacement_fails_once_is_tried_again_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(track_record, "_FIRST_BACK_OFF_S", 0.02)
    world = World()
    world.last = {key("a")}
    await world.use("a")
    world.failures = [LoadError("load_failed", "out of memory for a moment")]
    world.workers[0].end()
    async with asyncio.timeout(10):
        while not world.set.is_ready(key("a")):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    assert world.starts == ["a/1"] * 3


async def test_what_was_hot_and_has_no_worker_again_yet_is_not_forgotten() -> None:
    world = World(count=9)
    await world.use("a")
    world.gate.clear()
    world.set.bring_up([key("b"), key("c")])
    await until(lambda: "b/1" in world.starts)
    hottest = world.set.hottest()
    assert (hottest[0], key("c") in hottest) == (key("a"), True)
    world.gate.set()
