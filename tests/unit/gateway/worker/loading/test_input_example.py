"""What warm-up decides, on models that are plain functions."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest

from gateway.worker.errors import RequestRefusedError
from gateway.worker.flavors import NotTakenError
from gateway.worker.loading import input_example, perturbation
from gateway.worker.loading.proofs import fast_path, joining
from gateway.worker.loading.proofs.proof import Proof
from gateway.worker.rows import outputs, signature as rules
from gateway.worker.rows.inputs import COLUMNS, Inputs, join
from gateway.worker.served_model import ServedModel
from tests.fakes.asked import ask_all

SIGNATURE = rules.Signature(columns=(rules.Column("x", "double"),))


def served(call, signature=SIGNATURE) -> ServedModel:
    return ServedModel("m", 1, signature, call)


def prove(calls, varied, far=()):
    """What is found out of calls, the first of which has answered the example."""
    proof = Proof()
    ask_all(joining.prove(calls, varied, far, calls[0](varied[0].copy()), proof))
    return proof


def x(inputs):
    return inputs.arrays["x"]


def numbers(*values, dtype="float64"):
    return Inputs(COLUMNS, {"x": np.array(values, dtype=dtype)}, len(values))


def raises(_inputs):
    raise KeyError("sec" + "ret")


def exits(_inputs):
    raise SystemExit


def only_short(inputs):
    if inputs.rows > 2:
        raise ValueError("too long")
    return x(inputs)


@pytest.mark.parametrize(
    ("call", "answers", "reason"),
    [
        (lambda i: 2 * x(i), "per_row", None),
        (lambda i: (2 * x(i)).tolist(), "per_row", None),
        (lambda i: [str(value) for value in x(i)], "per_row", None),
        (lambda i: pd.DataFrame({"y": x(i)}), "per_row", None),
        (lambda i: pd.Series(x(i)), "per_row", None),
        (lambda i: x(i) - x(i).mean(), "per_row", "influence"),
        (lambda i: np.cumsum(x(i)), "per_row", "influence"),
        (lambda i: np.full(i.rows, i.rows), "per_row", "influence"),
        (lambda i: {"all": x(i).tolist()}, "whole", "one per row"),
        (lambda _: "one answer", "whole", "one per row"),
        (lambda i: x(i)[:2], "whole", "one per row"),
        (lambda i: x(i)[x(i) < 3], "whole", "one per row"),
        (only_short, "unknown", "cannot be predicted"),
    ],
)
def test_only_rows_that_do_not_influence_each_other_are_joined(call, answers, reason):
    example = numbers(1.0, 2.0)
    result = prove([call], perturbation.vary(example), perturbation.vary_far(example, whole=False))
    assert (result.answers, result.batching) == (answers, "alone" if reason else "joined"), result
    assert (reason or "") in result.batching_reason
    assert result.joined_rows == (1 if reason else 6)


def labels(numbers):
    return (np.asarray(numbers) > 1e9).astype("int64")


def of_positions(inputs):
    return np.arange(10.0)[x(inputs)]


@pytest.mark.parametrize(
    ("call", "scores", "mode", "reason"),
    [
        (lambda i: (x(i) > x(i).mean()).astype("int64"), None, "alone", "influence"),
        (lambda i: labels(x(i)), None, "alone", "do not differ"),
        (lambda i: labels(x(i)), x, "joined", ""),
        (lambda i: labels(x(i)), lambda i: x(i) - x(i).mean(), "alone", "influence"),
        (lambda i: labels(x(i)), raises, "alone", "do not differ"),
        (lambda i: labels(x(i)), lambda _: [], "alone", "do not differ"),
        (lambda i: (x(i) > 500).astype("int64"), None, "joined", ""),
    ],
)
def test_labels_that_are_all_the_same_prove_nothing(call, scores, mode, reason):
    example = numbers(0.1)
    far = perturbation.vary_far(example, whole=False)
    calls = [one for one in (call, scores) if one is not None]
    result = prove(calls, perturbation.vary(example), far)
    assert result.batching == mode, result
    assert reason in result.batching_reason


def test_what_a_model_does_not_bear_is_left_out_of_the_proof():
    example = numbers(1, 2, dtype="int64")
    far = perturbation.vary_far(example, whole=True)
    assert [one.arrays["x"].tolist() for one in far] == [[-1008, -1016], [1100, 1200]]
    assert prove([of_positions], perturbation.vary(example), far).batching == "joined"


@pytest.mark.parametrize(
    ("example", "whole", "count"),
    [
        (numbers(1, dtype="int64"), False, 0),
        (numbers(1, dtype="uint8"), True, 0),
        (numbers(1, dtype="uint16"), True, 1),
        (numbers(2**62, dtype="int64"), True, 0),
        (numbers(3e38, dtype="float32"), True, 0),
        (numbers(1.0, np.nan), True, 2),
        (numbers(True, dtype="bool"), True, 0),
    ],
)
def test_only_numbers_that_have_room_are_moved_far(example, whole, count):
    assert len(perturbation.vary_far(example, whole=whole)) == count


def test_a_model_that_changes_its_input_is_proved_on_what_came():
    def halves(inputs):
        inputs.arrays["x"] /= 2
        return inputs.arrays["x"].copy()

    model = served(halves, rules.Signature())
    example = input_example.predict_example(model, b'{"inputs": {"x": [1.0, 2.0]}}').inputs
    assert x(example).tolist() == [1.0, 2.0]
    assert prove([halves], perturbation.vary(example)).batching == "joined"
    assert x(example).tolist() == [1.0, 2.0]
    model.probabilities_call = halves
    both = model.predict(numbers(1.0, 2.0), probabilities=True)
    assert both.output.tolist() == both.probabilities.tolist() == [0.5, 1.0]


def test_one_row_that_cannot_be_varied_proves_nothing():
    words = Inputs(COLUMNS, {"x": np.array(["a"], dtype=object)}, 1)
    assert prove([x], perturbation.vary(words)).batching == "alone"


def test_rows_of_words_are_varied_by_taking_other_rows():
    words = Inputs(COLUMNS, {"x": np.array(["a", "a", "b"], dtype=object)}, 3)
    varied = perturbation.vary(words)
    assert [part.arrays["x"].tolist() for part in varied] == [["a", "a", "b"], ["b"]]
    assert prove([lambda i: x(i).tolist()], varied).batching == "joined"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (raises, "the model raised KeyError"),
        (exits, "the model raised SystemExit"),
        (lambda inputs: x(inputs) * np.nan, "not finite"),
        (lambda inputs: [object() for _ in x(inputs)], "JSON cannot express"),
        (lambda inputs: ["\ud800" for _ in x(inputs)], "JSON cannot express"),
    ],
)
def test_an_example_without_a_right_answer_is_a_failed_warm_up(call, reason, capsys):
    with pytest.raises(input_example.WarmUpFailedError, match=reason):
        input_example.predict_example(served(call), b'{"inputs": {"x": [1.0, 2.0]}}')
    assert "secret" not in capsys.readouterr().err


def test_an_example_some_of_whose_answers_are_not_finite_is_answered():
    served_one = served(lambda inputs: np.where(x(inputs) > 1.5, np.nan, x(inputs)))
    body = b'{"inputs": {"x": [1.0, 2.0]}}'
    assert json.loads(served_one.answer(body)[0])["predictions"] == [1.0, None]
    served_one.nulls = False
    with pytest.raises(input_example.WarmUpFailedError, match="not finite"):
        input_example.predict_example(served_one, body)


def test_answer_that_is_not_finite_is_refused_with_its_row():
    model = served(x)
    model.nulls = False
    prediction = model.predict(numbers(1.0, np.inf, 3.0, np.nan))
    first, second = model.encode(prediction, [1, 3], predict_s=0.0)
    assert isinstance(first, bytes)
    assert isinstance(second, RequestRefusedError)
    assert (second.code, second.details) == (
        "not_finite",
        [(0, "predictions", "a number that is not finite")],
    )


def test_a_probability_that_is_not_finite_is_refused_as_one():
    model = served(x)
    model.nulls, model.class_names = False, ["no", "yes"]
    likely = np.array([[0.5, 0.5], [np.nan, 1.0]])
    model.probabilities_call = lambda inputs: likely
    prediction = model.predict(numbers(1.0, 2.0), probabilities=True)
    (refusal,) = model.encode(prediction, [2], predict_s=0.0)
    assert isinstance(refusal, RequestRefusedError)
    assert refusal.details == [(1, "probabilities", "a number that is not finite")]


def test_probabilities_of_a_model_without_any_are_refused_before_it_predicts():
    model = served(raises)
    model.no_probabilities = "the model has no class probabilities: it is a regressor"
    with pytest.raises(RequestRefusedError) as caught:
        model.predict(numbers(1.0), probabilities=True)
    assert (caught.value.code, caught.value.message) == ("invalid_input", model.no_probabilities)
    assert caught.value.details == [(None, "probabilities", "the model has none")]


def test_an_example_that_does_not_fit_the_signature_says_where():
    with pytest.raises(input_example.WarmUpFailedError, match="row 0, field 'x', a string"):
        input_example.predict_example(served(x), b'{"inputs": {"x": ["1"]}}')


def test_the_answer_names_the_model_and_holds_the_rows_asked_for():
    model = served(lambda inputs: 2 * x(inputs))
    prediction = model.predict(numbers(1.0, 2.0, 3.0))
    answers = model.encode(prediction, [1, 2], predict_s=0.5)
    first, second = (json.loads(answer) for answer in answers if isinstance(answer, bytes))
    assert (first["predictions"], second["predictions"]) == ([2.0], [4.0, 6.0])
    assert first["prediction_id"] != second["prediction_id"]
    answer = second
    assert (answer["model_name"], answer["model_version"]) == ("m", 1)
    assert answer["inference_time_ms"] == 500.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (np.array([1.0]), np.array([1.0]), True),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.array([1.0]), np.array([1.0 + 2e-16]), False),
        (np.array([1.0]), np.array([1.0], dtype="float32"), False),
        (np.array([1.0]), np.array([[1.0]]), False),
        (np.array(["a"]), np.array(["a"]), True),
        ([1.0], [1.0], False),
        (np.array([1.0]), pd.Series([1.0]), False),
    ],
)
def test_a_fast_path_must_answer_bit_for_bit(one, other, same):
    assert fast_path.identical(one, other) is same


class Estimator:
    """The bare model in a pyfunc; its answers tell tables from arrays where it is told so."""

    feature_names_in_ = ("x", "y")

    def __init__(self, odd: bool = False) -> None:
        self.odd = odd

    def get_raw_model(self):
        return self

    def predict(self, given):
        numbers = np.asarray(given, dtype="float64")
        return numbers.sum(axis=1) + (self.odd and hasattr(given, "columns"))


def table(**columns):
    arrays = {name: np.array(values) for name, values in columns.items()}
    return Inputs(COLUMNS, arrays, len(next(iter(arrays.values()))))


UNUSUAL = [
    table(x=[1.0], y=np.array([True])),
    table(x=[1.0], y=np.array(["2.5"], dtype=object)),
    table(x=[1.0], y=np.array([None], dtype=object)),
    table(x=[1.0]),
    table(y=[1.0], x=[2.0]),
    table(x=[1.0], y=[2**53 + 1]),
]


@pytest.mark.parametrize("inputs", UNUSUAL)
def test_what_the_bare_model_is_not_given_goes_to_the_pyfunc(inputs):
    model, asked = Estimator(), []

    def pyfunc_call(inputs):
        asked.append(inputs)
        return model.predict(inputs.native())

    proofs = [table(x=[1.0, 4.0], y=[2, 3])]
    fast, _ = ask_all(fast_path.choose(model, pyfunc_call, "mlflow.sklearn", "predict", proofs))
    likely = fast_path.probabilities(model, model.predict, on_arrays=True)
    assert fast is not None
    asked.clear()
    assert fast(proofs[0]).tolist() == likely(proofs[0]).tolist() == [3.0, 7.0]
    assert not asked
    expected = model.predict(inputs.native())
    np.testing.assert_array_equal(fast(inputs), expected)
    np.testing.assert_array_equal(likely(inputs), expected)
    assert asked == [inputs]
    for call in (fast, likely):  # the pyfunc is not proved with many rows
        with pytest.raises(NotTakenError):
            call(join([inputs, inputs]))
    assert asked == [inputs]


def test_whole_numbers_of_one_type_stay_on_arrays():
    from gateway.worker.flavors import scikit_learn

    numbers = scikit_learn.matrix(table(x=[2**53 + 1], y=[1]))
    assert numbers.tolist() == [[2**53 + 1, 1]]


@pytest.mark.parametrize("odd", [True, False])
def test_probabilities_are_asked_for_on_arrays_only_where_they_are_the_same(odd):
    model, given = Estimator(odd=odd), []

    def function(one):
        given.append(type(one))
        return model.predict(one)

    proofs = [table(x=[1.0, 2.0], y=[2.0, 3.0])]
    on_arrays = ask_all(fast_path.choose_probabilities(model, function, proofs))
    given.clear()
    fast_path.probabilities(model, function, on_arrays=on_arrays)(proofs[0])
    assert given == [pd.DataFrame if odd else np.ndarray]
    assert not ask_all(fast_path.choose_probabilities(model, function, []))


def test_without_proof_or_loader_the_pyfunc_serves():
    def call(inputs):
        return x(inputs)

    def chosen(loader, proofs):
        return ask_all(fast_path.choose(None, call, loader, "predict", proofs))

    assert chosen("mlflow.sklearn", [])[0] is None
    assert chosen("mlflow.xgboost", [numbers(1)])[0] is None
    broken = chosen("mlflow.sklearn", [numbers(1)])
    assert broken == (None, "the bare model raised AttributeError")


@pytest.mark.parametrize(
    ("output", "rows", "value"),
    [
        (np.array([[1, 2], [3, 4]]), 2, [[1, 2], [3, 4]]),
        (pd.DataFrame({"a": [1], "b": ["x"]}), 1, [{"a": 1, "b": "x"}]),
        (pd.Series([1.5, 2.5], index=[9, 8]), 2, [{"0": 1.5}, {"0": 2.5}]),
        (pd.Series([1, None], name="y", dtype="Int64"), 2, [{"y": 1}, {"y": None}]),
        ([b"\x00" * 60], 1, ["A" * 76 + "\nAAAA\n"]),
        ([np.float32(0.5), np.int64(3), np.bool_(True)], 3, [0.5, 3, True]),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), 1, ["2026-01-01"]),
        (np.array([["NaT"]], dtype="datetime64[ns]"), 1, [[None]]),
        ([dt.date(2026, 1, 1)], 1, ["2026-01-01"]),
        ([pd.Timestamp("2026-01-01")], 1, ["2026-01-01T00:00:00"]),
        ({"a": np.array([1])}, None, {"a": [1]}),
        ("text", None, "text"),
        (np.float64(2.0), None, 2.0),
        (None, None, None),
        ((1, 2), 2, [1, 2]),
    ],
)  # fmt: skip
def test_outputs_become_rows_of_json(output, rows, value):
    assert outputs.row_count(output) == rows
    assert outputs.to_json(output) == value


def test_rows_of_a_frame_are_taken_by_position():
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[2, 1, 0])
    assert outputs.to_json(outputs.rows_of(frame, 1, 3)) == [{"a": 2}, {"a": 3}]
