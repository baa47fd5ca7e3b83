"""The first week of a node: it is new, its set is small, a model comes from another Python."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel

ALIAS = "champion"
OTHER_PYTHON = Path(__file__).parents[1] / "models" / "other_python" / "model"
"""Pickled by Python 3.13: its bytecode ends a process of Python 3.11 by a segmentation fault."""
MODELS = 12
WORKERS = 4
ROUNDS = 3


async def test_a_new_node_is_not_ready_and_a_small_set_says_what_helps(
    make_node: NodeMaker, registry: Registry
) -> None:
    names = [registry.name(f"small{number}") for number in range(MODELS)]
    for number, name in enumerate(names, start=1):
        await asyncio.to_thread(registry.publish, name, LinearModel(float(number)))
    node = make_node(gateway={"GATEWAY_MAX_RESIDENT": str(WORKERS)})
    gateway = node.start_gateway()
    async with client(2) as http:

        async def ready() -> tuple[int, str, str]:
            answer = await http.get(f"{node.url}/health/ready")
            body = answer.json()
            return answer.status_code, body["status"], body["registry"]["control_plane"]

        assert await ready() == (503, "starting", "not_heard")
        assert await node.metric(http, "gateway_control_plane_up") == 0

        async def is_told() -> bool:
            return "control_plane.not_heard" in gateway.log.read_text()

        await eventually(is_told, "the log says that no control plane has connected")
        assert "registry-gateway control-plane" in gateway.log.read_text()

        node.start_control()
        for name in names:
            await node.active(http, name, "latest", 1)
        assert await ready() == (200, "ready", "up")
        for _ in range(ROUNDS):
            for number, name in enumerate(names, start=1):
                answer = await ask(http, node.url, Call(name, 1), row_body(1))
                assert answer.ok, answer
                assert answer.predictions == [row_answers(float(number))[1]]
        setting = "GATEWAY_MAX_RESIDENT"
        waits = await node.metric(http, "gateway_eviction_waits", setting=setting)
        assert waits >= MODELS, "each model was evicted before it was called again"
        lines = [json.loads(one) for one in gateway.log.read_text().splitlines() if one[:1] == "{"]
        (line,) = [one for one in lines if one["event"] == "eviction.cost_callers"]
        assert line["setting"] == setting

        async def is_shown() -> bool:
            told = await asyncio.to_thread(node.command, "status")
            return f"raise {setting} of the gateway" in " ".join(told.stdout.split())

        await eventually(is_shown, "operators are told")

        # With everything else down, a node that has a table is ready.
        node.stop_control()
        assert gateway.stop() == 0
        node.start_gateway()
        assert await ready() == (200, "ready", "not_heard")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the fault is that of Python 3.11")
async def test_a_model_that_another_python_pickled_is_rejected_and_says_why(
    running_node: Node, registry: Registry
) -> None:
    name = registry.name("elsewhere")
    await asyncio.to_thread(registry.publish, name, LinearModel(2.0))
    registry.point(name, ALIAS, 1)
    async with client(2) as http:
        await running_node.active(http, name, ALIAS, 1)
        version = await asyncio.to_thread(registry.publish_folder, name, OTHER_PYTHON)
        registry.point(name, ALIAS, version)

        async def why() -> str | None:
            document = await running_node.model(http, name) or {}
            reason: str | None = document.get("aliases", {}).get(ALIAS, {}).get("why")
            return reason if reason and "rejected" in reason else None

        reason = await eventually(why, "the version is rejected")
        shown = await running_node.version(http, name, version)
        answer = await ask(http, running_node.url, Call(name, 3), row_body(3))
    assert "the worker was ended by SIGSEGV before it was ready" in reason
    assert "Fatal Python error: Segmentation fault" in reason
    verdict = shown["dependency_verdict"]
    assert verdict["status"] == "warn"
    assert verdict["mismatches"][0].startswith("Python (here 3.11.")
    assert verdict["mismatches"][0].endswith("logged with 3.13)")
    assert (answer.version, answer.predictions) == (1, [row_answers(2.0)[3]])
