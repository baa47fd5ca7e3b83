"""Room for waiting loads: from which replicas, in which order, and without delaying others."""

import asyncio
from typing import Any

import pytest

from gateway.contract.references import ArtifactRef
from gateway.errors import LoadError, ModelLoadingError
from gateway.serving.residency import decision, load_history, load_queue
from gateway.serving.residency.demand import Demand
from tests.fakes.resident_set import MIB, World, key, staging, until


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a waiting demand have its turn soon."""
    monkeypatch.setattr(decision, "TURN_WAIT_S", 0.01)


def crowded(**sizes: int) -> World:
    """A node with 100 MiB; how many each model's worker takes, c's known from before."""
    world = World(count=9, megabytes=100)
    world.sizes = {name: size * MIB for name, size in sizes.items()}
    if "c" in sizes:
        world.set.load_history.loaded(key("c"), 0.1, sizes["c"] * MIB)
    return world


async def over(world: World, *callers: "asyncio.Future[Any]") -> None:
    """Let nobody ask any more, and no load be under way."""
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await world.set.close(0)


def names_of_ended(world: World) -> list[str]:
    return [name for name, _ in world.ends]


async def test_failed_decision_is_followed_by_another(
    soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    decide, failures = decision.decide, [RuntimeError("out of order")]

    def fail_once(seen: decision.Snapshot) -> tuple[decision.Action, ...]:
        if failures:
            raise failures.pop()
        return decide(seen)

    monkeypatch.setattr(load_queue, "decide", fail_once)
    await world.use("a")
    assert (failures, world.starts) == ([], ["a/1"])


# --- swaps ----------------------------------------------------------------------------------------


async def test_swap_waits_for_room_no_longer_than_callers() -> None:
    world = World(count=2, load_budget_s=0.1)
    world.kept = {key("b")}
    busy = await world.set.lease(key("b"))
    await world.use("a")
    async with asyncio.timeout(4):
        with pytest.raises(LoadError, match="no worker could make room"):
            await world.stage(key("a", 2), replaces=key("a"))
    busy.release()


async def test_size_of_the_last_version_is_expected_of_the_next() -> None:
    world = crowded(a=80)  # 10 MiB were guessed
    await world.use("a")
    with pytest.raises(LoadError) as raised:
        await world.stage(key("a", 2), replaces=key("a"))
    assert raised.value.failure == "no_room"
    assert sum(one.bytes for one in world.set.residents()) <= 100 * MIB


# --- blocked loads --------------------------------------------------------------------------------


async def test_big_load_gets_its_turn_among_small_ones(soon: None) -> None:
    smalls = [f"s{n}" for n in range(8)]
    world = crowded(**dict.fromkeys(smalls, 25))
    world.guess_megabytes = 25
    world.set.load_history.loaded(key("x"), 1.0, 60 * MIB)

    async def keep_busy(name: str) -> None:
        while True:
            try:
                lease = await world.set.lease(key(name))
            except ModelLoadingError:
                continue
            await asyncio.sleep(0.002)
            lease.release()

    # Two callers each: a worker is never without a lease before it takes no more.
    callers = [asyncio.ensure_future(keep_busy(name)) for name in smalls * 2]
    await until(lambda: len(world.set.residents()) == 4)
    async with asyncio.timeout(4):
        await world.use("x")
    await over(world, *callers)


# --- ends, pauses and restarts -------------------------------------------------------------------


async def test_replica_that_grew_ends_before_a_bigger_one() -> None:
    world = crowded(a=60, b=10)
    a, b = await world.set.lease(key("a")), await world.set.lease(key("b"))
    world.set.measured(b.resident, 45 * MIB)
    assert (a.resident.closed_to_new, b.resident.closed_to_new) == (False, True)


async def test_stages_that_end_leave_their_callers_in_need_of_one_replica() -> None:
    stage: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    demand = Demand(key("a"), since=0.0, replicas=3, stages=[stage])
    demand.end_stages(None)
    assert (stage.done(), demand.stages, demand.replicas) == (True, [], 1)


async def test_active_version_restarts_after_a_failed_restart(
    soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_history, "_FIRST_BACK_OFF_S", 0.02)
    world = World()
    world.last = {key("a")}
    await world.use("a")
    world.failures = [LoadError("load_failed", "out of memory for a moment")]
    world.workers[0].end()
    async with asyncio.timeout(10):
        while not world.set.is_ready(key("a")):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    assert world.starts == ["a/1"] * 3


async def test_displaced_version_restarts_at_once_if_its_successor_fails() -> None:
    world = World(count=1)
    world.last = {key("a")}
    busy = await world.set.lease(key("a"))
    stage = await staging(world, swap="unload_first")
    await until(lambda: busy.resident.closed_to_new)
    world.failures = [LoadError("warm_up_failed", "NaN")]
    busy.release()
    with pytest.raises(LoadError, match="NaN"):
        await stage
    await until(lambda: world.set.is_ready(key("a")))
    assert ("ended", "a", True) not in world.told


async def resting() -> World:
    """An alias' version whose worker died, and did not come up again: it is left alone for now."""
    world = World(count=9)
    world.last = {key("a")}
    await world.use("a")
    world.failures = [LoadError("load_failed", "out of memory for a moment")]
    world.workers[0].end()
    await until(lambda: not world.failures and not world.set.residents())
    assert world.set.hottest() == [key("a")]
    return world


