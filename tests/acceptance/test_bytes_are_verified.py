"""Only the bytes that were published are served: stamps, by command and by whoever publishes."""

import asyncio
from pathlib import Path

import httpx

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.surface import Document, alias_of
from tests.acceptance.traffic import Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

ALIAS = "champion"
ENOUGH_ANSWERS = 20


def _tamper(file: Path) -> None:
    """Change one byte and no size."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


async def _quarantined(node: Node, http: httpx.AsyncClient, model: str, version: int) -> Document:
    async def look() -> Document | None:
        document = await node.version(http, model, version)
        return document if document.get("state") == "quarantined" else None

    return await eventually(look, f"{model}/{version} is quarantined")


async def test_bytes_that_were_altered_after_the_stamp_are_refused_and_the_old_go_on(
    running_node: Node, registry: Registry, mlflow_root: Path
) -> None:
    node, model = running_node, registry.name("stamped")
    registry.publish(model, LinearModel(1.0))
    registry.point(model, ALIAS, 1)
    async with client(2) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        callers = [asks(model, f"@{ALIAS}")] * 2
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            with node.control_paused():  # so that the publisher is done before the plane looks
                await asyncio.to_thread(registry.publish, model, LinearModel(2.0))
                registry.stamp(model, 2, mlflow_root)
                tags = registry.client.get_model_version(model, "2").tags
                assert tags["gateway.digest"].startswith("sha256:")
                folder = registry.proxied_files(model, 2, mlflow_root)
                _tamper(max(folder.glob("model.*"), key=lambda file: file.stat().st_size))
                registry.point(model, ALIAS, 2)
            refused = await _quarantined(node, watching, model, 2)
            count = len(traffic.answers) + ENOUGH_ANSWERS
            await eventually_true(lambda: len(traffic.answers) > count, "callers go on")
        document = await node.model(watching, model)
        numbered = await ask(watching, node.url, Call(model, 0, "2"), row_body(0))

    wrong = [answer for answer in traffic.answers if not answer.ok or answer.version != 1]
    assert not wrong, describe(wrong)
    right = row_answers(1.0)
    assert all(answer.predictions == [right[answer.call.row]] for answer in traffic.answers)
    assert refused["expected_digest"] == tags["gateway.digest"]
    assert "digest" in refused["reason"], refused
    shown = alias_of(document, ALIAS)
    assert (shown["active"], shown["aspired"]) == (1, 2), shown
    assert shown["why"] == refused["reason"], shown
    assert (numbered.status, numbered.code) == (503, "version_quarantined"), numbered


async def test_a_stamped_version_whose_bytes_are_right_is_served(
    running_node: Node, registry: Registry
) -> None:
    node, model = running_node, registry.name("sound")
    registry.publish(model, LinearModel(1.0))
    stamp = await asyncio.to_thread(node.command, "stamp", f"models:/{model}/1")
    assert stamp.returncode == 0, stamp.stderr
    registry.point(model, ALIAS, 1)
    expected = registry.client.get_model_version(model, "1").tags["gateway.digest"]
    async with client(2) as http:
        await node.active(http, model, ALIAS, 1)

        async def stamped() -> bool:
            return (await node.version(http, model, 1)).get("unstamped") is False

        await eventually(stamped, "the version is shown as stamped")
        answer = await ask(http, node.url, Call(model, 3), row_body(3))
    assert answer.ok, answer
    assert answer.digest == expected
