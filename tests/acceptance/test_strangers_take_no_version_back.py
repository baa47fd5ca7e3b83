"""Expensive bodies that are refused, beside an observed promotion: it is not rolled back."""

import asyncio
import contextlib
from collections import Counter

import httpx

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import SOAK, STRANGERS_BODIES
from tests.acceptance.traffic import Traffic, asks, client, describe
from tests.acceptance.waiting import eventually_true
from tests.models.catalogue import ScriptedModel

ALIAS = "champion"
ROWS = 5
CALLERS = 4
STRANGERS = 4
COMPARED_OF = 50
"""GATEWAY_ROLLBACK_MIN_REQUESTS, as it is by default."""
LIMIT_S = 8
"""What a caller of the model may wait: far less than the strangers' bodies once took to refuse."""
LARGEST_BYTES = (16 if SOAK else 4) * 1024 * 1024
SIDE_BY_SIDE = b"[" * 60 + b"]" * 60 + b","
BRACKETS = b'{"inputs": [' + SIDE_BY_SIDE * (LARGEST_BYTES // len(SIDE_BY_SIDE) - 1) + b"1]}"


async def _refused_without_end(node: Node, model: str, statuses: Counter[int]) -> None:
    url = f"{node.url}/models/{model}/versions/@{ALIAS}/predict"
    async with client(1) as http:
        while True:
            with contextlib.suppress(httpx.TransportError):  # a refusal may end the connection
                answer = await http.post(
                    url, content=BRACKETS, headers={"content-type": "application/json"}
                )
                statuses[answer.status_code] += 1


async def test_a_promotion_is_not_rolled_back_for_what_strangers_send(
    make_node: NodeMaker, registry: Registry
) -> None:
    model = registry.name("candidate")
    for scale in (1.0, 2.0):
        registry.publish(model, ScriptedModel(scale=scale))
    registry.point(model, ALIAS, 1)
    node = make_node(
        gateway={
            "GATEWAY_REQUEST_TIMEOUT_S": str(LIMIT_S),
            # How long others wait for a core is another question, and this machine has few.
            "ACCEPTANCE_CONSTANTS": '{"ROLLBACK_LATENCY_FLOOR_S": 60}',
        }
    ).start()
    statuses: Counter[int] = Counter()
    async with client(CALLERS) as http, client(1) as watching:
        await node.active(watching, model, ALIAS, 1)
        async with Traffic(
            http,
            node.url,
            [asks(model, f"@{ALIAS}", rows=ROWS)] * CALLERS,
            lambda call: x_body(float(call.row)),
        ) as traffic:
            await eventually_true(lambda: len(traffic.answers) >= COMPARED_OF, "calls")
            async with asyncio.TaskGroup() as strangers:
                tasks = [
                    strangers.create_task(_refused_without_end(node, model, statuses))
                    for _ in range(STRANGERS)
                ]
                await eventually_true(lambda: statuses.total() > 0, "strangers are refused")
                registry.point(model, ALIAS, 2)
                await node.active(watching, model, ALIAS, 2)
                served = len(traffic.answers)
                refused = statuses.total()
                await eventually_true(
                    lambda: (
                        len(traffic.answers) - served >= 2 * COMPARED_OF
                        and statuses.total() - refused >= STRANGERS_BODIES
                    ),
                    "the version is compared",
                )
                for task in tasks:
                    task.cancel()
        print(f"strangers: {statuses}; callers: {Counter(a.status for a in traffic.answers)}")
        assert set(statuses) <= {400, 413, 422, 429}, statuses
        wrong = [one for one in traffic.answers if not one.ok and one.status != 429]
        assert not wrong, describe(wrong)
        for answer in traffic.answers:
            if answer.ok:
                assert answer.predictions == [float(answer.version or 0) * answer.call.row], answer
        await node.active(watching, model, ALIAS, 2)
        assert await node.metric(watching, "gateway_rollbacks_total", model=model, alias=ALIAS) == 0
        assert traffic.answers[-1].version == 2
