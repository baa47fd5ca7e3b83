"""The resident set: leases, one load per version, eviction, deaths, against fake replicas."""

import asyncio

import pytest

from gateway.contract.references import ArtifactRef
from gateway.errors import (
    DisplacedError,
    DrainingError,
    InsufficientMemoryError,
    LoadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
)
from gateway.serving.replica.replica import ReplicaState
from gateway.serving.residency import decision, load_history
from gateway.serving.residency.decision import SLOW_LOAD_S
from tests.fakes.resident_set import MIB, World, key, staging, until


async def test_a_hundred_callers_share_one_load():
    world = World()
    world.gate.clear()
    callers = [asyncio.ensure_future(world.set.lease(key("a"))) for _ in range(100)]
    await until(lambda: world.starts)
    world.gate.set()
    leases = await asyncio.gather(*callers)
    assert world.starts == ["a/1"]
    assert leases[0].resident.leases == 100
    for lease in leases:
        lease.release()
        lease.release()  # twice is once
    assert leases[0].resident.leases == 0


async def test_callers_that_leave_do_not_cancel_the_load():
    world = World()
    world.gate.clear()
    callers = [asyncio.ensure_future(world.set.lease(key("a"))) for _ in range(10)]
    await until(lambda: world.starts)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    world.gate.set()
    await until(lambda: world.set.is_ready(key("a")))
    assert world.set.residents()[0].leases == 0


async def test_caller_cancelled_as_it_gets_its_lease_releases_it():
    world = World()
    world.gate.clear()
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    await until(lambda: world.starts)
    resident = world.set.residents()[0]
    world.gate.set()
    await until(lambda: resident.leases == 1)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    if not caller.cancelled() and caller.exception() is None:
        caller.result().release()
    assert resident.leases == 0


async def test_least_recently_used_replica_is_evicted():
    world = World(count=2)
    for name in ("a", "b", "a"):
        await world.use(name)
    world.later = 60.0
    await world.use("c")
    assert [one.key.model for one in world.set.residents()] == ["a", "c"]
    assert ("ended", "b", True) in world.told


async def test_digests_include_loading_and_waiting_versions():
    world = World(count=3)
    serving, *others = (ArtifactRef(name, 1, "sha256:" + name * 64) for name in "abcd")
    (await world.set.lease(serving)).release()
    world.later = 60.0
    world.gate.clear()
    callers = [asyncio.ensure_future(world.set.lease(one)) for one in others]
    await until(lambda: len(world.starts) == 3)
    assert world.set.digests() == {one.digest for one in (serving, *others)}
    world.gate.set()
    for caller in asyncio.as_completed(callers):
        (await caller).release()
    assert world.set.digests() == {one.digest for one in others}


async def test_steady_traffic_cannot_keep_a_new_version_out(monkeypatch):
    monkeypatch.setattr(decision, "TURN_WAIT_S", 0.01)
    world = World(count=1)
    held = await world.set.lease(key("a"))
    newcomer = asyncio.ensure_future(world.set.lease(key("b")))
    await until(lambda: world.set.residents()[0].closed_to_new)
    assert world.set.try_lease(key("a")) is None
    held.release()
    (await newcomer).release()


async def test_renewed_version_is_loaded_without_a_pause():
    world = World()
    world.failures = [LoadError("integrity", "altered")]
    with pytest.raises(ModelLoadFailedError, match="altered"):
        await world.set.lease(key("a"))
    with pytest.raises(ModelLoadFailedError, match="the last load"):
        await world.set.lease(key("a"))
    world.set.renew(key("a"))
    lease = await world.set.lease(key("a"))
    lease.release()


async def test_no_room_within_the_budget_is_refused_with_retry_after():
    world = World(count=1, load_budget_s=0.05)
    held = await world.set.lease(key("a"))
    with pytest.raises(ModelLoadingError) as raised:
        await world.set.lease(key("b"))
    assert (raised.value.retry_after_s or 0) >= 1
    held.release()
    await until(lambda: not world.set._queue._demands)


