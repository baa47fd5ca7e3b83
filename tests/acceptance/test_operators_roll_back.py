"""Rollback by one command, and a version deleted in the registry."""

import asyncio

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.surface import active_version, alias_of
from tests.acceptance.traffic import Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

ALIAS = "champion"
PASSES = 4


async def test_one_command_rolls_back_until_the_registry_moves_on(
    running_node: Node, registry: Registry
) -> None:
    node, model = running_node, registry.name("regretted")
    expected = {}
    for slope in (1.0, 2.0):
        expected[registry.publish(model, LinearModel(slope))] = row_answers(slope)
    registry.point(model, ALIAS, 1)
    async with client(2) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        registry.point(model, ALIAS, 2)
        await node.active(watching, model, ALIAS, 2)
        callers = [asks(model, f"@{ALIAS}")] * 2
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            await eventually_true(lambda: traffic.count(lambda a: a.version == 2) > 10, "calls")
            done = await asyncio.to_thread(node.command, "rollback", f"{model}@{ALIAS}")
            assert done.returncode == 0, done.stdout + done.stderr
            await node.active(watching, model, ALIAS, 1)
            # The registry still says 2: the rollback holds, pass after pass.
            await node.passes(watching, PASSES)
            shown = alias_of(await node.model(watching, model), ALIAS)
            assert (shown["active"], shown["aspired"]) == (1, 2), shown
            # The engineer moves the alias on: the hold is over.
            expected[registry.publish(model, LinearModel(3.0))] = row_answers(3.0)
            registry.point(model, ALIAS, 3)
            await node.active(watching, model, ALIAS, 3)
            await eventually_true(lambda: traffic.count(lambda a: a.version == 3) > 10, "calls")
    wrong = [answer for answer in traffic.answers if not answer.ok]
    assert not wrong, describe(wrong)
    for answer in traffic.answers:
        assert answer.predictions == [expected[answer.version or 0][answer.call.row]], answer


async def test_a_version_deleted_in_the_registry_answers_while_it_is_kept(
    running_node: Node, registry: Registry
) -> None:
    node, model = running_node, registry.name("deleted")
    for slope in (1.0, 2.0):
        registry.publish(model, LinearModel(slope))
    registry.point(model, ALIAS, 1)
    async with client(2) as http:
        await node.active(http, model, ALIAS, 1)
        await node.catalogue_shows(http, model, 2)
        answer = await ask(http, node.url, Call(model, 1, "1"), row_body(1))
        assert answer.ok, answer
        registry.point(model, ALIAS, 2)
        await node.active(http, model, ALIAS, 2)
        registry.client.delete_model_version(model, "1")

        async def deleted() -> bool:
            return (await node.version(http, model, 1)).get("state") == "deleted"

        await eventually(deleted, "the version is shown as deleted")
        answer = await ask(http, node.url, Call(model, 1, "1"), row_body(1))
        assert answer.ok, answer
        assert answer.predictions == [row_answers(1.0)[1]]
        assert active_version(await node.model(http, model), ALIAS) == 2
