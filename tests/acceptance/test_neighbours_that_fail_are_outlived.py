"""Registry or storage gone, broken or lying, under traffic: callers notice nothing, people do."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.lying_registry import LyingRegistry, Mode
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.relay import Relay
from tests.acceptance.scale import OUTAGE_S
from tests.acceptance.traffic import Answer, Traffic, asks, client, describe
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel
from tests.servers import Seaweed

ALIAS = "champion"
FAULTS: list[Mode] = ["gone", "error", "empty", "slow"]


@pytest.fixture
def lying(registry: Registry) -> Iterator[LyingRegistry]:
    door = LyingRegistry(registry.url)
    yield door
    door.close()


async def _registry(node: Node, http: httpx.AsyncClient) -> dict[str, object]:
    said: dict[str, object] = (await http.get(f"{node.url}/models")).json()["registry"]
    return said


def _assert_right(answers: list[Answer]) -> None:
    failed = [answer for answer in answers if not answer.ok]
    assert not failed, describe(failed)
    right = {1: row_answers(1.0), 2: row_answers(2.0)}
    for answer in answers:
        assert answer.version is not None
        assert answer.predictions == [right[answer.version][answer.call.row]], answer
        assert answer.call.selector != "1" or answer.version == 1, answer


async def test_a_registry_that_fails_or_lies_takes_nothing_away_and_is_followed_again(
    make_node: NodeMaker, registry: Registry, lying: LyingRegistry
) -> None:
    model = registry.name("outlived")
    for slope in (1.0, 2.0):
        await asyncio.to_thread(registry.publish, model, LinearModel(slope))
    registry.point(model, ALIAS, 1)
    settings = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    node = make_node(registry_url=lying.url, control=settings).start()
    async with client(4) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        callers = [asks(model, selector) for selector in (f"@{ALIAS}", "1", None)]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            target = 1
            for fault in FAULTS:
                since, before = time.monotonic(), await _registry(node, watching)
                lying.mode = fault
                # The registry itself is well, and an alias moves in it.
                present, target = target, 3 - target
                await asyncio.to_thread(registry.point, model, ALIAS, target)

                async def shown() -> bool:
                    return bool((await _registry(node, watching))["error"])

                await eventually(shown, f"that the registry is {fault} is shown")
                await asyncio.sleep(max(0.0, OUTAGE_S - (time.monotonic() - since)))
                document = await node.model(watching, model)
                assert document is not None
                assert document["aliases"][ALIAS]["active"] == present, (fault, document)
                said = await _registry(node, watching)
                if fault != "empty":  # an empty list is an answer, and heard as one
                    assert said["listed_at"] == before["listed_at"] or said["error"], said
                lying.mode = "honest"
                await node.active(watching, model, ALIAS, target)

                async def well() -> bool:
                    return not (await _registry(node, watching))["error"]

                await eventually(well, f"all is well after the registry was {fault}")
    _assert_right(traffic.answers)


async def test_a_storage_that_is_gone_takes_nothing_away_and_is_fetched_from_again(
    make_node: NodeMaker,
    registry: Registry,
    s3_server: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key, value in s3_server.environ.items():
        monkeypatch.setenv(key, value)  # the publisher's own access
    names = [registry.name(word) for word in ("storage", "kept")]
    for name in names:
        registry.forget_name(name)
    bucket = s3_server.make_bucket(names[0])
    registry.client.create_experiment(names[1], artifact_location=f"s3://{bucket}/runs")
    model = registry.name("stored")
    for slope in (1.0, 2.0):
        await asyncio.to_thread(registry.publish, model, LinearModel(slope), names[1])
    registry.point(model, ALIAS, 1)
    relay = Relay.to(s3_server.url)
    access = s3_server.environ | {"MLFLOW_S3_ENDPOINT_URL": relay.url}
    node = make_node(control=access | {"REGISTRY_SYNC_SETTLE_S": "0"}).start()
    try:
        async with client(4) as http, client(2) as watching:
            await node.active(watching, model, ALIAS, 1)
            callers = [asks(model, selector) for selector in (f"@{ALIAS}", "1", None)]
            async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
                since = time.monotonic()
                await asyncio.to_thread(relay.cut)
                await asyncio.to_thread(registry.point, model, ALIAS, 2)

                async def told() -> bool:
                    document = await node.model(watching, model)
                    assert document is not None
                    alias = document["aliases"][ALIAS]
                    assert alias["active"] == 1, document
                    return alias["aspired"] == 2 and bool(alias["why"])

                await eventually(told, "why version 2 is not active yet is shown")
                await asyncio.sleep(max(0.0, OUTAGE_S - (time.monotonic() - since)))
                assert await told()
                await asyncio.to_thread(relay.join)
                await node.active(watching, model, ALIAS, 2)
    finally:
        await asyncio.to_thread(relay.close)
    _assert_right(traffic.answers)
