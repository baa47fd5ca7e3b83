"""Type hints, examples and shapes of MLflow 3: a real worker beside MLflow's own scoring server.

The models answer what they were given, type and value, so equal answers say that the model was
given the same. What differs on purpose is listed here with both answers, and in docs/mlflow.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.worker.protocol.messages import Failed, Load, Reply
from tests.integration.mlflow_cases import CASES, FAILS
from tests.integration.reference_server import Reference, reference
from tests.integration.worker_process import RunningWorker, serving, stop_forkserver, store

LLM = {"messages", "prompt", "input"}


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Load]:
    """An order to load each case's model."""
    folders = {name: tmp_path_factory.mktemp("case") for name in CASES}
    return {name: store(case.model, folders[name]) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def theirs(
    orders: dict[str, Load], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reference]:
    """MLflow's scoring servers of all cases."""
    models = {_url_name(name): Path(order.artifact) for name, order in orders.items()}
    with reference(models, tmp_path_factory.mktemp("reference")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def forkserver_ends() -> Iterator[None]:
    yield
    stop_forkserver()


def _url_name(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


def _predicted(worker: RunningWorker, body: Any) -> Any:
    message, answer = worker.predict(body)
    assert isinstance(message, Reply), (body, message)
    return answer["predictions"]


def _predicted_by_mlflow(theirs: Reference, name: str, body: Any) -> Any:
    """Return MLflow's predictions; those of a request of an LLM's client are in no envelope."""
    status, answer = theirs.ask(_url_name(name), body)
    assert status == 200, (body, answer)
    return answer if LLM & body.keys() else answer["predictions"]


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_served_as_mlflow_serves_it(
    name: str, orders: dict[str, Load], theirs: Reference
) -> None:
    case, order = CASES[name], orders[name]
    with serving(order) as (worker, report):
        example = order.description["example"]["serving"]
        assert report.warm_up == ("no_example" if example is None else "passed")
        for body in [*([example] if example else []), *case.alike]:
            expected = _predicted_by_mlflow(theirs, name, body)
            assert _predicted(worker, body) == expected, body
        for body, details in case.refused:
            message, _ = worker.predict(body)
            assert isinstance(message, Failed), body
            assert (message.code, message.details) == ("invalid_input", details), body
            assert theirs.ask(_url_name(name), body)[0] == 400, body
        assert case.model.example is None or worker.probe().example_ok


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.differs])
def test_what_differs_on_purpose_differs_as_the_documentation_says(
    name: str, orders: dict[str, Load], theirs: Reference
) -> None:
    with serving(orders[name]) as (worker, _):
        for body, by_mlflow, ours in CASES[name].differs:
            status, answer = theirs.ask(_url_name(name), body)
            if by_mlflow is None or by_mlflow == FAILS:
                assert status == (500 if by_mlflow else 400), body
            else:
                predicted = answer if LLM & body.keys() else answer["predictions"]
                assert (status, predicted) == (200, by_mlflow), body
            message, answer = worker.predict(body)
            if isinstance(message, Failed):
                assert message.details == ours or ours in message.message, body
            else:
                assert answer["predictions"] == ours, body


ROW = b'{"dataframe_records": [{"a": 1.0}]%s}'
JSON = "application/json"
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("content", "content_type", "by_mlflow", "ours"),
    [
        (b"{", JSON, 400, "invalid_input"),
        (ROW % b"", None, 500, "unsupported_media_type"),
        (b"a\n1.5\n", "text/csv", 200, "unsupported_media_type"),
        (ROW % b', "more": 1', JSON, 200, "invalid_input"),
        (ROW % b', "params": "text"', JSON, 200, "invalid_input"),
        (b"\xef\xbb\xbf" + ROW % b"", JSON, 200, "invalid_input"),
        (b'{"dataframe_split": {"columns": ["a"], "data": []}}', JSON, 200, "invalid_input"),
        (b'{"inputs": {"a": %b1%b}}' % (DEEP, b"]" * 100_000), JSON, 500, "invalid_input"),
        (b'{"features": [1.0]}', JSON, 400, None),
        (ROW % b', "params": {"unknown": 1}', JSON, 200, None),
    ],
    ids=[
        *("broken", "no type", "csv", "unknown member", "params of text", "byte order mark"),
        *("no rows", "deep", "features", "unknown params"),
    ],
)
def test_bodies_are_refused_as_the_documentation_says(
    orders: dict[str, Load],
    theirs: Reference,
    content: bytes,
    content_type: str | None,
    by_mlflow: int,
    ours: str | None,
) -> None:
    name = "labels of rows"
    assert theirs.send(_url_name(name), content, content_type) == by_mlflow
    with serving(orders[name]) as (worker, _):
        message, _ = worker.predict(content, content_type=content_type or "")
        assert (message.code if isinstance(message, Failed) else None) == ours


def test_a_model_that_raises_tells_its_trace_there_and_not_here(
    orders: dict[str, Load], theirs: Reference
) -> None:
    body = {"dataframe_records": [{"what": "no answer of this model"}]}
    status, answer = theirs.ask("answers", body)
    assert (status, "KeyError" in answer["stack_trace"]) == (400, True)
    with serving(orders["answers"]) as (worker, _):
        message, _ = worker.predict(body)
        assert isinstance(message, Failed)
        assert (message.code, message.message) == ("model_error", "the model raised KeyError")
