"""``kill -STOP`` of each process of a node: what was promoted meanwhile, and after, is followed."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.scale import FOLLOWED_LIMIT_S, FROZEN_S
from tests.acceptance.traffic import client
from tests.models.catalogue import LinearModel

ALIAS = "champion"
THAWED_S = 1.0
"""Between the end of the freeze and the next promotion."""


def _gateway(node: Node) -> list[int]:
    assert node.gateway is not None
    return [node.gateway.pid]


def _control_plane(node: Node) -> list[int]:
    assert node.control is not None
    return [node.control.pid]


def _forkserver(node: Node) -> list[int]:
    return [node.forkserver().pid]


PROCESSES: dict[str, Callable[[Node], list[int]]] = {
    "gateway": _gateway,
    "control plane": _control_plane,
    "forkserver": _forkserver,
    "workers": Node.workers_now,
}


@contextlib.contextmanager
def _frozen(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a worker may have been ended meanwhile
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("frozen_s", FROZEN_S)
@pytest.mark.parametrize("process", PROCESSES)
async def test_promotions_are_followed_at_once_when_it_goes_on(
    running_node: Node, registry: Registry, process: str, frozen_s: float
) -> None:
    node, model = running_node, registry.name("frozen")
    for slope in (1.0, 2.0):
        await asyncio.to_thread(registry.publish, model, LinearModel(slope))
    registry.point(model, ALIAS, 1)
    async with client(4) as http:
        await node.active(http, model, ALIAS, 1)
        with _frozen(PROCESSES[process](node)):
            await asyncio.to_thread(registry.point, model, ALIAS, 2)
            await asyncio.sleep(frozen_s)
        meanwhile_s = await _followed_s(node, http, model, 2)
        await asyncio.sleep(max(0.0, THAWED_S - meanwhile_s))
        await asyncio.to_thread(registry.point, model, ALIAS, 1)
        after_s = await _followed_s(node, http, model, 1)
    print(f"{process} frozen for {frozen_s:g} s: {meanwhile_s:.2f} s, then {after_s:.2f} s")
    assert max(meanwhile_s, after_s) < FOLLOWED_LIMIT_S, (meanwhile_s, after_s)


async def _followed_s(node: Node, http: httpx.AsyncClient, model: str, version: int) -> float:
    """How long it takes from now until the alias means a version here."""
    began_at = time.monotonic()
    await node.active(http, model, ALIAS, version)
    return time.monotonic() - began_at
