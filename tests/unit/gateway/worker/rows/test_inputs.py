"""What rows are like: only those like the ones of a proof are joined."""

import json
from typing import Any

import numpy as np
import pytest

from gateway.worker.batching import key_of
from gateway.worker.loading.proofs import warm_up
from gateway.worker.protocol.messages import Load, Predict
from gateway.worker.rows.inputs import COLUMNS, TENSOR, Inputs, join
from gateway.worker.rows.plain_rows import PlainRows, Rows
from gateway.worker.rows.signature import parse
from gateway.worker.served_model import ServedModel

ORDER = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {})
OPTIONAL = [
    {"name": "x", "type": "double", "required": True},
    {"name": "d", "type": "double", "required": False},
    {"name": "s", "type": "string", "required": False},
    {"name": "t", "type": "datetime", "required": False},
    {
        "name": "a",
        "type": "array",
        "items": {"type": "double"},
        "required": False,
    },
    {"name": "n", "type": "long", "required": False},
]
WHOLE_ROW = {"x": 1.5, "d": 2.5, "s": "u", "t": "2026-01-01T00:00:00", "a": [1.0, 2.0], "n": 3}


def warmed(example: Any, inputs: Any = None) -> ServedModel:
    """A model that has answered its example, and was proved with it."""
    signature = parse({"inputs": inputs} if inputs else None)
    model = ServedModel("m", 1, signature, lambda i: np.arange(float(i.rows)) / i.rows)
    proof = warm_up.kept(ORDER)
    body = json.dumps(example).encode()
    warm_up.warm(model, None, ORDER, body, proof=proof, clock=lambda: 0.0)
    return model


def rows(model: ServedModel, document: Any) -> Rows:
    return model.decode(json.dumps(document).encode())


def of(**changed: Any) -> dict[str, Any]:
    row = {name: value for name, value in (WHOLE_ROW | changed).items() if value is not ...}
    return {"instances": [WHOLE_ROW | row if ... not in changed.values() else row]}


def test_rows_like_the_examples_are_joined() -> None:
    model = warmed(of(), OPTIONAL)
    assert model.is_proved(rows(model, of()))
    assert model.is_proved(rows(model, of(x=7.0, a=[3.0, 4.0], n=8)))


@pytest.mark.parametrize("name", ["d", "s", "t", "n"])
def test_a_row_with_a_null_goes_alone_where_no_proof_had_such(name: str) -> None:
    model = warmed(of(), OPTIONAL)
    assert not model.is_proved(rows(model, of(**{name: None})))
    assert not model.is_proved(rows(model, of(**{name: ...})))
    beside = {"instances": [*of()["instances"], WHOLE_ROW | {name: None}]}
    if name != "n":  # whole numbers have no null beside them
        assert not model.is_proved(rows(model, beside))


def test_a_null_inside_of_a_cell_counts() -> None:
    model = warmed(of(), OPTIONAL)
    assert not model.is_proved(rows(model, of(a=[None, 2.0])))


def test_rows_with_the_examples_missing_values_are_joined() -> None:
    model = warmed(of(d=None, s=None, n=...), OPTIONAL)
    assert model.is_proved(rows(model, of(d=None, s=None, n=...)))
    assert model.is_proved(rows(model, of(n=...)))
    assert not model.is_proved(rows(model, of(n=..., t=None)))
    assert not model.is_proved(rows(model, of())), "no proof had the column n"


def test_nulls_beyond_the_rows_that_are_compared_prove_nothing() -> None:
    column = [{"name": "x", "type": "double", "required": False}]
    model = warmed({"inputs": {"x": [float(n) for n in range(16)] + [None]}}, column)
    assert not model.is_proved(rows(model, {"inputs": {"x": [None]}}))
    assert model.is_proved(rows(model, {"inputs": {"x": [1.0]}}))


def test_plain_rows_are_joined_if_the_example_has_all_columns() -> None:
    two = [{"name": name, "type": "double", "required": name == "x"} for name in "xy"]
    whole, plain = (
        warmed({"inputs": {"x": [1.0], "y": [2.0]}}, two),
        {"inputs": {"y": [3], "x": [4]}},
    )
    taken = rows(whole, plain)
    assert isinstance(taken, PlainRows)
    assert whole.is_proved(taken)
    without = warmed({"inputs": {"x": [1.0]}}, two)
    assert not without.is_proved(rows(without, plain))
    assert without.is_proved(rows(without, {"inputs": {"x": [4]}}))


def test_without_a_signature_rows_are_compared_too() -> None:
    model = warmed({"dataframe_split": {"columns": ["x", "y"], "data": [[1.0, 2.0]]}})
    for data, proved in ([[3.0, 4.0]], True), ([[3.0, None]], False), ([[None, None]], False):
        split = {"dataframe_split": {"columns": ["y", "x"], "data": data}}
        assert model.is_proved(rows(model, split)) is proved
    assert not model.is_proved(rows(model, {"instances": [[1.0, 2.0]]}))
    assert not model.is_proved(rows(model, {"dataframe_records": [{"x": 1.0}]}))


def test_a_tensor_may_hold_nulls() -> None:
    spec = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    model = warmed({"instances": [[1.0, 2.0]]}, spec)
    assert model.is_proved(rows(model, {"instances": [[3.0, 4.0]]}))
    assert not model.is_proved(rows(model, {"instances": [[3.0, None]]}))
    model = warmed({"instances": [[1.0, None]]}, spec)
    assert model.is_proved(rows(model, {"instances": [[None, 4.0]]}))


def test_a_model_without_an_example_has_nothing_proved() -> None:
    model = ServedModel("m", 1, parse(None), lambda i: i)
    assert not model.is_proved(rows(model, {"instances": [1]}))


def test_labels_of_rows_and_params_keep_requests_apart() -> None:
    request = Predict("predict", "application/json", 1.0, "r")
    labelled = Inputs(COLUMNS, {"x": np.ones(1)}, 1, index=["a"])
    assert key_of(request, labelled) != key_of(request, labelled)
    tensor = Inputs(TENSOR, {"": np.ones(1)}, 1)
    assert key_of(request, tensor) == key_of(request, tensor.copy())


def test_the_rows_of_several_are_joined_in_their_order() -> None:
    parts = [Inputs(COLUMNS, {"x": np.array(values)}, len(values)) for values in ([1], [2, 3], [4])]
    whole = join(parts)
    assert whole.rows == 4
    assert whole.arrays["x"].tolist() == [1, 2, 3, 4]
    assert join(parts[:1]) is parts[0]
