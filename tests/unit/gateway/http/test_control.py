"""The control contract: what a long poll does when its caller ends."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from gateway.errors import RolloutRefusedError
from gateway.http import control


class Poll:
    """A long poll, its caller, and an answer that may come."""

    def __init__(self) -> None:
        self.answer, self.gone = asyncio.get_running_loop().create_future(), asyncio.Event()
        self.observing = 0
        services = SimpleNamespace(draining=False, rollout=self)
        self.task = asyncio.ensure_future(
            control.observe(cast(Any, services), Request({"type": "http"}, self._receive))
        )

    async def observe(self, after: int, of: str | None) -> Any:
        self.observing += 1
        try:
            return await self.answer
        finally:
            self.observing -= 1

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_it_ends_as_its_caller_hangs_up() -> None:
    poll = Poll()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert poll.observing == 1
    poll.gone.set()
    with pytest.raises(RolloutRefusedError, match="hung up"):
        await poll.task
    await asyncio.wait([poll.answer])
    assert poll.observing == 0


async def test_it_answers_and_leaves_no_task() -> None:
    poll = Poll()
    poll.answer.set_result("state")
    assert await poll.task == cast(Any, "state")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
