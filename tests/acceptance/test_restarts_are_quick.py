"""Gateway and control plane start again while the registry is down: callers wait for seconds."""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.relay import Relay
from tests.acceptance.scale import RESTARTS, SERVES_WITHIN_S, SOAK, WITH_TORCH
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

ALIAS = "champion"
HEAT = (3, 40, 1, 12)
"""Calls of each model, by which they come back."""
GATEWAY = {"GATEWAY_PROBE_INTERVAL_S": "1"} | (WITH_TORCH if SOAK else {})
ASK_EVERY_S = 0.02


@pytest.fixture
def relay(registry: Registry) -> Iterator[Relay]:
    relay = Relay.to(registry.url)
    yield relay
    relay.close()


async def test_without_the_registry_a_node_serves_seconds_after_its_start(
    make_node: NodeMaker, registry: Registry, relay: Relay
) -> None:
    names = [registry.name(f"warm{number}") for number in range(len(HEAT))]
    for number, name in enumerate(names, start=1):
        await asyncio.to_thread(registry.publish, name, LinearModel(float(number)))
        registry.point(name, ALIAS, 1)
    hottest_first = sorted(range(len(HEAT)), key=lambda number: -HEAT[number])
    hottest = hottest_first[0]
    node = make_node(registry_url=relay.url, gateway=GATEWAY).start()
    async with client(4) as http:
        for name in names:
            await node.active(http, name, ALIAS, 1)
        relay.cut()
        await _heat(http, node, names)

        # Without a caller the models come back by themselves.
        assert node.gateway is not None
        await asyncio.to_thread(node.gateway.stop)
        since = len(_loaded(node))
        node.start_gateway()
        await eventually_true(lambda: len(_loaded(node)) == since + len(names), "all are back")
        began = [names.index(name) for _, name in sorted(_loaded(node)[since:])]
        # Two load at a time, and begin together.
        assert set(began[:2]) == set(hottest_first[:2]), (began, hottest_first)
        assert set(began[2:]) == set(hottest_first[2:]), (began, hottest_first)

        seconds = []
        for turn in range(RESTARTS):
            await _heat(http, node, names)
            await _stop(node, kill=turn % 2 == 1)
            started = time.monotonic()
            node.launch_gateway()
            node.start_control()
            answer = await _first_answer(http, node, Call(names[hottest], turn, f"@{ALIAS}"))
            seconds.append(answer.done_at - started)
            assert answer.version == 1
            assert answer.predictions == [row_answers(float(hottest + 1))[turn]]
            await eventually_true(lambda: len(node.workers_now()) == len(names), "all are back")
            registry_says = (await http.get(f"{node.url}/models")).json()["registry"]
            assert registry_says["listed_at"], registry_says
    median = statistics.median(seconds)
    shown = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"serving {median:.2f} s after the start, in the median of {shown}")
    assert median <= SERVES_WITHIN_S, shown


async def _heat(http: httpx.AsyncClient, node: Node, names: list[str]) -> None:
    """Call each model as often as it is hot, and let the gateway write that down."""
    for name, calls in zip(names, HEAT, strict=True):
        for _ in range(calls):
            answer = await ask(http, node.url, Call(name, 0, f"@{ALIAS}"), row_body(0))
            assert answer.ok, answer
    wanted = [name for _, name in sorted(zip(HEAT, names, strict=True), reverse=True)]

    async def written() -> bool:
        file = node.node_dir / "hot.json"
        document = json.loads(file.read_text()) if file.exists() else {"versions": []}
        return [one["model"] for one in document["versions"]] == wanted

    await eventually(written, "the gateway has written down what is hot")


async def _stop(node: Node, *, kill: bool) -> None:
    for running in (node.control, node.gateway):
        assert running is not None
        await asyncio.to_thread(running.kill if kill else running.stop)


def _loaded(node: Node) -> list[tuple[float, str]]:
    """Return when the loads of all starts began, and of which model, as the gateway's log tells."""
    assert node.gateway is not None
    lines = [line for line in node.gateway.log.read_text().splitlines() if "load.completed" in line]
    return [
        (
            datetime.fromisoformat(told["timestamp"]).timestamp() - told["seconds"],
            str(told["replica"]).rpartition("/")[0],
        )
        for told in map(json.loads, lines)
    ]


async def _first_answer(http: httpx.AsyncClient, node: Node, call: Call) -> Answer:
    async def answered() -> Answer | None:
        answer = await ask(http, node.url, call, row_body(call.row))
        assert answer.ok or answer.refusal, answer  # refused as long as nobody listens
        return answer if answer.ok else None

    return await eventually(answered, "a prediction", look_every_s=ASK_EVERY_S)
