"""Versions of which one ends before the next is loaded: promoted, and taken back by rule."""

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import CANDIDATE_CALLERS, SINGLE_SWAPS
from tests.acceptance.traffic import Traffic, asks, client, describe
from tests.acceptance.waiting import eventually_true
from tests.models.catalogue import ScriptedModel

ALIAS = "champion"
ROWS = 5
BAD_ROW = 3
ENOUGH_ANSWERS = 20


@pytest.mark.parametrize("swap", SINGLE_SWAPS)
async def test_a_candidate_comes_and_goes_without_a_lost_request(
    make_node: NodeMaker, registry: Registry, tmp_path: Path, swap: str
) -> None:
    """With ``unload_first`` each locks a file; with ``auto`` there is room for one."""
    model = registry.name("single")
    lock = str(tmp_path / "lock") if swap == "unload_first" else ""
    registry.publish(model, ScriptedModel(scale=1.0, lock_file=lock))
    registry.client.set_registered_model_tag(model, "gateway.swap", swap)
    registry.point(model, ALIAS, 1)
    room = "8" if swap == "unload_first" else "1"
    node = make_node(gateway={"GATEWAY_MAX_RESIDENT": room}).start()
    callers = [asks(model, f"@{ALIAS}", rows=ROWS)] * CANDIDATE_CALLERS
    async with client(CANDIDATE_CALLERS) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        async with Traffic(
            http, node.url, callers, lambda call: x_body(float(call.row))
        ) as traffic:
            await eventually_true(lambda: len(traffic.answers) >= ENOUGH_ANSWERS, "calls")
            node.stop_control()  # so that ``latest`` is not tried beside what the champion means
            bad = ScriptedModel(scale=2.0, lock_file=lock, raise_on=float(BAD_ROW))
            await asyncio.to_thread(registry.publish, model, bad)
            registry.point(model, ALIAS, 2)
            node.start_control()
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
