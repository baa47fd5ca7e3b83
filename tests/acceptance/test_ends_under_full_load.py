"""SIGTERM and ``kill -9`` of a gateway with more callers than it has places.

Its model has a child process of its own. On SIGTERM every request that was accepted is answered;
after either, nothing of the node's gateway is alive.
"""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.peers import Peer, predict_request
from tests.acceptance.processes import Seen, marked
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import END_CALLERS, END_PREDICT_S, GONE_WITHIN_S, READ_WITHIN_S
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import ScriptedModel

PLACES = 16
CHILD = 77.0
PAUSE_S = 0.05
"""After a refusal."""


@dataclass(frozen=True)
class Asked:
    """One request, and its answer's status; None: there was none.

    Attributes:
        came_before: Whether its connection was made before the signal.
    """

    sent_at: float
    done_at: float
    status: int | None
    body: bytes
    came_before: bool


@dataclass
class Load:
    """Callers that ask without end: half of them on connections that stay, half on new ones."""

    port: int
    model: str
    asked: list[Asked] = field(default_factory=list)
    signalled_at: float = float("inf")

    def __post_init__(self) -> None:
        self.request = b"".join(predict_request(self.model, x_body(1.0)))

    def begin(self) -> "asyncio.Future[list[None]]":
        return asyncio.gather(*(self._ask_on(bool(number % 2)) for number in range(END_CALLERS)))

    def count(self, status: int | None) -> int:
        return sum(one.status == status for one in self.asked)

    async def _ask_on(self, stays: bool) -> None:
        """Ask until nobody listens any more."""
        while True:
            try:
                peer = await Peer.connect(self.port)
            except OSError:
                return
            connected_at = time.monotonic()
            while await self._ask(peer, connected_at) and stays:
                pass
            await peer.leave()

    async def _ask(self, peer: Peer, connected_at: float) -> bool:
        """Ask once; return whether the connection is there for another time."""
        sent_at = time.monotonic()
        status, body = None, b""
        with contextlib.suppress(EOFError, ConnectionError):
            await peer.send(self.request)
            status, body = await peer.answer()
        came_before = connected_at < self.signalled_at
        self.asked.append(Asked(sent_at, time.monotonic(), status, body, came_before))
        if status != 200:
            await asyncio.sleep(PAUSE_S)
        return status is not None and not peer.ends


async def _serving_with_a_child(node: Node, name: str) -> None:
    async with client(1) as http:
        await node.catalogue_shows(http, name, 1)
        answer = await ask(http, node.url, Call(name, 0, "1"), x_body(CHILD))
    assert answer.ok, answer


def _of_the_gateway(node: Node) -> list[Seen]:
    """Everything that the gateway has started, and what those have; and itself."""
    ours = {node.control.pid} if node.control is not None else set()
    return [seen for seen in marked(node.mark) if seen.pid not in ours]


def _children_of_models(seen: list[Seen]) -> list[Seen]:
    return [one for one in seen if "time.sleep(600)" in one.command]


async def _under_full_load(node: Node, name: str) -> "tuple[Load, asyncio.Future[list[None]]]":
    """Begin to load the gateway; return when it is full and refuses."""
    load = Load(node.port, name)
    callers = load.begin()
    async with client(1) as http:

        async def full() -> bool:
            return await node.metric(http, "gateway_in_flight") >= PLACES

        await eventually(full, "every place is taken")
        await eventually_true(lambda: load.count(429) and load.count(200), "some are refused")
    assert _children_of_models(_of_the_gateway(node)), "the model has a child"
    return load, callers


async def test_every_accepted_request_is_answered_and_nothing_outlives_the_gateway(
    make_node: NodeMaker, registry: Registry
) -> None:
    name = registry.name("ending")
    registry.publish(name, ScriptedModel(predict_sleep_s=END_PREDICT_S, child_on=CHILD))
    node = make_node(gateway={"GATEWAY_MAX_TOTAL_IN_FLIGHT": str(PLACES)}).start()
    await _serving_with_a_child(node, name)
    await _sigterm(node, name)
    await asyncio.to_thread(node.start)
    await _serving_with_a_child(node, name)
    await _kill(node, name)


async def _sigterm(node: Node, name: str) -> None:
    assert node.gateway is not None
    load, callers = await _under_full_load(node, name)
    load.signalled_at = time.monotonic()
    assert await asyncio.to_thread(node.gateway.stop) == 0, node.gateway.tail()
    ended_at = time.monotonic()
    await callers
    statuses = Counter(one.status for one in load.asked)
    print(f"SIGTERM: {statuses}, ended after {ended_at - load.signalled_at:.2f} s")
    assert set(statuses) <= {200, 429, 503, None}, statuses
    assert statuses[None] <= END_CALLERS, "more than whom the kernel had accepted at the end"
    assert statuses[503], "nobody came during the drain: the test proves nothing"
    inside = [one for one in load.asked if one.sent_at < load.signalled_at <= one.done_at]
    assert sum(one.status == 200 for one in inside) >= PLACES // 2, "it was not full"
    for one in load.asked:
        if one.status == 503:
            assert b'"draining"' in one.body, one
            assert one.sent_at > load.signalled_at - READ_WITHIN_S, (one, load.signalled_at)
        if one.status is None:
            assert not one.came_before, (one, load.signalled_at, ended_at)
    await _nothing_is_left(node, "SIGTERM")
    assert not (node.node_dir / "gateway.sock").exists()


async def _kill(node: Node, name: str) -> None:
    assert node.gateway is not None
    _, callers = await _under_full_load(node, name)
    node.gateway.process.kill()
    await _nothing_is_left(node, "kill -9")
    await callers


async def _nothing_is_left(node: Node, after: str) -> None:
    """Wait until the last process of the gateway has ended: some see by a pipe that it is gone."""
    began = time.monotonic()
    await eventually_true(lambda: not _of_the_gateway(node), f"nothing is alive after {after}")
    took_s = time.monotonic() - began
    print(f"{after}: nothing left after {took_s:.2f} s")
    assert took_s < GONE_WITHIN_S
