"""How a version is named, and what is answered when there is none."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import IrisPipeline, LinearModel
from tests.servers import MlflowServer


@dataclass(frozen=True)
class Served:
    """``linear`` has versions 1 (champion), 2 (challenger) and 3; ``bare`` has no alias.

    ``later`` is tagged to come on demand. ``challenged`` has versions 1 (challenger) and 2.
    """

    node: Node
    linear: str
    bare: str
    later: str
    challenged: str


@pytest.fixture(scope="module")
def served(mlflow_registry: MlflowServer, shared_node: Node) -> Iterator[Served]:
    registry = Registry(mlflow_registry.url)
    linear, bare = registry.name("linear"), registry.name("bare and ünusual?")
    for slope in (1.0, 2.0, 3.0):
        registry.publish(linear, LinearModel(slope))
    registry.point(linear, "champion", 1)
    registry.point(linear, "challenger", 2)
    registry.publish(bare, LinearModel(4.0))
    later = registry.name("later")
    registry.client.create_registered_model(later, tags={"gateway.load": "on_demand"})
    registry.publish(later, LinearModel(5.0))
    registry.client.set_model_version_tag(later, "1", "gateway.timeout_s", "20")
    challenged = registry.name("challenged")
    registry.publish(challenged, LinearModel(6.0))
    registry.point(challenged, "challenger", 1)
    asyncio.run(_ready(shared_node.start(), linear, bare, challenged))
    registry.publish(challenged, LinearModel(7.0))
    yield Served(shared_node, linear, bare, later, challenged)
    registry.forget()


async def _ready(node: Node, linear: str, bare: str, challenged: str) -> None:
    async with client(2) as http:
        for alias, version in (("champion", 1), ("challenger", 2)):
            await node.active(http, linear, alias, version)
        await node.active(http, challenged, "challenger", 1)

        async def is_settled() -> bool:
            aliases = [await node.model(http, name) or {} for name in (linear, challenged)]
            return not any("latest" in one["aliases"] for one in aliases)

        # They were listed without an alias once, if the poll came before it.
        await eventually(is_settled, "models with an alias have no `latest`")
        await node.active(http, bare, "latest", 1)


@pytest.mark.parametrize(
    ("path", "header", "version"),
    [
        (None, None, 1),
        (None, "champion", 1),
        (None, "@champion", 1),
        (None, "challenger", 2),
        (None, "2", 2),
        ("1", None, 1),
        ("3", None, 3),
        ("@champion", None, 1),
        ("@challenger", None, 2),
        ("1", "champion", 1),
        ("@challenger", "2", 2),
    ],
)
async def test_a_selector_names_a_version(
    served: Served, path: str | None, header: str | None, version: int
) -> None:
    async with client(1) as http:
        answer = await ask(http, served.node.url, Call(served.linear, 5, path, header), row_body(5))
    assert answer.ok, answer
    assert answer.version == version
    assert answer.digest is not None
    assert answer.digest.startswith("sha256:")
    assert answer.predictions == [row_answers(float(version))[5]]
    assert answer.body["model_name"] == served.linear
    assert answer.body["model_version"] == version
    assert answer.body["prediction_id"]
    assert answer.body["timestamp"]
    assert answer.body["inference_time_ms"] >= 0


async def test_without_any_alias_latest_answers_and_any_name_works(served: Served) -> None:
    async with client(1) as http:
        answer = await ask(http, served.node.url, Call(served.bare, 2), row_body(2))
    assert answer.ok, answer
    assert answer.predictions == [row_answers(4.0)[2]]


async def test_without_the_default_alias_no_other_version_stands_in_and_nothing_is_fetched(
    served: Served,
) -> None:
    async with client(1) as http:
        answer = await ask(http, served.node.url, Call(served.challenged, 2), row_body(2))
        assert (answer.status, answer.code) == (404, "no_default_version"), answer
        assert "name one of its aliases (@challenger)" in answer.body["detail"]
        latest = Call(served.challenged, 2, None, "latest")
        answer = await ask(http, served.node.url, latest, row_body(2))
        assert (answer.status, answer.code) == (404, "alias_not_found"), answer
        version = await served.node.catalogue_shows(http, served.challenged, 2)
    assert (version["state"], version["digest"]) == ("registered", None)


async def test_what_comes_on_demand_is_fetched_for_the_first_who_calls_its_alias(
    served: Served,
) -> None:
    async with client(1) as http:
        before = await served.node.catalogue_shows(http, served.later, 1)
        assert (before["state"], before["digest"], before["aliases"]) == ("registered", None, [])

        async def policy() -> dict[str, Any] | None:
            shown = await served.node.catalogue_shows(http, served.later, 1)
            return shown["policy"] if "timeout_s" in shown["policy"] else None

        # The version was listed before it had its tag.
        asked = await eventually(policy, "the version's own tag counts")
        assert asked == {"load": "on_demand", "timeout_s": 20.0}
        answer = await ask(http, served.node.url, Call(served.later, 2), row_body(2))
        after = await served.node.version(http, served.later, 1)
    assert answer.ok, answer
    assert answer.predictions == [row_answers(5.0)[2]]
    assert after["aliases"] == ["latest"]


@pytest.mark.parametrize(("path", "header"), [("1", "2"), ("@champion", "challenger"), ("3", "1")])
async def test_a_path_and_a_header_that_disagree_are_refused(
    served: Served, path: str, header: str
) -> None:
    async with client(1) as http:
        answer = await ask(http, served.node.url, Call(served.linear, 0, path, header), row_body(0))
    assert (answer.status, answer.code) == (400, "version_conflict"), answer


@pytest.mark.parametrize(
    ("model", "path", "header", "status", "code"),
    [
        ("nobody", None, None, 404, "model_not_found"),
        ("nobody", "1", None, 404, "model_not_found"),
        (None, "99", None, 404, "version_not_found"),
        (None, "@nobody", None, 404, "alias_not_found"),
        (None, None, "nobody", 404, "alias_not_found"),
        (None, "0", None, 400, "invalid_selector"),
        (None, None, "not an alias!", 400, "invalid_selector"),
    ],
)
async def test_what_is_not_there_is_said(
    served: Served,
    model: str | None,
    path: str | None,
    header: str | None,
    status: int,
    code: str,
) -> None:
    async with client(1) as http:
        call = Call(model or served.linear, 0, path, header)
        answer = await ask(http, served.node.url, call, row_body(0))
    assert (answer.status, answer.code) == (status, code), answer


@pytest.mark.parametrize("path", ["/models/m/predict", "/models/m/versions/1/predict", "/models"])
async def test_another_method_is_refused_and_the_right_one_named(served: Served, path: str) -> None:
    async with client(1) as http:
        answer = await http.request("DELETE", served.node.url + path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == ("POST" if path.endswith("predict") else "GET")


async def test_nobody_answers_on_an_unknown_route(served: Served) -> None:
    async with client(1) as http:
        answer = await http.get(f"{served.node.url}/models/m/predictions/of/what")
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")


async def test_every_form_of_body_is_read(running_node: Node, registry: Registry) -> None:
    name, model = registry.name("forms"), IrisPipeline()
    registry.publish(name, model)
    split = model.payload(1)["dataframe_split"]
    row = split["data"][0]
    record = dict(zip(split["columns"], row, strict=True))
    bodies = {
        "dataframe_split": split,
        "dataframe_records": [record],
        "instances": [record],
        "inputs": {column: [value] for column, value in record.items()},
        "features": row,
    }
    async with client(1) as http:
        await running_node.active(http, name, "latest", 1)
        for selector, content in [*bodies.items(), ("features", record)]:
            answer = await ask(http, running_node.url, Call(name, 0), {selector: content})
            assert answer.ok, (selector, answer)
            assert answer.predictions == model.expected(model.payload(1)), selector
        reply = await http.post(
            f"{running_node.url}/models/{name}/predict?probabilities=true",
            json={"dataframe_split": split},
        )
    assert reply.status_code == 200, reply.text
    assert reply.json()["class_names"] == model.class_names
    expected = model.expected_probabilities(model.payload(1))
    assert reply.json()["probabilities"][0] == pytest.approx(expected[0])
