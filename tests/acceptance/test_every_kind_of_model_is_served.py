"""A pipeline on a pandas signature, a torch module, Python models that bring code of their own."""

import asyncio

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import (
    BuildableModel,
    HelperModel,
    ImputingModel,
    IrisPipeline,
    TorchModel,
)


async def _published(
    node: Node, registry: Registry, http: httpx.AsyncClient, word: str, model: BuildableModel
) -> str:
    name = registry.name(word)
    version = await asyncio.to_thread(registry.publish, name, model)
    registry.point(name, "champion", version)
    await node.active(http, name, "champion", version)
    return name


@pytest.mark.parametrize(
    ("word", "model"),
    [("iris", IrisPipeline(seed=3)), ("net", TorchModel(seed=4)), ("gaps", ImputingModel(2.0))],
    ids=["sklearn pipeline on a pandas signature", "torch module", "pipeline that fills gaps"],
)
async def test_it_answers_what_the_model_answers_here(
    running_node: Node, registry: Registry, word: str, model: BuildableModel
) -> None:
    async with client() as http:
        name = await _published(running_node, registry, http, word, model)
        for rows in (1, 2, 7):
            body = model.payload(rows)
            answer = await ask(http, running_node.url, Call(name, 0), body)
            assert answer.ok, answer
            assert answer.predictions == model.expected(body)
    assert running_node.gateway is not None
    # Estimators that know the columns' names are called on arrays, and do not miss them.
    assert "valid feature names" not in running_node.gateway.log.read_text()


async def test_two_models_with_a_module_of_the_same_name_answer_each_with_its_own(
    running_node: Node, registry: Registry
) -> None:
    models = [HelperModel("doubling"), HelperModel("tripling")]
    async with client() as http:
        names = [
            await _published(running_node, registry, http, model.rule, model) for model in models
        ]
        for _ in range(3):
            for name, model in zip(names, models, strict=True):
                body = model.payload(3)
                answer = await ask(http, running_node.url, Call(name, 0), body)
                assert answer.ok, answer
                assert answer.predictions == model.expected(body)


async def test_two_versions_with_a_module_of_the_same_name_answer_each_with_its_own(
    running_node: Node, registry: Registry
) -> None:
    models = [HelperModel("doubling"), HelperModel("tripling")]
    name = registry.name("both")
    async with client() as http:
        for model in models:
            version = await asyncio.to_thread(registry.publish, name, model)
            await running_node.catalogue_shows(http, name, version)
        for _ in range(3):
            for version, model in enumerate(models, start=1):
                body = model.payload(2)
                call = Call(name, 0, selector=str(version))
                answer = await ask(http, running_node.url, call, body)
                assert answer.ok, answer
                assert answer.predictions == model.expected(body)


async def test_the_catalogue_tells_what_a_version_is(
    running_node: Node, registry: Registry
) -> None:
    model = IrisPipeline(seed=5)
    async with client() as http:
        name = await _published(running_node, registry, http, "described", model)
        version = (await http.get(f"{running_node.url}/models/{name}/versions/1")).json()
        answer = await ask(http, running_node.url, Call(name, 0), model.payload())
        listed = (await http.get(f"{running_node.url}/models")).json()

        async def resident() -> bool:
            url = f"{running_node.url}/models/{name}/versions/@champion"
            return bool((await http.get(url)).json()["state"] == "resident")

        await eventually(resident, "the version that answered is shown as resident")
    assert version["aliases"] == ["champion"]
    assert version["digest"] == answer.digest
    assert version["unstamped"] is True
    assert [column["name"] for column in version["signature"]["inputs"]] == [
        "sepal_length", "sepal_width", "petal_length", "petal_width",
    ]  # fmt: skip
    assert version["frameworks"]["scikit-learn"]
    assert version["input_example"]["dataframe_split"]["data"]
    assert name in [one["name"] for one in listed["models"]]