async def test_version_that_cannot_fit_is_refused_and_evicts_nothing():
    world = World(megabytes=50)
    await world.use("a")
    world.set.load_history.loaded(key("big"), 1.0, 60 * MIB)
    with pytest.raises(InsufficientMemoryError):
        await world.set.lease(key("big"))
    assert world.ends == []


async def test_model_that_proves_too_big_ends_alone():
    world = World(megabytes=50)
    world.sizes["big"] = 60 * MIB
    await world.use("a")
    with pytest.raises(InsufficientMemoryError):
        await world.set.lease(key("big"))
    await until(lambda: len(world.set.residents()) == 1)
    assert world.set.is_ready(key("a"))


async def test_failed_load_refuses_all_callers_and_begins_a_pause():
    world = World()
    world.failures = [LoadError("load_failed", "no module named x")]
    callers = [world.set.lease(key("a")) for _ in range(3)]
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in outcomes] == [ModelLoadFailedError] * 3
    with pytest.raises(ModelLoadFailedError, match="no module named x"):
        await world.set.lease(key("a"))
    assert world.starts == ["a/1"]


async def test_callers_that_join_a_dying_replica_wait_for_the_next():
    world = World()
    await world.use("a")
    world.workers[0].state = ReplicaState.DRAINING  # its socket has ended, its process not yet
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    await asyncio.sleep(0)
    world.workers[0].end()
    (await caller).release()
    assert len(world.workers) == 2


async def test_dying_replica_costs_its_busy_neighbour_nothing(monkeypatch):
    monkeypatch.setattr(decision, "TURN_WAIT_S", 0.05)
    world = World()
    await world.use("a")
    busy = await world.set.lease(key("b"))
    world.workers[0].state = ReplicaState.DRAINING  # its socket has ended, its process not yet
    caller = asyncio.ensure_future(world.set.lease(key("c")))
    await asyncio.sleep(0.06)
    world.set.rebalance()
    assert busy.resident.ready
    world.workers[0].end()
    (await caller).release()
    assert busy.resident.ready
    busy.release()


async def test_stage_whose_replicas_keep_dying_may_be_tried_again():
    world = World()
    world.gate.clear()
    staging = asyncio.ensure_future(world.stage(key("a"), replicas=2))
    await until(lambda: world.workers)
    for _ in range(3):
        world.set.load_history.died(key("a"), "killed", had_answered=False)
    world.set._queue.replica_ended(next(iter(world.set._pool.of(key("a")))), died=True)
    with pytest.raises(LoadError, match=r"worker_died: .* died 3 times"):
        await staging


async def test_uses_after_a_long_rest_do_not_fade_with_those_before_it():
    world = World()
    for _ in range(50):
        await world.use("old")
    world.later += 4 * 3600.0
    for _ in range(50):
        await world.use("old")
    world.later += 1.0
    await world.use("new")
    await world.use("third")  # makes room
    assert world.set.versions() == {key("old"), key("third")}


async def test_version_that_keeps_crashing_pauses():
    world = World()
    for _ in range(3):
        await world.use("a")
        world.workers[-1].end()
    with pytest.raises(ModelLoadFailedError, match="died 3 times"):
        await world.set.lease(key("a"))


@pytest.mark.parametrize("retired", [False, True])
async def test_death_with_the_last_request_counts_once_and_as_no_eviction(retired):
    world = World()
    deaths = 3
    for _ in range(deaths):
        lease = await world.set.lease(key("a"))
        if retired:
            world.set.retire(key("a"), "retired")
        else:
            world.set._pool.drain(lease.resident, "evicted", evicted=True)
        worker = world.workers[-1]
        # In the order of a replica: it has stopped, its requests fail, and then it tells.
        worker.state = ReplicaState.STOPPED
        lease.release()
        worker.on_stopped(worker)
    assert [one for one in world.told if one[0] == "ended"] == [("ended", "a", False)] * deaths
    assert world.set.load_history.keeps_dying(key("a")) is not None
    assert world.set.residents() == []


