"""Loops that never return: none ends without a word, whatever cancels what it waits for."""

import asyncio
import time
from functools import partial

import pytest

from registry_sync.reconcile.registry.hints import Hints
from registry_sync.reconcile.schedule import Schedule
from registry_sync.system.supervised import run_forever
from tests.fakes.waiting import becomes


async def cancelled() -> None:
    """What waiting for something comes to that somebody else has cancelled."""
    raise asyncio.CancelledError


def has(looked: list[object], count: int) -> bool:
    return len(looked) == count


async def nothing() -> None:
    """A loop that returns."""


@pytest.mark.parametrize("loop", [cancelled, nothing])
async def test_the_end_of_a_loop_ends_those_beside_it(loop) -> None:
    async def both() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(run_forever("polls", loop))
            group.create_task(asyncio.Event().wait())

    with pytest.raises(ExceptionGroup) as told:
        await both()
    assert "polls" in str(told.value.exceptions[0])


async def test_a_loop_that_is_told_to_end_ends() -> None:
    task = asyncio.ensure_future(run_forever("polls", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_whose_call_was_cancelled_is_done_again() -> None:
    begun: list[int] = []

    async def poll() -> None:
        begun.append(1)
        raise asyncio.CancelledError

    made = Schedule(
        poll=poll,
        sweep=nothing,
        look=lambda: None,
        windows=(),
        poll_interval_s=0.01,
        sweep_interval_s=60,
        jitter=lambda: 0.5,
        clock=time.time,
    )
    task = asyncio.ensure_future(made.run())
    await becomes(lambda: len(begun) > 2, "it polls again")
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(task, return_exceptions=True)


async def test_a_look_that_was_cancelled_is_not_the_last() -> None:
    looked: list[object] = []

    async def look(models: frozenset[str] | None, asked_by: str) -> None:
        looked.append(models)
        raise asyncio.CancelledError

    hints = Hints(look)
    for count in (1, 2):
        hints.add("a", "webhook")
        await becomes(partial(has, looked, count), "it looks")
        await becomes(lambda: hints._looking is None, "that was all")
    await hints.close()
