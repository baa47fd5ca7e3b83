"""What ends is released, and what supervises goes on, whatever raises."""

import asyncio
from typing import Any

import pytest

from gateway.errors import LoadError
from gateway.serving.replica.replica import Replica, ReplicaState
from gateway.system import supervised
from gateway.system.release import release_all, release_each
from gateway.system.supervised import keep_running
from tests.fakes.resident_set import World, key, until
from tests.fakes.worker import FakeWorker
from tests.unit.gateway.serving.replica.test_replica import (
    LIMITS,
    LOAD,
    ReadyLauncher,
    ready_replica,
)


async def test_a_release_goes_on_when_a_step_raises() -> None:
    taken = []

    async def take() -> None:
        taken.append(1)

    async def fail() -> None:
        raise RuntimeError("can't start new thread")

    await release_each(take, fail, take)
    assert len(taken) == 2


async def test_a_release_that_is_cancelled_ends() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def never() -> None:
        raise AssertionError

    with pytest.raises(asyncio.CancelledError):
        await release_each(cancelled, never)


def test_each_step_of_a_release_is_taken() -> None:
    taken: list[int] = []

    def fail() -> None:
        raise OSError(24, "Too many open files")

    release_all(lambda: taken.append(1), fail, lambda: taken.append(2), fail)
    assert taken == [1, 2]


# --- a replica ----------------------------------------------------------------------------------


class Unreleasable(FakeWorker):
    """A worker whose end meets what its machine refuses; ``odd`` names what."""

    odd = ""

    def kill(self) -> None:
        was_killed = self.killed
        super().kill()
        if self.odd == "kill" and not was_killed:
            raise OSError(24, "Too many open files")

    def close(self) -> None:
        super().close()
        if self.odd == "close":
            raise OSError(9, "Bad file descriptor")


@pytest.mark.parametrize(
    "odd", ["kill", "close", "on_done", "on_proof", "on_request", "remove_reader", "output"]
)
async def test_a_replica_whose_release_fails_at_one_step_takes_the_others(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    launcher: Any = ReadyLauncher()
    launcher.worker.close()
    launcher.worker = worker = Unreleasable()
    worker.odd = odd
    stopped: list[Replica] = []
    replica = Replica(
        "m/1",
        launcher,
        LIMITS,
        stopped.append,
        fail if odd == "on_request" else lambda *_: None,
        on_proof=fail if odd == "on_proof" else lambda *_: None,
    )
    await ready_replica(replica, launcher)
    let_go: list[int] = []
    answers = [
        replica.submit(
            b"{}",
            b"{}",
            timeout_s=30,
            limit_s=30,
            on_done=fail if odd == "on_done" and number == 1 else lambda: let_go.append(1),
        )
        for number in (1, 2, 3)
    ]
    answers[2].cancel()
    loop = asyncio.get_running_loop()
    if odd == "remove_reader":
        monkeypatch.setattr(loop, "remove_reader", fail)
    if odd == "output":
        monkeypatch.setattr(replica._output, "_read", fail)
    replica.kill("the test wants it")
    async with asyncio.timeout(10):
        await asyncio.gather(*answers, return_exceptions=True)
        await replica.wait_stopped()
    monkeypatch.undo()
    loop.remove_reader(worker.exited)
    assert stopped == [replica]
    assert (replica.state, replica.in_flight) == (ReplicaState.STOPPED, 0)
    assert len(let_go) == (2 if odd == "on_done" else 3)
    assert worker.closed
    assert worker.channel.fileno() == -1


async def test_a_worker_whose_end_cannot_be_seen_counts_as_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    launcher = ReadyLauncher()
    stopped: list[Replica] = []
    replica = Replica("m/1", launcher, LIMITS, stopped.append)
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", fail)
    with pytest.raises(LoadError, match="could not be watched"):
        await replica.start(LOAD)
    assert stopped == [replica]
    assert launcher.worker.killed
    assert launcher.worker.closed


# --- the resident set ---------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["loaded", "ended", "load_failed"])
async def test_failing_observer_costs_no_slot(odd: str) -> None:
    world: Any = World(count=1)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    setattr(world, odd, fail)
    world.set._pool._observer = world
    if odd == "load_failed":
        world.failures = [LoadError("load_failed", "told to")]
        with pytest.raises(Exception, match="could not be loaded"):
            await world.use("a")
    else:
        await world.use("a")
    await world.use("b")
    await world.use("c")
    assert [one.key.model for one in world.set.residents()] == ["c"]


async def test_a_fault_at_the_end_of_a_worker_keeps_the_next_one_from_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world: Any = World(count=1)
    await world.use("a")

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise RuntimeError("odd")

    monkeypatch.setattr(world.set._queue, "_follow_end", fail)
    waiting = asyncio.ensure_future(world.set.lease(key("b")))
    async with asyncio.timeout(10):
        (await waiting).release()
    await until(lambda: len(world.set.residents()) == 1)


async def test_a_worker_that_says_it_holds_more_than_there_is_evicts_no_other() -> None:
    world: Any = World(count=3, megabytes=1000)
    for name in ("a", "b", "c"):
        await world.use(name)
    liar = next(one for one in world.set.residents() if one.key == key("b"))
    world.set.measured(liar, 2**47)
    await until(lambda: len(world.set.residents()) == 2)
    assert {one.key.model for one in world.set.residents()} == {"a", "c"}


# --- loops --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [RuntimeError("odd"), ExceptionGroup("odd", [OSError(24, "x")]), asyncio.CancelledError()],
)
async def test_a_loop_that_ends_by_a_fault_begins_again(
    odd: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "_PAUSE_S", 0.0)
    rounds: list[int] = []

    async def run() -> None:
        rounds.append(1)
        if len(rounds) < 3:
            raise odd

    async with asyncio.timeout(10):
        await keep_running("test", run)
    assert len(rounds) == 3


async def test_a_loop_that_is_told_to_end_ends() -> None:
    task = asyncio.ensure_future(keep_running("test", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