async def test_callers_wait_after_the_death_of_a_replica_that_had_served(monkeypatch):
    monkeypatch.setattr(load_history, "_SERVED_BACK_OFF_S", 0.05)
    world = World()
    for _ in range(6):
        await world.use("a")
        world.workers[-1].answered = 1
        world.workers[-1].end()
    await world.use("a")
    assert len(world.starts) == 7


async def test_paused_version_does_not_delay_others():
    world = World(count=1)
    for _ in range(3):
        await world.use("a")
        world.workers[-1].answered = 1
        world.workers[-1].end()
    paused = asyncio.ensure_future(world.set.lease(key("a")))
    await world.use("b")
    assert not paused.done()
    paused.cancel()
    await asyncio.gather(paused, return_exceptions=True)


async def test_stage_spares_its_standby_and_the_old_version():
    world = World(count=2)
    await world.use("a")
    await world.stage(key("a", 2), replaces=key("a"))
    caller = asyncio.ensure_future(world.set.lease(key("b")))
    third = world.stage(key("c"), stage_id="s2")
    with pytest.raises(LoadError, match="beside versions that are being replaced"):
        await third
    assert world.ends == []
    assert not caller.done(), "a caller has the time to wait for the end of the stage"
    world.set.unstage("s1")
    (await caller).release()
    assert ("ended", "a", True) in world.told


async def test_failed_stage_releases_everything():
    world = World(count=2)
    await world.use("a")
    world.failures = [LoadError("warm_up_failed", "NaN")]
    with pytest.raises(LoadError, match="warm_up_failed: NaN"):
        await world.stage(key("a", 2), replaces=key("a"))
    assert len(world.set._queue.standbys) == 0
    assert world.set.is_ready(key("a"))


# --- who makes room for whom ----------------------------------------------------------------------


async def test_blue_green_without_room_fails_with_advice():
    world = World(count=1)
    await world.use("a")
    with pytest.raises(LoadError, match=r"gateway\.swap=auto") as raised:
        await world.stage(key("a", 2), replaces=key("a"))
    assert raised.value.failure == "no_room"
    assert world.ends == []


async def test_stage_without_an_old_version_fails_without_advice():
    world = World(count=1)
    await world.stage(key("a"), stage_id="s0")
    with pytest.raises(LoadError) as raised:
        await world.stage(key("b"), swap="unload_first")
    assert raised.value.failure == "no_room"
    assert "gateway.swap" not in str(raised.value)


async def test_auto_without_room_drains_the_old_version():
    world = World(count=1)
    held = await world.set.lease(key("a"))
    stage = await staging(world, swap="auto")
    await until(lambda: held.resident.closed_to_new)
    assert world.starts == ["a/1"], "what is in flight is finished first"
    held.release()
    await stage
    assert world.starts == ["a/1", "a/2"]
    assert [name for name, _ in world.ends] == ["a/1"]


async def test_callers_of_a_displaced_version_resolve_again_after_the_stage():
    world = World(count=1)
    await world.use("a")
    world.gate.clear()
    stage = await staging(world, swap="unload_first")
    await until(lambda: len(world.starts) == 2)
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    world.gate.set()
    await stage
    assert not caller.done(), "not before it is known what becomes of the alias"
    world.set.unstage("s1")
    with pytest.raises(DisplacedError):
        await caller


async def test_stage_of_a_displaced_version_goes_on():
    world = World(count=2)
    await world.use("a")
    world.gate.clear()
    forth = await staging(world, swap="unload_first")
    await until(lambda: len(world.starts) == 2)
    back = asyncio.ensure_future(
        world.set.stage(key("a"), "s2", replaces=None, swap="blue_green", replicas=1, wait_s=5)
    )
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    world.gate.set()
    await forth
    world.set.unstage("s1")
    with pytest.raises(DisplacedError):
        await caller
    await back
    assert world.set.is_ready(key("a"))


