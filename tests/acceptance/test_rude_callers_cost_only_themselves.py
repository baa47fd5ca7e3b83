"""Tiny chunks, long queries, upgrades and pipelining beside callers who want an answer.

How much longer these wait is bounded more generously in short runs. Where others want the cores, a
process that always has something to do waits for them, and one that rests between two requests does
not, whatever it does.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.acceptance.node import Node
from tests.acceptance.peers import LIVE, Peer
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.rude import ATTACKS, BEGUN, CUT
from tests.acceptance.scale import (
    BEGUN_LIMIT_S,
    BESIDE_CALLERS,
    LOAD_LIMIT_S,
    RUDE_AT_MOST_TIMES,
    RUDE_LOOK_LIMIT_S,
    RUDE_MOST_ROUNDS,
    RUDE_ROUNDS,
    RUDE_S,
)
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.benchmarks.load import load
from tests.models.catalogue import ScriptedModel

REFUSALS = {"400", "414", "431", CUT}
ANSWERED = {
    "chunks": REFUSALS,
    "queries": REFUSALS,
    "upgrades": {"404"},
    "pipelining": {"200", *REFUSALS},
}
"""What the attackers may be answered. A smuggled request would be answered 200."""


@dataclass(frozen=True)
class Look:
    """One question whether the gateway is alive."""

    status: int
    seconds: float


@contextlib.asynccontextmanager
async def attacked(kind: str, port: int) -> AsyncIterator[Counter[str]]:
    """Attack during the block; give how often each answer came, there when it is over."""
    counts: Counter[str] = Counter()
    attack = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.acceptance.rude", kind, str(port)), stdin=PIPE, stdout=PIPE
    )
    try:
        assert attack.stdout is not None
        begun = await asyncio.wait_for(attack.stdout.readline(), BEGUN_LIMIT_S)
        assert begun.decode().strip() == BEGUN
        yield counts
        told, _ = await asyncio.wait_for(attack.communicate(b""), LOAD_LIMIT_S)
        counts.update(json.loads(told))
    finally:
        if attack.returncode is None:
            attack.kill()
            await attack.wait()


@contextlib.asynccontextmanager
async def looking_alive(port: int) -> AsyncIterator[list[Look]]:
    """Ask whether the gateway is alive, on connections that are new; give the answers."""
    looks: list[Look] = []

    async def look() -> None:
        while True:
            began = time.monotonic()
            peer = await Peer.connect(port)
            try:
                await peer.send(LIVE)
                status, _ = await peer.answer()
                looks.append(Look(status, time.monotonic() - began))
            finally:
                await peer.leave()
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    try:
        yield looks
    finally:
        if not looking.done():
            looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


def is_to_go_on(ratios: list[float]) -> bool:
    """Whether too few rounds have been, or what the machine does may have spoilt half of them."""
    if len(ratios) < RUDE_ROUNDS:
        return True
    return len(ratios) < RUDE_MOST_ROUNDS and statistics.median(ratios) > RUDE_AT_MOST_TIMES


async def p50_ms(port: int, path: str, body: str) -> float:
    figures = await asyncio.to_thread(load, port, path, body, BESIDE_CALLERS, RUDE_S)
    assert not figures["bad"]
    return float(figures["p50_ms"])


@pytest.mark.parametrize("kind", ATTACKS)
async def test_others_hardly_notice(running_node: Node, registry: Registry, kind: str) -> None:
    name = registry.name("beside")
    registry.publish(name, ScriptedModel(scale=2.0))
    call, body = Call(name, 0, "1"), x_body(1.0)
    async with client(1) as http:
        await running_node.catalogue_shows(http, name, 1)

        async def served() -> bool:
            return (await ask(http, running_node.url, call, body)).ok

        await eventually(served, "the model serves")
    port, said = running_node.port, json.dumps(body)
    ratios: list[float] = []
    answered: Counter[str] = Counter()
    async with looking_alive(port) as looks:
        while is_to_go_on(ratios):
            alone_ms = await p50_ms(port, call.path, said)
            before = len(looks)
            async with attacked(kind, port) as counts:
                ratios.append(await p50_ms(port, call.path, said) / alone_ms)
            assert len(looks) > before
            assert ANSWERED[kind] >= counts.keys() > set(), counts
            answered += counts
    longest = max(look.seconds for look in looks)
    print(f"{kind}: {ratios}, {answered}, {len(looks)} looks, the longest of {longest:.3f} s")
    assert {look.status for look in looks} == {200}
    assert longest <= RUDE_LOOK_LIMIT_S
    assert statistics.median(ratios) <= RUDE_AT_MOST_TIMES, ratios
