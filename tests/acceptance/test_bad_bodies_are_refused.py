"""Bodies that no model should see: the documented 4xx, field and row named, nothing restarted."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry
from tests.acceptance.traffic import Call, ask, client
from tests.models.catalogue import IRIS_COLUMNS, IrisPipeline, TorchModel
from tests.servers import MlflowServer

JSON = "application/json"
HUGE_BYTES = 50 * 1024 * 1024
DEPTH = 10_000
COLUMNS = list(IRIS_COLUMNS)
GOOD_ROW: list[Any] = [5.1, 3.5, 1.4, 0.2]


@dataclass(frozen=True)
class Served:
    """A node that serves a pipeline and a torch module, each by one worker."""

    node: Node
    pipeline: str
    module: str

    def path(self, kind: str) -> str:
        name = self.pipeline if kind == "pipeline" else self.module
        return f"{self.node.url}/models/{name}/versions/1/predict"


@pytest.fixture(scope="module")
def served(mlflow_registry: MlflowServer, shared_node: Node) -> Iterator[Served]:
    registry = Registry(mlflow_registry.url)
    pipeline, module = registry.name("pipeline"), registry.name("module")
    for name, model in ((pipeline, IrisPipeline()), (module, TorchModel())):
        # Models that other tests have called often would outlast these two.
        registry.client.create_registered_model(name, tags={"gateway.keep_resident": "true"})
        registry.publish(name, model)
    asyncio.run(_warm(shared_node.start(), pipeline, module))
    yield Served(shared_node, pipeline, module)
    registry.forget()


async def _warm(node: Node, pipeline: str, module: str) -> None:
    async with client(2) as http:
        for name, model in ((pipeline, IrisPipeline()), (module, TorchModel())):
            await node.active(http, name, "latest", 1)
            answer = await ask(http, node.url, Call(name, 0, selector="1"), model.payload())
            assert answer.ok, answer


def _split(*rows: list[Any], columns: list[str] | None = None) -> bytes:
    body = {"dataframe_split": {"columns": columns or COLUMNS, "data": list(rows)}}
    return json.dumps(body).encode()


@dataclass(frozen=True)
class Bad:
    """A body, and what is answered. ``row`` and ``field`` where the answer must name them."""

    body: bytes
    status: int = 422
    code: str = "invalid_input"
    content_type: str = JSON
    model: str = "pipeline"
    row: int | None = None
    field: str | None = None


BAD_BODIES = {
    "not JSON": Bad(b"{not json"),
    "empty": Bad(b""),
    "not UTF-8": Bad(b'{"instances": [["\xff"]]}'),
    "a list, not an object": Bad(b"[1, 2, 3]"),
    "none of the selectors": Bad(b'{"data": [[1, 2, 3, 4]]}'),
    "two of the selectors": Bad(b'{"instances": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]}'),
    "a row too short": Bad(_split(GOOD_ROW, GOOD_ROW[:3]), row=1),
    "a column missing": Bad(_split(GOOD_ROW[:3], columns=COLUMNS[:3]), field=COLUMNS[3]),
    "a column missing in a record": Bad(
        json.dumps(
            {
                "dataframe_records": [
                    dict(zip(COLUMNS, GOOD_ROW, strict=True)),
                    dict(zip(COLUMNS[1:], GOOD_ROW[1:], strict=True)),
                ]
            }
        ).encode(),
        field=COLUMNS[0],
    ),
    "text for a number": Bad(_split(GOOD_ROW, [5.1, "wide", 1.4, 0.2]), row=1, field=COLUMNS[1]),
    "a list for a number": Bad(_split([5.1, [3.5], 1.4, 0.2]), row=0, field=COLUMNS[1]),
    "null for a number": Bad(_split(GOOD_ROW, [5.1, 3.5, None, 0.2]), row=1, field=COLUMNS[2]),
    "NaN": Bad(_split(GOOD_ROW).replace(b"1.4", b"NaN")),
    "Infinity": Bad(_split(GOOD_ROW).replace(b"1.4", b"Infinity")),
    "a number that overflows": Bad(_split(GOOD_ROW).replace(b"1.4", b"1e999")),
    "a tensor of the wrong shape": Bad(b'{"inputs": [[1, 2, 3]]}', model="module"),
    "a ragged tensor": Bad(b'{"inputs": [[1, 2, 3, 4], [1, 2]]}', model="module"),
    "text in a tensor": Bad(b'{"inputs": [[1, 2, "x", 4]]}', model="module"),
    "nested 10,000 deep": Bad(b'{"instances": ' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
    "objects nested 10,000 deep": Bad(b'{"a":' * DEPTH + b"1" + b"}" * DEPTH),
    "a long string without an end": Bad(b'{"instances":' + b"[" * 99 + b'"' + b'\\"' * DEPTH * 20),
    "a million records without a column": Bad(
        b'{"dataframe_records": [' + b"{}," * 1_000_000 + b"{}]}", row=0, field=COLUMNS[0]
    ),
    "another content type": Bad(
        b"<row/>", 415, "unsupported_media_type", content_type="application/xml"
    ),
    "no content type": Bad(_split(GOOD_ROW), 415, "unsupported_media_type", content_type=""),
    "50 MB long": Bad(b'{"instances": "' + b"x" * HUGE_BYTES + b'"}', 413, "body_too_large"),
}


@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_it_is_refused_and_nothing_restarts(served: Served, bad: Bad) -> None:
    before = served.node.pids()
    async with client(2) as http:
        headers = {"content-type": bad.content_type} if bad.content_type else {}
        answer = await http.post(served.path(bad.model), content=bad.body, headers=headers)
        await _assert_refused(answer, bad)
        good = IrisPipeline() if bad.model == "pipeline" else TorchModel()
        name = served.pipeline if bad.model == "pipeline" else served.module
        after = await ask(http, served.node.url, Call(name, 0, selector="1"), good.payload())
    assert after.predictions == good.expected(good.payload())
    assert _same_processes(served.node, before)


async def _assert_refused(answer: httpx.Response, bad: Bad) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (bad.status, bad.code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == bad.status
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    places = problem.get("errors", [])
    assert all(place["reason"] for place in places)
    if bad.row is not None:
        assert bad.row in [place["row"] for place in places], problem
    if bad.field is not None:
        assert bad.field in [place["field"] for place in places], problem
    assert "wide" not in answer.text, "the caller's data came back"


async def test_a_body_that_never_says_how_long_it_is_stops_at_the_limit(served: Served) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < HUGE_BYTES:
            sent += 1024 * 1024
            yield b"x" * (1024 * 1024)

    before = served.node.pids()
    async with client(2) as http:
        answer = await http.post(
            served.path("pipeline"), content=endless(), headers={"content-type": JSON}
        )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert _same_processes(served.node, before)


def _same_processes(node: Node, before: list[int]) -> bool:
    """Whether nothing has started or ended; the control plane's own short children aside."""
    return sorted(node.pids()) == sorted(before)