async def test_replica_retired_as_it_dies_loading_is_not_started_again():
    world = World()
    world.failures = [LoadError("worker_died", "killed")]
    world.gate.clear()
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    await until(lambda: world.starts)
    known = asyncio.Event()
    world.workers[0].wait_stopped = known.wait
    world.gate.set()
    await until(lambda: not world.failures)
    caller.cancel()
    await asyncio.sleep(0)
    world.set.retire(key("a"), "retired")
    await until(lambda: world.set.residents() == [])
    known.set()
    await asyncio.sleep(0.01)  # long enough for it to be started, if it were
    await world.set.close(0.1)
    assert world.starts == ["a/1"]


async def test_worker_that_died_loading_is_started_with_a_new_order():
    world = World()
    orders: list[int] = []

    async def prepare(key):
        orders.append(len(orders))
        return orders[-1]

    world.set._pool._prepare = prepare
    world.failures = [LoadError("worker_died", "lost in its proof")] * 2
    (await world.set.lease(key("a"))).release()
    assert orders == [0, 1, 2]
    await world.set.close(0.1)


@pytest.mark.parametrize(
    ("ends", "failure"),
    [
        (["worker_crashed"] * 3, "worker_crashed"),
        (["worker_crashed", "worker_died", "worker_crashed"], "worker_died"),
        (["worker_died"] * 3, "worker_died"),
    ],
)
async def test_only_a_worker_that_crashes_in_every_try_has_crashed_for_its_bytes(ends, failure):
    world = World()
    world.failures = [LoadError(one, "it ended") for one in ends]
    with pytest.raises(LoadError, match=failure):
        await world.stage(key("a"))
    assert world.starts == ["a/1"] * 3
    await world.set.close(0.1)


async def test_many_new_models_evict_one_resident_only():
    world = World(count=3)
    for name in ("a", "b", "c"):
        await world.use(name)
    world.later = 60.0
    for name in "defgh":
        world.last.add(key(name))
        await world.stage(key(name))
        world.set.unstage("s1")
    assert [world.set.is_ready(key(name)) for name in "abc"] == [False, True, True]


async def test_version_kept_resident_stays_while_others_change():
    world = World(count=2)
    world.kept = {key("a")}
    for name in ("a", "b", "c", "d", "e"):
        await world.use(name)
    assert world.set.is_ready(key("a"))


# --- several workers of a version -----------------------------------------------------------------


async def test_stage_waits_for_all_of_its_replicas():
    world = World(count=4)
    await world.stage(key("a"), replicas=3)
    assert sum(one.ready for one in world.set.residents()) == 3


async def test_least_busy_replica_is_leased():
    world = World(count=2)
    world.asked_replicas = {"a": 2}
    await world.use("a")
    await until(lambda: sum(one.ready for one in world.set.residents()) == 2)
    leases = [await world.set.lease(key("a")) for _ in range(6)]
    assert sorted(one.leases for one in world.set.residents()) == [3, 3]
    for lease in leases:
        lease.release()


async def test_replica_that_died_is_replaced_while_its_sibling_serves():
    world = World(count=2)
    world.asked_replicas = {"a": 2}
    await world.use("a")
    await until(lambda: sum(one.ready for one in world.set.residents()) == 2)
    world.workers[0].end()
    assert world.set.try_lease(key("a")) is not None
    await until(lambda: sum(one.ready for one in world.set.residents()) == 2)
    assert len(world.starts) == 3


async def ready_workers(world, model, count):
    await until(
        lambda: (
            [one.ready for one in world.set.residents() if one.key.model == model] == [True] * count
        )
    )


async def test_surplus_replicas_drain_the_least_used_first():
    world = World(count=4)
    world.asked_replicas = {"a": 3}
    await world.use("a")
    await ready_workers(world, "a", 3)
    most, busy, idle = world.set.residents()
    lease = world.set._pool.take(busy)
    for _ in range(3):
        world.set._pool.take(most).release()
    world.asked_replicas = {"a": 1}
    world.set.rebalance()
    assert [busy.ready, busy.ending, idle.ending, most.ready] == [False, False, True, True]
    lease.release()
    await ready_workers(world, "a", 1)
    assert world.set.residents() == [most]
    assert ("ended", "a", True) not in world.told, "nobody made room for others"
    world.asked_replicas = {"a": 2}
    world.set.rebalance()
    await ready_workers(world, "a", 2)