def look_after_its_rest(world: World) -> list[ArtifactRef]:
    world.later += 100
    world.set.rebalance()
    return [one.key for one in world.set.residents()]


@pytest.mark.parametrize("swap", ["unload_first", "blue_green"])
async def test_paused_version_is_not_loaded_beside_its_successor(swap: str) -> None:
    world = await resting()
    await world.stage(key("a", 2), replaces=key("a"), swap=swap)
    world.last = {key("a", 2)}
    world.set.unstage("s1")
    assert look_after_its_rest(world) == [key("a", 2)]
    assert world.set.versions() == {key("a", 2)}


async def test_paused_version_is_loaded_if_its_successor_fails() -> None:
    world = await resting()
    world.failures = [LoadError("warm_up_failed", "NaN")]
    with pytest.raises(LoadError, match="NaN"):
        await world.stage(key("a", 2), replaces=key("a"), swap="unload_first")
    assert look_after_its_rest(world) == [key("a")]
    await until(lambda: world.set.is_ready(key("a")))


async def test_paused_version_without_an_alias_is_not_loaded() -> None:
    world = await resting()
    world.last = set()
    assert world.set.digests() == set()
    assert look_after_its_rest(world) == []
    world.last = {key("a")}  # asked for again: by a stage, or by callers
    assert look_after_its_rest(world) == []


async def test_paused_version_that_is_retired_is_not_loaded() -> None:
    world = await resting()
    world.set.retire(key("a"), "retired")
    assert world.set.versions() == set()
    assert look_after_its_rest(world) == []


async def test_displaced_wrong_replica_gets_no_second_successor() -> None:
    world = World(count=4)
    world.last = {key("a")}
    busy = await world.set.lease(key("a"))
    world.set.replace(busy.resident, "it answered its own example wrongly")
    stage = await staging(world, swap="unload_first")
    await until(lambda: any(one.displaces for one in world.set._queue.standbys.values()))
    busy.release()
    await stage
    world.last = {key("a", 2)}
    world.set.unstage("s1")
    assert look_after_its_rest(world) == [key("a", 2)]
    assert world.ends == [("a/1", "unloaded first: its successor needs the room")]


async def test_displaced_background_load_is_not_loaded() -> None:
    world = World(count=4)
    world.last = {key("a")}
    world.gate.clear()
    world.set.load_in_background([key("x"), key("a")])
    stage = await staging(world, swap="unload_first")
    await until(lambda: world.starts == ["x/1", "a/2"])
    world.gate.set()
    await stage
    world.last = {key("a", 2)}
    world.set.unstage("s1")
    await until(lambda: world.set.is_ready(key("x")))
    assert {one.key for one in world.set.residents()} == {key("x"), key("a", 2)}


async def test_background_load_that_no_caller_can_mean_any_more_is_left_out() -> None:
    world = World(count=1)
    held = await world.set.lease(key("a"))
    world.set.load_in_background([key("b"), key("c")])
    world.unreachable.add(key("b"))
    world.set.retire(key("a"), "retired")
    held.release()
    await until(lambda: world.starts == ["a/1", "c/1"])
    assert world.set.versions() == {key("c")}


async def test_waiting_background_loads_are_among_the_hottest() -> None:
    world = World(count=9)
    await world.use("a")
    world.gate.clear()
    world.set.load_in_background([key("b"), key("c")])
    await until(lambda: "b/1" in world.starts)
    hottest = world.set.hottest()
    assert (hottest[0], key("c") in hottest) == (key("a"), True)
    world.gate.set()
