"""A pipeline on a pandas signature, a torch module, Python models that bring code of their own."""

import asyncio
from pathlib import Path

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
    ScriptedModel,
    TorchModel,
)

REQUESTS = 48


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


async def test_rows_that_influence_each_other_are_answered_each_request_as_if_alone(
    running_node: Node, registry: Registry, tmp_path: Path
) -> None:
    """Beside it the same model without the influence, whose requests are joined."""
    models = {
        batching: ScriptedModel(
            scale=2.0,
            subtract_batch_mean=batching == "alone",
            predict_sleep_s=0.1,
            calls_file=str(tmp_path / batching),
        )
        for batching in ("alone", "joined")
    }
    calls = {}
    async with client(REQUESTS) as http:
        for batching, model in models.items():
            name = await _published(running_node, registry, http, batching, model)
            bodies = [
                model.payload_of(*(10.0 * n + k * k for k in range(n % 3 + 1)))
                for n in range(REQUESTS)
            ]
            await ask(http, running_node.url, Call(name, 0), bodies[0])
            before = len(model.calls())
            answers = await asyncio.gather(
                *(ask(http, running_node.url, Call(name, 0), body) for body in bodies)
            )
            calls[batching] = len(model.calls()) - before
            assert [one.predictions for one in answers] == [model.expected(one) for one in bodies]
            url = f"{running_node.url}/models/{name}/versions/@champion"
            shown = (await http.get(url)).json()["replicas"]
            assert [one["batching"] for one in shown] == [batching]
    assert calls["alone"] >= REQUESTS > calls["joined"], calls


async def test_a_number_that_is_not_finite_is_null(running_node: Node, registry: Registry) -> None:
    model = ScriptedModel(nan_on=14.0)
    async with client() as http:
        name = await _published(running_node, registry, http, "gappy", model)
        answer = await ask(http, running_node.url, Call(name, 0), model.payload_of(1.0, 14.0))
        assert (answer.ok, answer.predictions) == (True, [None, None])


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
        await running_node.active(http, name, "latest", 1)
        version = (await http.get(f"{running_node.url}/models/{name}/versions/1")).json()
        answer = await ask(http, running_node.url, Call(name, 0), model.payload())
        listed = (await http.get(f"{running_node.url}/models")).json()

        async def resident() -> bool:
            url = f"{running_node.url}/models/{name}/versions/@champion"
            return bool((await http.get(url)).json()["state"] == "resident")

        await eventually(resident, "the version that answered is shown as resident")
    assert version["aliases"] == ["champion", "latest"]
    assert version["digest"] == answer.digest
    assert version["unstamped"] is True
    assert [column["name"] for column in version["signature"]["inputs"]] == [
        "sepal_length", "sepal_width", "petal_length", "petal_width",
    ]  # fmt: skip
    assert version["frameworks"]["scikit-learn"]
    assert version["input_example"]["dataframe_split"]["data"]
    assert name in [one["name"] for one in listed["models"]]
