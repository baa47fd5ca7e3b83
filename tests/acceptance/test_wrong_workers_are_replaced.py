"""Workers that turn wrong: they are replaced while siblings serve; what never ends is shown."""

import asyncio
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.processes import alive
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.traffic import Answer, Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import ScriptedModel
from tests.servers import MlflowServer

pytestmark = pytest.mark.soak("unit/gateway/serving/test_supervision.py")
GATEWAY = {"GATEWAY_PROBE_INTERVAL_S": "0.3"}
SWITCH = -1.0
CALLERS = 4
ANSWERS = 30
MODEL = ScriptedModel(scale=3.0, wrong_after=SWITCH)


@pytest.fixture(scope="module")
def corner(mlflow_registry: MlflowServer) -> Iterator[Registry]:
    registry = Registry(mlflow_registry.url)
    yield registry
    registry.forget()


async def serving(
    node: Node, registry: Registry, http: httpx.AsyncClient, replicas: int
) -> tuple[str, list[int]]:
    """A model with so many workers; its name and their pids."""
    name = registry.name(f"turns{replicas}")
    registry.client.create_registered_model(name, tags={"gateway.replicas": str(replicas)})
    version = await asyncio.to_thread(registry.publish, name, MODEL)
    await node.active(http, name, "latest", version)
    assert (await asked(http, node, name, 1.0)).ok

    async def up() -> list[int] | None:
        pids = await ready(node, http, name)
        return pids if len(pids) == replicas else None

    return name, await eventually(up, f"{replicas} workers are ready")


async def asked(http: httpx.AsyncClient, node: Node, name: str, x: float) -> Answer:
    return await ask(http, node.url, Call(name, 0, selector="1"), x_body(x))


async def ready(node: Node, http: httpx.AsyncClient, name: str) -> list[int]:
    """The pids of the workers that are ready."""
    document = await node.version(http, name, 1)
    return [one["pid"] for one in document["replicas"] if one["state"] == "ready"]


def _gone(pid: int) -> bool:
    return not alive(pid)


async def test_a_worker_that_turns_wrong_is_replaced_while_its_sibling_serves(
    module_node: Node, corner: Registry
) -> None:
    node = module_node.start()
    async with client(CALLERS) as http, client(2) as watching:
        name, before = await serving(node, corner, watching, 2)
        callers = [asks(name, "1")] * CALLERS
        async with Traffic(
            http, node.url, callers, lambda call: x_body(float(call.row))
        ) as traffic:
            await eventually_true(lambda: len(traffic.answers) >= ANSWERS, "it is asked")
            assert (await asked(watching, node, name, SWITCH)).ok

            async def replaced() -> list[int] | None:
                now = await ready(node, watching, name)
                assert set(now) & set(before), "both siblings were taken away"
                return now if len(now) == 2 and set(now) != set(before) else None

            now = await eventually(replaced, "one of both is another worker")
            seen = len(traffic.answers)
            await eventually_true(lambda: len(traffic.answers) >= seen + ANSWERS, "it goes on")
        (wrong,) = set(before) - set(now)
        await eventually_true(partial(_gone, wrong), "the wrong one has ended")
    failed = [one for one in traffic.answers if not one.ok]
    assert not failed, describe(failed)
    for one in traffic.answers:
        assert one.predictions == MODEL.expected(x_body(float(one.call.row)))


async def test_a_version_whose_workers_all_turn_wrong_is_left_alone_now_and_then_and_says_so(
    module_node: Node, corner: Registry
) -> None:
    node = module_node.start()
    async with client(2) as http:
        name, pids = await serving(node, corner, http, 1)
        for _ in range(3):
            assert (await asked(http, node, name, SWITCH)).ok
            (wrong,) = pids
            await eventually_true(partial(_gone, wrong), "the wrong one has ended")
            assert (await asked(http, node, name, 1.0)).predictions == MODEL.expected(x_body(1.0))
            pids = await ready(node, http, name)
        document = await node.version(http, name, 1)
        assert document["state"] == "resident"
        assert "its worker died 3 times" in document["reason"]
        assert "its own example wrongly, twice: " in document["reason"]
        assert await node.metric(http, "gateway_worker_deaths_total", model=name) == 3
