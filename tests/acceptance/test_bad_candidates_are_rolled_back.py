"""A candidate that warms up and fails on live traffic is rolled back and stays so."""

import asyncio
from typing import Any

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import CANDIDATE_CALLERS, CANDIDATE_PASSES
from tests.acceptance.surface import alias_of
from tests.acceptance.traffic import Answer, Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually_true
from tests.models.catalogue import ScriptedModel

ALIAS = "champion"
ROWS = 5
BAD_ROW = 3
"""One in five of those that callers ask for."""
COMPARED_OF = 50
"""GATEWAY_ROLLBACK_MIN_REQUESTS, as it is by default."""
SCALES = {1: 1.0, 2: 2.0, 3: 2.0}


def assert_it_served(answers: list[Answer], candidate: int) -> None:
    """It did serve: four rows in five were answered rightly, the fifth raised, and nothing else."""
    served = [answer for answer in answers if answer.version == candidate]
    right, failed = ([one for one in served if one.ok is ok] for ok in (True, False))
    assert len(served) >= COMPARED_OF, describe(served)
    assert right, describe(served)
    assert failed, describe(served)
    for answer in right:
        assert answer.predictions == [SCALES[candidate] * answer.call.row], answer
    assert {(one.code, one.call.row) for one in failed} == {("model_error", BAD_ROW)}
    others = [one for one in answers if one.version != candidate]
    assert all(one.ok and one.version == 1 for one in others), describe(others)


def traffic_to(http: Any, node: Node, model: str) -> Traffic:
    callers = [asks(model, f"@{ALIAS}", rows=ROWS)] * CANDIDATE_CALLERS
    return Traffic(http, node.url, callers, lambda call: x_body(float(call.row)))


async def assert_recorded(node: Node, model: str, candidate: int) -> None:
    """History and explain show the rollback and its reason."""
    history = (await node.operations("GET", "/history", model=model))["entries"]
    moves = [one for one in history if (one["what"], one["alias"]) == ("activate", ALIAS)]
    back = moves[0]
    assert (back["previous"], back["version"], back["asked_by"]) == (candidate, 1, "gateway"), (
        history
    )
    assert f"version {candidate} did worse on live traffic" in back["reason"]
    assert "requests failed" in back["reason"]
    explained = await node.operations("GET", "/explain", model=model, selector=f"@{ALIAS}")
    (shown,) = explained["selectors"]
    assert (shown["version"], shown["aspired"], shown["why"]) == (1, candidate, "held"), shown
    assert "did worse on live traffic" in shown["reason"]


async def test_it_is_rolled_back_with_or_without_a_control_plane(
    running_node: Node, registry: Registry
) -> None:
    node, model = running_node, registry.name("candidate")
    registry.publish(model, ScriptedModel(scale=SCALES[1]))
    registry.point(model, ALIAS, 1)
    registry.publish(model, ScriptedModel(scale=SCALES[2], raise_on=float(BAD_ROW)))
    async with client(CANDIDATE_CALLERS) as http, client(2) as watching:

        async def assert_it_stays_back(candidate: int) -> None:
            await node.passes(watching, CANDIDATE_PASSES)
            answer = await ask(http, node.url, Call(model, 1, f"@{ALIAS}"), x_body(1.0))
            assert (answer.ok, answer.version) == (True, 1), answer
            await assert_recorded(node, model, candidate)

        # The control plane lives.
        await node.active(watching, model, ALIAS, 1)
        async with traffic_to(http, node, model) as traffic:
            await eventually_true(lambda: len(traffic.answers) >= COMPARED_OF, "calls")
            registry.point(model, ALIAS, 2)
            await eventually_true(lambda: traffic.count(lambda a: a.version == 2), "it serves")
            await node.active(watching, model, ALIAS, 1)
        assert_it_served(traffic.answers, 2)
        await assert_it_stays_back(2)
        why = alias_of(await node.model(watching, model), ALIAS)["why"]
        assert "automatic rollback to version 1" in why
        assert await node.metric(watching, "gateway_rollbacks_total", model=model, alias=ALIAS) == 1
        answer = await ask(http, node.url, Call(model, 1, "2"), x_body(1.0))
        assert answer.predictions == [SCALES[2]], "callers by number still get it"

        # It is dead when it matters. The same bytes under a new number: somebody insists.
        assert await asyncio.to_thread(registry.publish_again, model, 2) == 3
        registry.point(model, ALIAS, 3)
        await node.active(watching, model, ALIAS, 3)
        assert node.control is not None
        node.control.kill()
        async with traffic_to(http, node, model) as traffic:
            await node.active(watching, model, ALIAS, 1)
        assert not node.control.running
        assert_it_served(traffic.answers, 3)
        node.start_control()
        await assert_it_stays_back(3)
