"""How a gateway is released at its end."""

import asyncio

import pytest

from gateway.bootstrap import take_each


async def test_a_release_goes_on_when_a_step_raises() -> None:
    taken = []

    async def take() -> None:
        taken.append(1)

    async def fail() -> None:
        raise RuntimeError("can't start new thread")

    await take_each(take, fail, take)
    assert len(taken) == 2


async def test_a_release_that_is_cancelled_ends() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def never() -> None:
        raise AssertionError

    with pytest.raises(asyncio.CancelledError):
        await take_each(cancelled, never)
