"""Registry or storage gone, broken or lying, under traffic: callers notice nothing, people do.

The tests share one node, which reaches both through a door of its own: each leaves both well.
"""

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
from tests.servers import MlflowServer, Seaweed

ALIAS = "champion"
FAULTS: list[Mode] = ["gone", "error", "empty", "slow"]


@pytest.fixture(scope="module")
def lying(mlflow_registry: MlflowServer) -> Iterator[LyingRegistry]:
    """The node's door to the registry."""
    door = LyingRegistry(mlflow_registry.url)
    yield door
    door.close()


@pytest.fixture(scope="module")
def wire(s3_server: Seaweed) -> Iterator[Relay]:
    """The node's door to the storage."""
    relay = Relay.to(s3_server.url)
    yield relay
    relay.close()


@pytest.fixture(scope="module")
def node(
    lying: LyingRegistry, wire: Relay, s3_server: Seaweed, make_module_node: NodeMaker
) -> Node:
    """The module's node, which ends before its doors do."""
    access = s3_server.environ | {"MLFLOW_S3_ENDPOINT_URL": wire.url}
    settings = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "REGISTRY_SYNC_UPLOAD_STABLE_S": "0"}
    return make_module_node(registry_url=lying.url, control=access | settings).start()


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
    node: Node, registry: Registry, lying: LyingRegistry
) -> None:
    model = registry.name("outlived")
    for slope in (1.0, 2.0):
        await asyncio.to_thread(registry.publish, model, LinearModel(slope))
    registry.point(model, ALIAS, 1)
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
    node: Node,
    registry: Registry,
    wire: Relay,
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
    async with client(4) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        callers = [asks(model, selector) for selector in (f"@{ALIAS}", "1", None)]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            since = time.monotonic()
            await asyncio.to_thread(wire.cut)
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
            await asyncio.to_thread(wire.join)
            await node.active(watching, model, ALIAS, 2)
    _assert_right(traffic.answers)
