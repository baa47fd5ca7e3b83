"""What is known of a gateway after states that came whole, and differences."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from registry_sync.domain import LedgerView
from registry_sync.domain.aspired import Aspired
from registry_sync.reconcile.gateway.observation import Observation
from registry_sync.reconcile.steps.damaged_copies import Copies
from tests.fakes.gateway import FakeGateway
from tests.fakes.waiting import becomes

D = f"sha256:{1:064x}"


@contextlib.asynccontextmanager
async def following(gateway: FakeGateway) -> AsyncIterator[Observation]:
    observation = Observation(gateway, on_news=lambda _: None)
    task = asyncio.create_task(observation.follow())
    try:
        await becomes(lambda: observation.node is not None, "the whole state is known")
        yield observation
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_wishes_come_and_go_one_by_one() -> None:
    gateway = FakeGateway()
    for number in range(50):
        gateway.want(f"m{number}", 1)
    async with following(gateway) as observation:
        gateway.want("m7", 2)
        await becomes(lambda: len(wanted(observation, "m7")) == 2, "the new one is known")
        assert observation.heard is not None
        assert len(observation.heard.wanted) == 1, "the others are not told again"
        assert observation.node is not None
        assert len(observation.node.wanted) == 51
        del gateway.wanted["m7", 1]
        gateway._changed()
        await becomes(lambda: wanted(observation, "m7") == [2], "the one that went is known")
        assert len(observation.node.wanted) == 50
        gateway.wanted.clear()
        gateway._changed()
        await becomes(lambda: not observation.models(), "no caller waits")
        assert observation.node.wanted == []


def wanted(observation: Observation, model: str) -> list[int]:
    state = observation.state_of(model)
    assert state is not None
    return [one.version for one in state.wanted]


async def test_what_is_resident_is_kept_though_differences_do_not_tell_it() -> None:
    gateway = FakeGateway()
    gateway.resident = {D}
    async with following(gateway) as observation:
        gateway.want("m", 1)
        await becomes(lambda: gateway.differences, "a difference was told")
        await becomes(lambda: "m" in observation.models(), "and taken")
        assert observation.node is not None
        assert observation.node.resident == [D]
        dropped: list[str] = []
        await copies(dropped).heal_store(observation.node, Aspired({}, 0.0), LedgerView())
        assert dropped == [], "it serves, and cannot come again"


def copies(dropped: list[str]) -> Copies:
    async def threaded(_work: Any, digest: str) -> None:
        dropped.append(digest)

    store = SimpleNamespace(damaged=lambda: {D: "altered"}, drop_damaged=None)
    context = SimpleNamespace(
        artifacts={},
        store=store,
        threads=SimpleNamespace(ledger=threaded),
        changes=SimpleNamespace(wake=lambda: None),
        clock=lambda: 0.0,
        jitter=lambda: 0.0,
    )
    return Copies(cast("Any", context))
