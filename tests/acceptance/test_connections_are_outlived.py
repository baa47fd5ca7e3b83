"""Many connections, slow senders, and callers who hang up in the middle: nothing of them stays.

More of them send their bodies slowly than the gateway has places, and nobody is refused for that.

Measured on the real gateway process: leases, places, descriptors and private memory. The first
round lets the allocator grow; after the second, all has to be as it was after the first.
"""

import asyncio
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.peers import LIVE, Peer, predict_request
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import (
    CONNECTED_S,
    CONNECTIONS_BUSY,
    CONNECTIONS_IDLE,
    CONNECTIONS_RUDE,
    CONNECTIONS_SLOW,
    PLACES,
)
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import ScriptedModel

PREDICT_S = 0.002
PIECES = 5
PAUSE_S = min(1.5, CONNECTED_S / 5)
"""Between two pieces: a head has ten seconds in all."""
AT_A_TIME = 50
MARGIN_BYTES = 8 * 1024 * 1024
"""What the allocator may keep: less than 2 KiB of each connection at full scale."""
MARGIN_FILES = 4
"""Kept-alive connections of those who look."""


@dataclass(frozen=True)
class Held:
    """What a gateway holds."""

    files: int
    private_bytes: int


@dataclass
class Crowd:
    """One round of callers. Every answer is counted by its status; 0: there was none.

    Who hangs up calls a model of its own, so that what is still inside its worker takes no place
    of those who wait for their answers.
    """

    port: int
    model: str
    left_alone: str
    answers: dict[str, Counter[int]] = field(default_factory=dict)
    wrong: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.request = predict_request(self.model, x_body(1.0))
        self.left = predict_request(self.left_alone, x_body(1.0))
        self.until = 0.0

    async def round(
        self, dice: random.Random, connected: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        """Connect all, let them go on for a while, and see those who idled be served.

        ``connected`` is called while they are all there.
        """
        self.answers = {kind: Counter() for kind in ("idle", "busy", "slow")}
        idle = await self._idle()
        self.until = time.monotonic() + CONNECTED_S
        async with asyncio.TaskGroup() as callers:
            for _ in range(CONNECTIONS_BUSY):
                callers.create_task(self._busy())
            for number in range(CONNECTIONS_SLOW):
                callers.create_task(self._slow(number))
            for number in range(CONNECTIONS_RUDE):
                callers.create_task(self._rude(number, random.Random(dice.random())))
            callers.create_task(connected())
        for start in range(0, len(idle), AT_A_TIME):
            some = idle[start : start + AT_A_TIME]
            await asyncio.gather(*(self._ask(one, "idle", LIVE) for one in some))
        await asyncio.gather(*(one.leave() for one in idle))

    async def _idle(self) -> list[Peer]:
        """Connect those who idle: every other one after an answer, the others from the start."""
        idle = []
        for number in range(CONNECTIONS_IDLE):
            peer = await Peer.connect(self.port)
            idle.append(peer)
            if number % 2:
                await self._ask(peer, "idle", LIVE)
        return idle

    async def _busy(self) -> None:
        peer = await Peer.connect(self.port)
        while time.monotonic() < self.until:
            await self._ask(peer, "busy", *self.request)
        await peer.leave()

    async def _slow(self, number: int) -> None:
        """Send head or body in pieces with pauses, and be served all the same.

        Each at its own time: if all were complete in one moment, there would be too many.
        """
        head, body = self.request
        slowly = [*_cut(head), body] if number % 2 else [head, *_cut(body)]
        peer = await Peer.connect(self.port)
        await asyncio.sleep(PIECES * PAUSE_S * number / CONNECTIONS_SLOW)
        while time.monotonic() < self.until:
            await self._ask(peer, "slow", *slowly, pause_s=PAUSE_S)
        await peer.leave()

    async def _rude(self, number: int, dice: random.Random) -> None:
        """Hang up in the middle of a head, of a body, or before the answer."""
        whole = b"".join(self.left)
        head = len(self.left[0])
        while time.monotonic() < self.until:
            peer = await Peer.connect(self.port)
            cut = dice.choice([head // 2, head, head + 3, len(whole)])
            await peer.send(whole[:cut])
            await asyncio.sleep(dice.random() * 0.05)
            await peer.leave(reset=bool(number % 2))

    async def _ask(self, peer: Peer, kind: str, *pieces: bytes, pause_s: float = 0.0) -> None:
        try:
            await peer.send(*pieces, pause_s=pause_s)
            status, body = await peer.answer()
        except (EOFError, ConnectionError):
            status, body = 0, b""
        self.answers[kind][status] += 1
        if status != 200:
            self.wrong.append(body)


def _cut(data: bytes) -> list[bytes]:
    size = -(-len(data) // PIECES)
    return [data[start : start + size] for start in range(0, len(data), size)]


async def test_nothing_stays_of_connections_that_idle_dribble_or_hang_up(
    make_node: NodeMaker, registry: Registry
) -> None:
    _allow_files(2 * (CONNECTIONS_IDLE + CONNECTIONS_BUSY + CONNECTIONS_SLOW) + 1000)
    places = {"GATEWAY_MAX_TOTAL_IN_FLIGHT": str(PLACES), "GATEWAY_MAX_IN_FLIGHT": str(PLACES)}
    node = make_node(gateway=places).start()
    names = [registry.name("crowded"), registry.name("left")]
    async with client(1) as http:
        for name in names:
            registry.publish(name, ScriptedModel(scale=2.0, predict_sleep_s=PREDICT_S))
            await node.catalogue_shows(http, name, 1)
            assert (await ask(http, node.url, Call(name, 0, "1"), x_body(1.0))).ok
        crowd = Crowd(node.port, names[0], names[1])
        dice = random.Random(7)
        held = []

        async def connected() -> None:
            async def all_of_them() -> bool:
                count = await node.metric(http, "gateway_connections")
                return count >= CONNECTIONS_IDLE + CONNECTIONS_BUSY + CONNECTIONS_SLOW

            await eventually(all_of_them, "all are connected at a time")

        for _ in range(2):
            await crowd.round(dice, connected)
            _assert_all_were_served(crowd)
            held.append(await _at_rest(node))
        first, second = held
    print(f"{held}; {crowd.answers}")
    assert second.files <= first.files + MARGIN_FILES, held
    assert second.private_bytes <= first.private_bytes + MARGIN_BYTES, held


def _assert_all_were_served(crowd: Crowd) -> None:
    assert set(crowd.answers["busy"]) == {200}, (crowd.answers, crowd.wrong[:3])
    assert set(crowd.answers["slow"]) == {200}, (crowd.answers, crowd.wrong[:3])
    assert set(crowd.answers["idle"]) == {200}, (crowd.answers, crowd.wrong[:3])
    assert crowd.answers["busy"][200] > CONNECTIONS_BUSY
    assert crowd.answers["idle"][200] == CONNECTIONS_IDLE + CONNECTIONS_IDLE // 2


async def _at_rest(node: Node) -> Held:
    """Wait until the gateway holds nothing of any request; return what it holds besides."""
    assert node.gateway is not None
    pid = node.gateway.pid
    async with client(1) as http:

        async def nothing() -> bool:
            names = ("gateway_leases", "gateway_in_flight", "gateway_in_flight_bytes")
            held = [await node.metric(http, name) for name in names]
            return held == [0, 0, 0] and await node.metric(http, "gateway_connections") <= 3

        await eventually(nothing, "no lease, no place, no byte and no connection is left")
    return _held(pid)


def _held(pid: int) -> Held:
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = [line for line in lines if line.startswith("Private_")]
    return Held(files, sum(int(line.split()[1]) * 1024 for line in private))


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
