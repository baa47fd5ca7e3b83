"""However many callers want a version that is not resident, and whoever leaves: one load."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import COLD_CALLERS, COLD_ROUNDS
from tests.acceptance.traffic import Call, ask, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import ScriptedModel
from tests.servers import MlflowServer

LOAD_S = 1.5
"""How long the model takes to load: all callers come while it does."""


@dataclass(frozen=True)
class Cold:
    """A node, and models of one version each, fetched and loaded for callers only."""

    node: Node
    models: dict[str, ScriptedModel]

    def call(self, name: str) -> Call:
        return Call(name, 0, selector="1")


@pytest.fixture(scope="module")
def cold(
    mlflow_registry: MlflowServer, shared_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cold]:
    registry = Registry(mlflow_registry.url)
    folder = tmp_path_factory.mktemp("loads")
    words = [*(f"crowd{turn}" for turn in range(COLD_ROUNDS)), "impatient", "abandoned"]
    models = {}
    for scale, word in enumerate(words, start=2):
        slow = ScriptedModel(float(scale), loads_file=str(folder / word), load_sleep_s=LOAD_S)
        name = registry.name(word)
        registry.client.create_registered_model(name, tags={"gateway.load": "on_demand"})
        registry.publish(name, slow)
        models[name] = slow
    yield Cold(shared_node.start(), models)
    registry.forget()


def _named(cold: Cold, word: str) -> list[str]:
    return [name for name in cold.models if name.startswith(word)]


async def _known(cold: Cold, http: httpx.AsyncClient, name: str) -> Call:
    """Wait until the version can be asked for; nothing has loaded it by then."""
    await cold.node.catalogue_shows(http, name, 1)
    assert cold.models[name].loads() == []
    return cold.call(name)


async def test_a_hundred_first_callers_share_one_load(cold: Cold) -> None:
    for name in _named(cold, "crowd"):
        model = cold.models[name]
        async with client(COLD_CALLERS) as http:
            call = await _known(cold, http, name)
            answers = await asyncio.gather(
                *(ask(http, cold.node.url, call, x_body(i)) for i in range(COLD_CALLERS))
            )
        wrong = [answer for answer in answers if not answer.ok]
        assert not wrong, describe(wrong)
        for number, answer in enumerate(answers):
            assert answer.predictions == model.expected(x_body(number)), answer
        assert len(model.loads()) == 1, model.loads()


async def test_half_of_the_callers_hang_up_and_the_one_load_completes(cold: Cold) -> None:
    name = _named(cold, "impatient")[0]
    model = cold.models[name]
    async with client(COLD_CALLERS) as http:
        call = await _known(cold, http, name)
        tasks = [
            asyncio.create_task(ask(http, cold.node.url, call, x_body(i)))
            for i in range(COLD_CALLERS)
        ]
        await eventually_true(model.loads, "the load has begun")
        leaving, staying = tasks[::2], tasks[1::2]
        assert not any(task.done() for task in tasks), "the load was over before anybody left"
        for task in leaving:
            task.cancel()
        answers = await asyncio.gather(*staying)
        left = await asyncio.gather(*leaving, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in left)
    for answer, number in zip(answers, range(1, COLD_CALLERS, 2), strict=True):
        assert answer.ok, answer
        assert answer.predictions == model.expected(x_body(number))
    assert len(model.loads()) == 1, model.loads()


async def test_the_load_completes_when_every_caller_has_left(cold: Cold) -> None:
    name = _named(cold, "abandoned")[0]
    model = cold.models[name]
    async with client(4) as http, client(1) as watching:
        call = await _known(cold, watching, name)
        tasks = [asyncio.create_task(ask(http, cold.node.url, call, x_body(1.0))) for _ in range(4)]
        await eventually_true(model.loads, "the load has begun")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        async def resident() -> bool:
            document = await cold.node.version(watching, name, 1)
            return bool(document["state"] == "resident")

        await eventually(resident, "the version is resident although nobody waits")
        answer = await ask(watching, cold.node.url, call, x_body(2.0))
    assert answer.ok, answer
    assert len(model.loads()) == 1, model.loads()
