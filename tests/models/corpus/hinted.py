"""Python models with type hints of MLflow 3, and models that converse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Document, Logging, inferred
from tests.models.corpus.python_models import scripted

_MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "ai", "content": "ho", "weight": 2},
]
_ORDERS: list[dict[str, Any]] = [
    {
        "customer": {"role": "user", "content": "hi", "note": "n"},
        "parts": [{"name": "bolt", "amount": 2}, {"name": "nut", "amount": 1}],
        "labels": {"a": "b"},
    },
    {"customer": {"role": "user", "content": "hi"}, "parts": [], "limit": 5},
]
_ROWS: dict[str, tuple[list[Any], list[Any]]] = {
    "Strings": (["a", "b"], [1, None, ["a"]]),
    "Whole": ([1, 2], ["1", 1.5, 2.0, None, True, 2**63]),
    "Numbers": ([1.5, 2.5], [1, "1.5", None, True]),
    "Booleans": ([True, False], [1, "true", "yes", None]),
    "Moments": (["2024-01-02T03:04:05", "2024-01-02T03:04:05Z"], ["2024-01-02", 0, "soon"]),
    "Bytes": (["AP8=", "YWJj"], [1, "ü", "abc"]),
    "Lists": ([["a", "b"], []], ["ab", [1], [["a"]], [None]]),
    "Objects": ([{"a": 1}, {"b": 2, "c": 3}], [{"a": "1"}, {"a": 1.5}, [], {}]),
    "ObjectsOfLists": ([{"a": ["x"]}, {"b": []}], [{"a": "x"}, {"a": [1]}]),
    "Messages": (
        _MESSAGES,
        [{"role": "user"}, {**_MESSAGES[0], "more": 1}, {**_MESSAGES[0], "weight": "2"}, "hi"],
    ),
    "MessagesBack": (_MESSAGES, [{"role": "user"}]),
    "Orders": (
        _ORDERS,
        [{**_ORDERS[1], "customer": {"role": "user"}}, {**_ORDERS[1], "parts": [{}]}],
    ),
    "Anything": ([1, "a", [None, {"b": 1.5}]], [{"a": 1}]),
    "Either": ([1, "a"], [1.5, None]),
    "StringsWithContext": (["a", "b"], [1]),
}  # fmt: skip


def _hinted(name: str) -> Case:
    rows, odd = _ROWS[name]
    forms = bodies.of_values(rows) | {f"{value!r}": {"inputs": [value]} for value in odd}
    forms["with params"] = {"inputs": rows, "params": {"suffix": "x"}}
    return Case(f"hint-{name.lower()}", lambda: _logged(name, _example(name)), forms)


def _example(name: str) -> Any:
    if name == "Bytes":
        return [b"abc"]
    if name == "Moments":
        return [pd.Timestamp("2024-01-02T03:04:05").to_pydatetime()]
    return _ROWS[name][0]


def _logged(name: str, example: Any, **more: Any) -> Logging:
    return scripted("hinted", example, config={"hinted": name}, **more)


def _on_frame() -> Logging:
    frame = pd.DataFrame({"x": [1.5, 2.5]})
    return _logged("Frame", frame, signature=inferred(frame, frame))


def _on_matrix() -> Logging:
    matrix = np.array([[1.5], [2.5]])
    return _logged("Matrix", matrix, signature=inferred(matrix, matrix))


def _from_list() -> Logging:
    return _logged("AsTheExample", ["a", "b"])


def _from_frame() -> Logging:
    return _logged("AsTheExample", pd.DataFrame({"x": [1.5, 2.5]}))


# --- models that converse -----------------------------------------------------------------------

_SAID = {"messages": [{"role": "user", "content": "hi"}]}
_CHATS: dict[str, Document] = {
    "as a client": _SAID,
    "as a client, more": {**_SAID, "temperature": 0.25, "max_tokens": 5},
    "as a client, agent": {**_SAID, "context": {"user_id": "u"}, "custom_inputs": {"a": 1}},
    "as a client, responses": {"input": _SAID["messages"]},
    "as a client, responses and more": {
        "input": [*_SAID["messages"], {"role": "assistant", "content": "what?"}],
        "custom_inputs": {"a": [1, None]},
    },
    "as a client, prompt": {"prompt": "hi"},
    "inputs": {"inputs": _SAID},
    "inputs, list": {"inputs": [_SAID]},
    "instances": {"instances": [_SAID]},
    "inputs, responses": {"inputs": {"input": _SAID["messages"]}},
    "dataframe_split": bodies.split(["messages"], [[_SAID["messages"]]]),
    "dataframe_split, responses": bodies.split(["input"], [[_SAID["messages"]]]),
    "dataframe_records": {"dataframe_records": [_SAID]},
    "params": {"inputs": _SAID, "params": {"temperature": 0.5}},
    "no messages": {"messages": []},
    "wrong message": {"messages": [{"role": "user"}]},
    "wrong input": {"input": [{"role": "user"}]},
    "wrong type": {"messages": "hi"},
}


def _conversing(name: str) -> Case:
    return Case(
        f"converses-{name.lower()}",
        lambda: scripted("agents", None, config={"agent": name}),
        _CHATS,
    )


def _plain() -> Logging:
    example = {"messages": [{"role": "user", "content": "hi"}]}
    return scripted("agents", example, config={"agent": "Plain"})


_X = {"x": [1.5, 2.5]}
CASES = (
    *map(_hinted, _ROWS),
    Case("hint-frame", _on_frame, bodies.of_columns(_X) | bodies.faults_of_columns(_X)),
    Case("hint-matrix", _on_matrix, bodies.of_tensor([[1.5], [2.5]])),
    Case("hint-from-list", _from_list, bodies.of_values(["a", "b"])),
    Case("hint-from-frame", _from_frame, bodies.of_columns(_X)),
    *map(_conversing, ("Chat", "Agent", "Responses")),
    Case("converses-plain", _plain, _CHATS),
)