# --- filling free room ----------------------------------------------------------------------------


async def test_background_loads_run_in_order_and_evict_nothing():
    world = World(count=3)
    await world.use("a")
    world.set.load_in_background([key("c"), key("b"), key("d")])
    await until(lambda: len(world.starts) == 3)
    await world.use("a")
    assert world.starts == ["a/1", "c/1", "b/1"]
    assert world.ends == []


async def test_active_version_that_died_restarts():
    world = World()
    world.last = {key("a")}
    await world.use("a")
    world.workers[0].end()
    await until(lambda: world.set.is_ready(key("a")))


async def test_hottest_version_is_the_most_used_lately():
    world = World(count=3)
    for name, times in (("a", 3), ("b", 5), ("c", 1)):
        for _ in range(times):
            await world.use(name)
    assert [one.model for one in world.set.hottest()] == ["b", "a", "c"]
    world.later += 60
    assert [one.model for one in world.set.hottest()] == ["b", "a", "c"]
    for _ in range(3):
        await world.use("c")
    assert [one.model for one in world.set.hottest()] == ["c", "b", "a"]


async def test_idle_on_demand_version_ends():
    world = World()
    held = await world.set.lease(key("a"))
    await world.use("b")
    world.later = 100.0
    world.set.end_idle(60.0, lambda one: one.model == "a")
    assert world.ends == []
    held.release()
    world.set.end_idle(60.0, lambda one: one.model == "a")
    assert world.ends == []
    world.later = 200.0
    world.set.end_idle(60.0, lambda one: one.model == "a")
    assert [name for name, _ in world.ends] == ["a/1"]


async def test_closing_waits_for_leases_and_ends_every_replica():
    world = World(count=2)
    held = await world.set.lease(key("a"))
    closing = asyncio.ensure_future(world.set.close(5))
    await asyncio.sleep(0)
    with pytest.raises(DrainingError):
        await world.set.lease(key("b"))
    assert not closing.done()
    held.release()
    await closing
    assert world.set.residents() == []


async def test_version_retired_while_it_loads_is_not_started_again():
    world = World()
    world.gate.clear()
    caller = asyncio.ensure_future(world.set.lease(key("a")))
    await until(lambda: world.starts)
    caller.cancel()
    world.set.retire(key("a"), "retired")
    await until(lambda: not world.set.residents())
    world.gate.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert world.starts == ["a/1"]
    assert all(one.state is ReplicaState.STOPPED for one in world.workers)
    assert not world.told, "an end that was asked for is no failed load"


async def test_ending_replica_does_not_delay_other_versions():
    world = World(count=3)
    held = await world.set.lease(key("a"))
    world.set.retire(key("a"), "retired")
    again = asyncio.ensure_future(world.set.lease(key("a")))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await world.use("b")
    assert not again.done()
    held.release()
    (await again).release()
    assert world.starts == ["a/1", "b/1", "a/1"]


async def test_busy_replica_beyond_the_limit_drains_and_is_replaced():
    world = World(megabytes=100)
    held = await world.set.lease(key("a"))
    world.set.measured(held.resident, 100 * MIB)
    assert held.resident.ready, "so much it may hold"
    world.set.measured(held.resident, 500 * MIB)
    again = asyncio.ensure_future(world.set.lease(key("a")))
    await asyncio.sleep(0)
    assert not again.done(), "no new lease of a worker that has to go"
    held.release()
    (await again).release()
    assert world.starts == ["a/1", "a/1"]
    assert world.set.residents()[0].bytes == 10 * MIB


async def test_idle_replica_goes_when_another_has_to_end_for_its_size():
    world = World(count=3, megabytes=100)
    world.lingering = []
    await world.use("a")
    held, huge = await world.set.lease(key("b")), await world.set.lease(key("c"))
    world.set.measured(held.resident, 95 * MIB)
    assert world.set.is_ready(key("a")), "its 10 MiB are not enough: the one that grew is closed"
    huge.release()
    world.set.measured(huge.resident, 500 * MIB)
    assert not world.set.is_ready(key("a")), "its 10 MiB are enough for what stays"
    held.release()
    world.let_go()


