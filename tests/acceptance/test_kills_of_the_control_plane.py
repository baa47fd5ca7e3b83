"""``kill -9`` of the control plane at random moments of swaps: the gateway never notices."""

import asyncio
import json
import random

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import SWAP_KILLS
from tests.acceptance.traffic import Traffic, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

ALIAS = "champion"
LONGEST_S = 2.5
"""A swap of these models takes about so long from the alias's move: fetch, stage, activate."""
ENOUGH_ANSWERS = 10


def _assert_whole(node: Node) -> None:
    """Nothing half done lies in the artifact store."""
    artifacts = node.node_dir / "artifacts"
    kinds: dict[str, set[str]] = {}
    for entry in artifacts.iterdir():
        name, _, kind = entry.name.partition(".")
        kinds.setdefault(name, set()).add(kind)
    assert kinds, f"{artifacts} is empty"
    assert all(kind == {"", "json", "manifest"} for kind in kinds.values()), kinds


async def test_every_swap_is_finished_by_the_next_control_plane(
    running_node: Node, registry: Registry
) -> None:
    dice = random.Random(20)
    node, model = running_node, registry.name("killed")
    right = {}
    for slope in (1.0, 2.0):
        version = await asyncio.to_thread(registry.publish, model, LinearModel(slope))
        right[version] = row_answers(slope)
    registry.point(model, ALIAS, 1)
    assert node.gateway is not None
    gateway_pid = node.gateway.pid
    async with client(4) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        callers = [asks(model, selector) for selector in (f"@{ALIAS}", "1", None)]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            for turn in range(SWAP_KILLS):
                source = 1 + turn % 2
                target = await asyncio.to_thread(registry.publish_again, model, source)
                right[target] = right[source]
                await asyncio.to_thread(registry.point, model, ALIAS, target)
                await asyncio.sleep(dice.uniform(0, LONGEST_S))
                assert node.control is not None
                node.control.kill()
                await _more_answers(traffic)
                node.start_control()
                await node.active(watching, model, ALIAS, target)
                await eventually(
                    lambda: _nothing_under_way(node), "what was begun is finished or forgotten"
                )
                _assert_whole(node)
    history = await eventually(lambda: _history(node, model), "the control plane answers")

    assert node.gateway.running
    assert node.gateway.pid == gateway_pid
    failed = [answer for answer in traffic.answers if not answer.ok]
    assert not failed, describe(failed)
    for answer in traffic.answers:
        assert answer.version is not None
        assert answer.predictions == [right[answer.version][answer.call.row]], answer
    told = json.loads(history)["entries"]
    recorded = {
        one["version"] for one in told if one["alias"] == ALIAS and one["what"] == "activate"
    }
    assert set(range(3, SWAP_KILLS + 3)) <= recorded, "a swap is missing in the history"


async def _history(node: Node, model: str) -> str | None:
    """What the newest control plane tells; None: it does not listen yet."""
    done = await asyncio.to_thread(node.command, "history", model, "--limit", "500", "--json")
    return done.stdout if done.returncode == 0 else None


async def _more_answers(traffic: Traffic) -> None:
    enough = len(traffic.answers) + ENOUGH_ANSWERS
    await eventually_true(
        lambda: len(traffic.answers) >= enough, "callers go on without a control plane"
    )


async def _nothing_under_way(node: Node) -> bool:
    return not any((node.node_dir / "incoming").iterdir())
