"""Tensors of less usual types and shapes, lists in cells, labels of rows, long numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Document, Logging, signature_of
from tests.models.corpus.python_models import scripted


def _mirror(*specs: Mapping[str, Any]) -> Callable[[], Logging]:
    return lambda: scripted("mirror", None, signature=signature_of(*specs)())


def _inputs(values: Mapping[str, Any]) -> dict[str, Document]:
    return {name: {"inputs": value} for name, value in values.items()}


# --- tensors: name, type and shape of each ------------------------------------------------------


def _tensor(dtype: str, *shape: int, name: str | None = None) -> dict[str, Any]:
    """Return MLflow's JSON of a tensor."""
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return {**spec, "name": name} if name else spec


_TENSORS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "tensor-dates": (
        [_tensor("datetime64[ns]", -1)],
        {
            "dates": ["2026-01-02", "2026-01-02T03:04:05.123456789", None],
            "a zone": ["2026-01-02T03:04:05+02:00"],
            "words": ["2 January 2026"],
            "a count": [5],
        },
    ),
    "tensor-days": (
        [_tensor("datetime64[D]", -1, 1)],
        {"days": [["2026-01-02"], [None]], "a time": [["2026-01-02"], ["2026-01-02T03:04:05"]]},
    ),
    "tensor-bytes": ([_tensor("S", -1)], {"letters": ["abc", ""], "not ASCII": ["ü"]}),
    "tensor-objects": (
        [_tensor("object", -1)],
        {
            "of all kinds": ["abc", ["a", 1], {"b": None}],
            "ragged": [[1], [2, 3]],
            "rows": [[1, "x"], [2, None]],
        },
    ),
    "tensor-number": (
        [_tensor("float32")],
        {"a number": 3.5, "a list": [3.5], "a string": "x"},
    ),
    "tensors-of-lengths": (
        [
            _tensor("float32", -1, 2, name="a"),
            _tensor("int64", -1, name="k"),
            _tensor("float64", name="s"),
        ],
        {
            "one, one": {"a": [[1, 2]], "k": [7], "s": 0.5},
            "two, one": {"a": [[1, 2], [3, 4]], "k": [7], "s": 0.5},
            "one, none": {"a": [[1, 2]], "k": [], "s": 0.5},
            "a list": {"a": [[1, 2]], "k": [7], "s": [0.5]},
        },
    ),
}


def _tensors(name: str) -> Case:
    specs, values = _TENSORS[name]
    return Case(name, _mirror(*specs), _inputs(values))


# --- lists in cells -----------------------------------------------------------------------------

_LISTS: dict[str, list[Any]] = {
    "double": [[1.5, None], [1, 2]],
    "float": [[0.5]],
    "integer": [[4]],
    "string": [["ab"], ["a", None]],
    "boolean": [[True], [None]],
    "binary": [["AAE="], ["*"]],
    "datetime": [["2026-01-02"]],
}


# --- labels of rows, and numbers of many digits -------------------------------------------------

_LABELS: list[Any] = [
    ["r", "s"], [3, 3], [1.5, None], [0, 1], [1, 0], None, [True, "x"], [3], [[1, 2], [3, 4]],
]  # fmt: skip
_NUMBERS: dict[str, Any] = {
    "64 bits": [[2**64 - 1]],
    "64 bits and a sign": [2**63, -1],
    "64 bits, two": [2**63 + 1, 1],
    "a boolean and a number": [True, 1.5],
    "an empty row": [[]],
    "an empty column": {"a": []},
}

CASES = (
    *map(_tensors, _TENSORS),
    Case(
        "columns-of-lists",
        _mirror(
            *(
                {"type": "array", "items": {"type": kind}, "name": kind, "required": False}
                for kind in _LISTS
            )
        ),
        {
            f"{kind}, {value!r}": {"dataframe_records": [{kind: value}]}
            for kind, values in _LISTS.items()
            for value in values
        },
    ),
    Case(
        "frame-with-labels",
        _mirror({"type": "double", "name": "a"}),
        {
            f"{index!r}": bodies.split(["a"], [[1.0], [2.0]], index=index) for index in _LABELS
        },
    ),
    Case("numbers-no-signature", lambda: scripted("mirror", None, signature=False),
         _inputs(_NUMBERS)),
)  # fmt: skip