async def test_room_is_made_for_the_peak_of_a_load():
    world = World(count=9, megabytes=100)
    await world.use("a")
    world.later = 60.0
    world.set.load_history.loaded(key("b"), 1.0, 20 * MIB, 95 * MIB)
    world.sizes["b"] = 20 * MIB
    await world.use("b")
    assert ("ended", "a", True) in world.told
    await world.use("a")
    assert world.set.is_ready(key("b"))


@pytest.mark.parametrize(("guess_megabytes", "peak_megabytes"), [(1000, 0), (10, 500)])
async def test_neither_estimate_nor_peak_prevents_a_load(guess_megabytes, peak_megabytes):
    world = World(megabytes=100, guess_megabytes=guess_megabytes)
    if peak_megabytes:
        world.set.load_history.loaded(key("a"), 1.0, 20 * MIB, peak_megabytes * MIB)
    await world.use("a")


async def test_waiters_are_bounded():
    world = World()
    world.set._max_waiting = 3
    world.gate.clear()
    callers = [asyncio.ensure_future(world.set.lease(key("a"))) for _ in range(3)]
    await until(lambda: world.starts)
    with pytest.raises(ModelOverloadedError):
        await world.set.lease(key("a"))
    callers[0].cancel()
    await asyncio.gather(callers[0], return_exceptions=True)
    assert len(world.set._queue._demands[key("a")].waiters) == 2
    world.gate.set()
    for lease in await asyncio.gather(*callers[1:]):
        lease.release()


async def test_hanging_load_does_not_delay_other_loads(monkeypatch):
    monkeypatch.setattr(decision, "TURN_WAIT_S", 0.02)
    world = World(count=9)
    world.gate.clear()
    hanging = [asyncio.ensure_future(world.set.lease(key(name))) for name in ("a", "b")]
    other = asyncio.ensure_future(world.set.lease(key("c")))
    await until(lambda: len(world.starts) == 2)
    world.later = SLOW_LOAD_S + 1
    await until(lambda: len(world.starts) == 3)
    world.gate.set()
    for lease in await asyncio.gather(*hanging, other):
        lease.release()


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        ({"count": 1}, "GATEWAY_MAX_RESIDENT"),
        ({"count": 9, "megabytes": 15}, "GATEWAY_MAX_RESIDENT_BYTES"),
    ],
)
async def test_callers_of_an_evicted_version_are_counted_with_the_setting(limits, setting):
    world = World(**limits)
    for name in ("a", "b", "a"):
        await world.use(name)
    (cost,) = world.set.eviction_costs.lately()
    assert (cost.setting, cost.requests) == (setting, 1)
    await world.set.close(0.1)


async def test_first_callers_of_a_version_are_no_cost_of_evictions():
    world = World(count=1)
    for name in ("a", "b", "c"):
        await world.use(name)
    assert world.set.eviction_costs.lately() == []
    await world.set.close(0.1)


async def test_callers_that_wait_in_vain_for_an_evicted_version_are_counted():
    world = World(count=1, load_budget_s=0.1)
    for name in ("a", "b"):
        await world.use(name)
    world.gate.clear()
    with pytest.raises(ModelLoadingError):
        await world.set.lease(key("a"))
    (cost,) = world.set.eviction_costs.lately()
    assert (cost.requests, cost.longest_wait_s) == (1, 0.1)
    world.gate.set()
    await world.set.close(0.1)


async def test_an_eviction_is_no_cost_of_a_later_end():
    world = World(count=1)
    for name in ("a", "b"):
        await world.use(name)
    world.set.retire(key("b"), "retired")
    await until(lambda: world.set.residents() == [])
    world.set.load_in_background([key("a")])
    await until(lambda: world.set.is_ready(key("a")))
    world.set.retire(key("a"), "retired")
    await until(lambda: world.set.residents() == [])
    await world.use("a")
    assert world.set.eviction_costs.lately() == []
    await world.set.close(0.1)
