"""Versions of which one ends before the next is loaded: promoted and rolled back."""

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import CANDIDATE_CALLERS
from tests.acceptance.traffic import Traffic, asks, client, describe
from tests.acceptance.waiting import eventually_true
from tests.models.catalogue import ScriptedModel

pytestmark = pytest.mark.soak(
    "unit/gateway/rollout/test_automatic_rollback.py",
    "acceptance/test_bad_candidates_are_rolled_back.py",
)
ALIAS = "champion"
ROWS = 5
BAD_ROW = 3
ENOUGH_ANSWERS = 20
"""Listings after which what the registry said before the first of them is known."""


@pytest.fixture(params=["unload_first", "auto"])
def swap(request: pytest.FixtureRequest) -> str:
    """How the versions take turns, as the model's tag says."""
    way: str = request.param
    return way


@pytest.fixture
def node(swap: str, request: pytest.FixtureRequest) -> Node:
    """The shared node; for ``auto``, a node with room for one worker."""
    if swap == "unload_first":
        shared: Node = request.getfixturevalue("running_node")
        return shared
    make_node: NodeMaker = request.getfixturevalue("make_node")
    return make_node(gateway={"GATEWAY_MAX_RESIDENT": "1"}).start()


async def test_a_candidate_comes_and_goes_without_a_lost_request(
    node: Node, registry: Registry, tmp_path: Path, swap: str
) -> None:
    """With ``unload_first`` each locks a file; with ``auto`` there is room for one."""
    model = registry.name("single")
    lock = str(tmp_path / "lock") if swap == "unload_first" else ""
    registry.publish(model, ScriptedModel(scale=1.0, lock_file=lock))
    registry.client.set_registered_model_tag(model, "gateway.swap", swap)
    registry.point(model, ALIAS, 1)
    callers = [asks(model, f"@{ALIAS}", rows=ROWS)] * CANDIDATE_CALLERS
    async with client(CANDIDATE_CALLERS) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        async with Traffic(
            http, node.url, callers, lambda call: x_body(float(call.row))
        ) as traffic:
            await eventually_true(lambda: len(traffic.answers) >= ENOUGH_ANSWERS, "calls")
            bad = ScriptedModel(scale=2.0, lock_file=lock, raise_on=float(BAD_ROW))
            await asyncio.to_thread(registry.publish, model, bad)
            registry.point(model, ALIAS, 2)
            await eventually_true(lambda: traffic.count(lambda a: a.version == 2), "it serves")
            await node.active(watching, model, ALIAS, 1)
            count = len(traffic.answers) + ENOUGH_ANSWERS
            await eventually_true(lambda: len(traffic.answers) > count, "callers go on")
        assert await node.metric(watching, "gateway_rollbacks_total", model=model, alias=ALIAS) == 1
    for answer in traffic.answers:
        assert answer.version in {1, 2}, answer
        if (answer.version, answer.call.row) == (2, BAD_ROW):
            assert answer.code == "model_error", answer
        else:
            assert answer.predictions == [answer.version * answer.call.row], answer
    ended_with = [answer.version for answer in traffic.answers[-ENOUGH_ANSWERS:]]
    assert set(ended_with) == {1}, describe(traffic.answers[-ENOUGH_ANSWERS:])
