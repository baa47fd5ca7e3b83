"""What users ask for by tags, a header and a setting, on one node: each does what it says."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.processes import alive
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.surface import alias_of
from tests.acceptance.traffic import Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel, ScriptedModel
from tests.servers import MlflowServer

pytestmark = pytest.mark.soak(
    "unit/gateway/serving/test_supervision.py",
    "unit/gateway/serving/residency/test_resident_set.py",
)
GATEWAY = {"GATEWAY_MAX_RESIDENT": "3"}
CONTROL = {"REGISTRY_SYNC_SIGNATURE_CHANGE": "refuse"}
CALLERS = 6
ANSWERS = 30
SLOW = -1.0
SLOW_S = 1.0
"""How long the model takes for ``SLOW``."""
PATIENCE_S = 0.2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScriptedModel:
    """What is served; no worker comes up while its gate is not there."""
    gate = tmp_path_factory.mktemp("tags") / "gate"
    gate.touch()
    return ScriptedModel(scale=3.0, predict_sleep_s=0.02, slow_on=SLOW, load_gate=str(gate))


@pytest.fixture(scope="module")
def corner(mlflow_registry: MlflowServer, model: ScriptedModel) -> Iterator[Registry]:
    """With a model ``twins`` that asks for two workers; others are published from it."""
    registry = Registry(mlflow_registry.url)
    twins = registry.name("twins")
    registry.client.create_registered_model(twins, tags={"gateway.replicas": "2"})
    registry.publish(twins, model)
    yield registry
    registry.forget()


def publish(corner: Registry, word: str, versions: int, **tags: str) -> str:
    """Register so many versions of a new model; its name."""
    name = corner.name(word)
    tagged = {f"gateway.{tag}": text for tag, text in tags.items()}
    corner.client.create_registered_model(name, tags=tagged)
    for _ in range(versions):
        corner.publish_as(name, corner.name("twins"), 1)
    return name


async def workers(node: Node, http: httpx.AsyncClient, name: str, version: int = 1) -> list[int]:
    """The pids of the workers of a version that are ready."""
    document = await node.version(http, name, version)
    return [one["pid"] for one in document["replicas"] if one["state"] == "ready"]


async def asked(
    http: httpx.AsyncClient, node: Node, name: str, version: int, x: float = 1.0
) -> list[float] | None:
    call = Call(name, 0, selector=str(version))
    predictions: list[float] | None = (await ask(http, node.url, call, x_body(x))).predictions
    return predictions


def _gone(pid: int) -> bool:
    return not alive(pid)


async def test_two_replicas_share_the_load_and_one_serves_while_the_other_is_replaced(
    module_node: Node, corner: Registry, model: ScriptedModel
) -> None:
    node, name = module_node.start(), corner.name("twins")
    async with client(CALLERS) as http, client(2) as watching:
        await node.active(watching, name, "latest", 1)
        assert await asked(watching, node, name, 1) == model.expected(x_body(1.0))
        before = await _are_ready(node, watching, name, 2)
        callers = [asks(name, "1")] * CALLERS
        async with Traffic(
            http, node.url, callers, lambda call: x_body(float(call.row))
        ) as traffic:
            await eventually(partial(_all_busy, node, watching, name), "both answer at a time")
            _let_workers_come_up(model, may=False)
            killed, left = before
            os.kill(killed, signal.SIGKILL)
            await eventually_true(partial(_gone, killed), "one is dead")
            # Until the gateway has read the end of the worker's socket, it may send to it.
            assert await _are_ready(node, watching, name, 1) == [left]
            dead_at = asyncio.get_running_loop().time()  # the clock of the answers
            await eventually_true(
                lambda: sum(one.sent_at > dead_at for one in traffic.answers) >= ANSWERS,
                "its sibling serves",
            )
            assert await workers(node, watching, name) == [left]
            _let_workers_come_up(model, may=True)
            after = await _are_ready(node, watching, name, 2)
            assert left in after
    lost = [one for one in traffic.answers if not one.ok]
    assert {one.code for one in lost} <= {"worker_died"}, describe(lost)
    assert len(lost) <= CALLERS, describe(lost)
    assert not [one for one in lost if one.sent_at > dead_at], describe(lost)
    for one in traffic.answers:
        if one.ok:
            assert one.predictions == model.expected(x_body(float(one.call.row)))


def _let_workers_come_up(model: ScriptedModel, *, may: bool) -> None:
    gate = Path(model.load_gate)
    gate.touch() if may else gate.unlink()


async def _are_ready(node: Node, http: httpx.AsyncClient, name: str, count: int) -> list[int]:
    async def look() -> list[int] | None:
        found = await workers(node, http, name)
        return found if len(found) == count else None

    return await eventually(look, f"{count} workers are ready")


async def _all_busy(node: Node, http: httpx.AsyncClient, name: str) -> bool:
    document = await node.version(http, name, 1)
    busy = [one for one in document["replicas"] if one["in_flight"]]
    return len(busy) == 2


async def test_a_pinned_version_outlives_evictions_that_would_have_taken_it(
    module_node: Node, corner: Registry, model: ScriptedModel
) -> None:
    """The last version is what the alias means: of the others only the pin makes one go last."""
    node = module_node.start()
    pinned = publish(corner, "pinned", 2, keep_resident="true")
    others = publish(corner, "others", 5)
    async with client(2) as http:
        await node.active(http, pinned, "latest", 2)
        await node.active(http, others, "latest", 5)
        assert (await node.version(http, pinned, 1))["policy"] == {"keep_resident": True}
        pids: dict[str, Sequence[int]] = {}
        for name, version in ((pinned, 1), (others, 1)):
            assert await asked(http, node, name, version) == model.expected(x_body(1.0))
            pids[name] = await workers(node, http, name)
        for version in (2, 3, 4):
            assert await asked(http, node, others, version) == model.expected(x_body(1.0))
        (unpinned,) = pids[others]
        await eventually_true(partial(_gone, unpinned), "what was not pinned has made room")
        assert await workers(node, http, others, 4)
        assert await workers(node, http, pinned) == pids[pinned]


async def test_who_has_no_patience_is_answered_504_and_who_has_is_answered(
    module_node: Node, corner: Registry, model: ScriptedModel
) -> None:
    node, name = module_node.start(), publish(corner, "slow", 1)
    async with client(2) as http:
        await node.active(http, name, "latest", 1)
        assert await asked(http, node, name, 1) == model.expected(x_body(1.0))
        now = asyncio.get_running_loop().time

        async def impatient() -> tuple[httpx.Response, float, float]:
            began, headers = now(), {"X-Request-Timeout": str(PATIENCE_S)}
            url = node.url + Call(name, 0, selector="1").path
            answer = await http.post(url, json=x_body(SLOW), headers=headers)
            return answer, now() - began, now()

        async def patient() -> tuple[list[float] | None, float, float]:
            began = now()
            predictions = await asked(http, node, name, 1, SLOW)
            return predictions, now() - began, now()

        (refused, waited_s, at), (answered, took_s, done_at) = await asyncio.gather(
            impatient(), patient()
        )
        assert (refused.status_code, refused.json()["code"]) == (504, "deadline_exceeded")
        assert waited_s >= PATIENCE_S
        assert answered == model.expected(x_body(SLOW))
        assert took_s >= SLOW_S
        assert at < done_at


async def test_an_alias_does_not_follow_to_a_signature_that_breaks_its_callers(
    module_node: Node, corner: Registry, model: ScriptedModel
) -> None:
    node, name = module_node.start(), publish(corner, "keeps", 1)
    corner.point(name, "champion", 1)
    async with client(2) as http:
        await node.active(http, name, "champion", 1)
        await asyncio.to_thread(corner.publish, name, LinearModel())
        corner.point(name, "champion", 2)

        async def refused() -> bool:
            shown = alias_of(await node.model(http, name), "champion")
            return "input x is gone" in (shown["why"] or "")

        await eventually(refused, "it says why the alias stays")
        await node.passes(http)
        shown = alias_of(await node.model(http, name), "champion")
        assert (shown["active"], shown["aspired"]) == (1, 2)
        call = Call(name, 0, selector="@champion")
        stays = await ask(http, node.url, call, x_body(1.0))
        assert (stays.version, stays.predictions) == (1, model.expected(x_body(1.0)))
        corner.publish_again(name, 1)
        corner.point(name, "champion", 3)
        await node.active(http, name, "champion", 3)
