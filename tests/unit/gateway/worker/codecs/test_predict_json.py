"""Bodies against signatures: what is accepted as which arrays, what is refused with which words."""

import base64
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from gateway.worker.codecs import predict_json as codec, shapes
from gateway.worker.errors import MAX_DETAILS, RequestRefusedError
from gateway.worker.rows import signature as rules
from gateway.worker.rows.inputs import COLUMNS, TENSOR, TENSORS, join


def columns(*specs):
    named = ({"type": kind, "name": name, "required": must} for name, kind, must in specs)
    return rules.parse({"inputs": list(named)})


def tensor(dtype, shape, *names):
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return rules.parse({"inputs": [spec | {"name": name} for name in names] or [spec]})


TWO = columns(("a", "double", True), ("b", "long", True))


def decode(signature, body):
    return join([codec.decode(json.dumps(body).encode(), signature)])


def refusal(signature, body) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        decode(signature, body)
    assert caught.value.code == "invalid_input"
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [1.5, 3]]}},
        {"dataframe_split": {"columns": ["b", "x", "a"], "data": [[2, 0, 1], [3.0, 0, 1.5]]}},
        {"dataframe_split": {"index": [7, 8], "columns": ["a", "b"], "data": [[1, 2], [1.5, 3]]}},
        {"dataframe_split": {"data": [[1, 2], [1.5, 3]]}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"b": 3, "a": 1.5, "more": "x"}]},
        {"instances": [{"a": 1, "b": 2}, {"a": 1.5, "b": 3}]},
        {"instances": [[1, 2], [1.5, 3]]},
        {"inputs": {"a": [1, 1.5], "b": [2, 3]}},
        {"inputs": [{"a": 1, "b": 2}, {"a": 1.5, "b": 3}]},
    ],
)
def test_every_shape_gives_the_same_columns_in_the_order_of_the_signature(body):
    inputs = decode(TWO, body)
    assert (inputs.kind, inputs.rows, list(inputs.arrays)) == (COLUMNS, 2, ["a", "b"])
    assert inputs.arrays["a"].tolist() == [1.0, 1.5]
    assert inputs.arrays["b"].tolist() == [2, 3]
    assert [array.dtype.name for array in inputs.arrays.values()] == ["float64", "int64"]


def test_labels_of_rows_reach_the_model_unless_they_count_from_zero():
    split = {"columns": ["a", "b"], "data": [[1, 2], [1.5, 3]]}
    frame = decode(TWO, {"dataframe_split": split | {"index": ["r", 8]}}).native()
    assert (frame.index.tolist(), frame["a"].tolist()) == (["r", 8], [1.0, 1.5])
    assert decode(TWO, {"dataframe_split": split | {"index": [0, 1]}}).index is None
    assert decode(TWO, {"dataframe_split": split | {"index": [0, True]}}).index == [0, True]


def test_rows_with_labels_are_joined_with_no_others():
    body = {"dataframe_split": {"index": [7], "columns": ["a", "b"], "data": [[1, 2]]}}
    one, other = decode(TWO, body), decode(TWO, body)
    assert one.joins_with() != other.joins_with()
    assert one.copy().index == one.take([0]).index == [7]


def test_table_without_labels_has_the_signatures_labels_or_numbers():
    body = {"dataframe_split": {"data": [[1, 2], [1.5, 3]]}}
    assert list(decode(TWO, body).arrays) == ["a", "b"]
    assert list(decode(rules.Signature(), body).arrays) == [0, 1]
    assert decode(tensor("float64", [-1, 2]), body).arrays[""].tolist() == [[1.0, 2.0], [1.5, 3.0]]
    assert "rows" in refusal(rules.Signature(), {"dataframe_split": {"data": []}}).message
    assert "columns" in refusal(rules.Signature(), {"dataframe_split": {"data": [[]]}}).message
    assert decode(rules.Signature(), {"dataframe_split": {"data": [1]}}).arrays[0].tolist() == [1]
    for signature, data in (
        *((TWO, data) for data in ([1], [[1], 2], [{"a": 1}])),
        (rules.Signature(), [[1], 2]),
    ):
        assert "rows" in refusal(signature, {"dataframe_split": {"data": data}}).message


def test_names_that_are_numbers_are_names():
    """As of a DataFrame that was made of an array: other names are not taken by position."""
    specs = [{"type": "double", "name": name, "required": True} for name in (0, 1)]
    counted = rules.parse({"inputs": specs})
    other = {"columns": ["b", "a"], "data": [[1, 2]]}
    assert "signature" in refusal(counted, {"dataframe_split": other}).message
    assert "signature" in refusal(counted, {"dataframe_records": [{"b": 1, "a": 2}]}).message
    for body in ({"dataframe_split": {"data": [[1, 2]]}}, {"inputs": [[1, 2]]}):
        assert [one.tolist() for one in decode(counted, body).arrays.values()] == [[1.0], [2.0]]
    without = rules.parse({"inputs": [{"type": "double"}, {"type": "double"}]})
    for nameless in ({"dataframe_split": other}, {"dataframe_records": [{"b": 1, "a": 2}]}):
        assert list(decode(without, nameless).arrays) == ["b", "a"]


@pytest.mark.parametrize(
    "index", [[7], [7, 8, 9], "ab", {"0": 7, "1": 8}, [[1, 2], [3, 4]], [{}, {}], 3]
)
def test_labels_that_are_not_one_for_each_row_are_refused(index):
    body = {"dataframe_split": {"index": index, "columns": ["a", "b"], "data": [[1, 2], [1, 3]]}}
    assert [field for _, field, _ in refusal(TWO, body).details] == ["dataframe_split.index"]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"instances": [[1, 2]], "more": 1, "parms": {}}, ["more", "parms"]),
        ({"instances": [[1, 2]], "messages": []}, ["messages"]),
        ({"dataframe_split": {"data": [[1, 2]], "name": "x"}}, ["dataframe_split.name"]),
        ({"messages": [], "a": 1, "b": 2}, ["messages"]),
        ({"instances": [[1, 2]], "x" * 1000: 1}, ["x" * 64]),
    ],
)
def test_unknown_members_are_refused_by_name(body, names):
    error = refusal(TWO, body)
    assert error.details == [(None, name, "unknown") for name in names]
    assert all(repr(name) in error.message for name in names)


def test_a_body_of_many_unknown_members_names_some():
    body = {"instances": [[1, 2]]} | {f"m{number}": 1 for number in range(1000)}
    error = refusal(TWO, body)
    assert (len(error.details), len(error.message) < 200) == (MAX_DETAILS, True)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{}, {}]},
        {"dataframe_split": {"columns": [], "data": [[], []]}},
        {"features": {}},
        {"inputs": {}},
        {"inputs": {"b": [None]}},
        {"inputs": {"c": [1]}},
    ],
)
def test_a_table_without_columns_is_refused(body):
    optional = columns(("a", "double", False), ("b", "long", False))
    assert "columns" in refusal(optional, body).message
    if not body.get("inputs"):
        assert refusal(rules.Signature(), body).message == "the input has no columns"


@pytest.mark.parametrize(
    "body", [{"features": [1, 2]}, {"features": {"a": 1, "b": 2}}, {"inputs": {"a": 1, "b": 2}}]
)
def test_one_row_can_be_given_alone(body):
    inputs = decode(TWO, body)
    assert [array.tolist() for array in inputs.arrays.values()] == [[1.0], [2]]


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("double", "1", "a string where a number is needed"),
        ("double", True, "a boolean where a number is needed"),
        ("double", None, "null in a required column"),
        ("double", [1], "a list where a number is needed"),
        ("float", 1e39, "a number beyond float32"),
        ("long", 1.5, "a number where a whole number is needed"),
        ("long", True, "a boolean where a whole number is needed"),
        ("long", 2**63, "a whole number beyond 64 bits"),
        ("integer", 2**31, "a whole number beyond 32 bits"),
        ("boolean", 1, "a whole number where a boolean is needed"),
        ("string", 1, "a whole number where a string is needed"),
        ("binary", "***", "a string that is not base64 where bytes are needed"),
        ("binary", "\u00e9", "a string that is not base64 where bytes are needed"),
        ("datetime", "yesterday", "a string that is not an ISO 8601 date and time"),
        ("datetime", 5, "a whole number where a string is needed"),
        ("datetime", "1500-01-01", "a date outside of 1677-09-22 to 2262-04-11"),
        ("datetime", "0001-01-01T00:00:00+10:00", "a string that is not an ISO 8601 date and time"),
    ],
)
def test_a_value_of_another_type_is_named_by_row_and_field(kind, value, reason):
    good = {"boolean": True, "string": "s", "binary": "AA==", "datetime": "2026-01-01"}.get(kind, 1)
    error = refusal(columns(("c", kind, True)), {"instances": [{"c": good}, {"c": value}]})
    assert error.details == [(1, "c", reason)]


@pytest.mark.parametrize(
    ("kind", "value", "dtype"),
    [
        ("double", 3, "float64"),
        ("float", 0.5, "float32"),
        ("long", 3.0, "int64"),
        ("integer", -3, "int32"),
        ("boolean", False, "bool"),
        ("string", "x", "object"),
        ("binary", "AAE=", "object"),
        ("datetime", "2026-11-21T04:05:06Z", "datetime64[ns]"),
        ("datetime", "2026-11-21", "datetime64[ns]"),
        ("any", {"x": [1, 2]}, "object"),
    ],
)
def test_a_value_of_the_type_becomes_the_array_of_the_type(kind, value, dtype):
    assert decode(columns(("c", kind, True)), {"features": {"c": value}}).arrays["c"].dtype == dtype


@pytest.mark.parametrize("kind", ["long", "integer"])
def test_null_beside_whole_numbers_is_named_by_row_and_field(kind):
    signature = columns(("c", kind, False))
    reason = f"null beside whole numbers: a column of type {kind} has no null"
    some = refusal(signature, {"inputs": {"c": [1, None, 3]}})
    assert some.details == [(1, "c", reason)]
    most = refusal(signature, {"instances": [{"c": 1}, {}, {"c": None}]})
    assert most.details == [(1, "c", reason), (2, "c", reason)]


def test_base64_may_have_the_line_breaks_that_mlflow_writes():
    text = base64.encodebytes(b"y" * 100).decode()
    assert text.count("\n") == 2
    signature = columns(("c", "binary", True))
    for spelled in (text, text.replace("\n", "\r\n")):
        assert decode(signature, {"instances": [{"c": spelled}]}).arrays["c"][0] == b"y" * 100
    assert refusal(signature, {"instances": [{"c": "A A="}]}).details


def test_optional_columns_may_be_missing_or_null():
    signature = columns(("a", "double", True), ("b", "double", False), ("c", "long", False))
    inputs = decode(signature, {"instances": [{"a": 1}, {"a": 2, "b": 5, "c": None}]})
    assert list(inputs.arrays) == ["a", "b"]
    assert np.isnan(inputs.arrays["b"][0])
    assert list(decode(signature, {"instances": [{"a": 1}, {"a": 2}]}).arrays) == ["a"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("double", "float64"),
        ("float", "float32"),
        ("string", "object"),
        ("boolean", "object"),
        ("datetime", "datetime64[ns]"),
        ("any", "object"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"a": 1, "b": None}]},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, None]]}},
        {"inputs": {"a": [1], "b": [None]}},
    ],
)
def test_an_optional_column_of_nulls_is_there(kind, dtype, body):
    inputs = decode(columns(("a", "double", True), ("b", kind, False)), body)
    assert list(inputs.arrays) == ["a", "b"]
    assert inputs.arrays["b"].dtype == dtype
    assert pd.isna(inputs.arrays["b"][0])


def test_a_body_of_many_faults_is_refused_without_a_list_of_them_all():
    body: dict[str, list[dict[str, int]]] = {"dataframe_records": [{}] * 300_000}
    tracemalloc.start()
    refusal(columns(*((f"c{n}", "double", True) for n in range(30))), body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * 1024 * 1024


def test_missing_columns_are_all_named():
    error = refusal(TWO, {"inputs": {"z": [1]}})
    assert error.details == [
        (None, "a", "required and missing"),
        (None, "b", "required and missing"),
    ]
    assert refusal(TWO, {"instances": [{"a": 1, "b": 1}, {"a": 1}]}).details == [
        (1, "b", "required and missing")
    ]


def test_the_details_are_bounded_and_hold_no_data():
    error = refusal(TWO, {"instances": [{"a": "secret", "b": "secret"}] * 1000})
    assert len(error.details) == MAX_DETAILS
    assert "secret" not in str(error.details) + error.message


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        5,
        {"params": {}},
        {"instances": [[1, 2]], "inputs": [[1, 2]]},
        {"instances": [[1, 2]], "more": 1},
        {"instances": []},
        {"instances": "text"},
        {"instances": {"a": 1}},
        {"instances": [[1, 2], 3]},
        {"instances": [[1, 2], {"a": 1, "b": 2}]},
        {"instances": [{"a": 1, "b": 2}, [1, 2]]},
        {"instances": [[1, 2, 3]]},
        {"inputs": {"a": [1], "b": [1, 2]}},
        {"inputs": {"a": [1], "b": 2}},
        {"inputs": {}},
        {"dataframe_split": []},
        {"dataframe_split": {"columns": ["a", "b"]}},
        {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": [["a"], "b"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": []}},
        {"dataframe_records": {"a": [1]}},
        {"features": 5},
        {"features": [1]},
        {"features": [1, 2], "params": 5},
    ],
)
def test_a_body_of_no_shape_is_refused(body):
    assert refusal(TWO, body).message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abc"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "columns", "data"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
NESTED = {
    "inputs": [
        {"name": "a", "required": True, "type": "array", "items": {"type": "long"}},
        {"name": "b", "required": False, "type": "map", "values": {"type": "datetime"}},
    ]
}
SIGNATURES = [
    *(TWO, rules.Signature(), tensor("float32", [-1, 2]), tensor("int64", [-1], "a")),
    *(rules.parse(NESTED), rules.parse({"inputs": [{"type": "string"}, {"type": "long"}]})),
    rules.parse(NESTED, from_type_hints=True),
]


@given(
    st.sampled_from(SIGNATURES),
    st.sampled_from([*shapes.SHAPES, *sorted(shapes.LLM_MEMBERS)]),
    json_values,
)
def test_whatever_is_sent_is_read_or_refused_as_the_callers_fault(signature, selector, value):
    try:
        inputs = decode(signature, {selector: value})
    except RequestRefusedError as refused:
        code = refused.code
    else:
        code = "invalid_input"
        assert inputs.rows >= 1
        assert all(array.shape[0] == inputs.rows for array in inputs.arrays.values())
    assert code == "invalid_input"


# --- tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [[1, 2.5], [3, 4]]},
        {"instances": [[1, 2.5], [3, 4]]},
        {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2.5], [3, 4]]}},
    ],
)
def test_a_tensor_is_read_from_nested_lists(body):
    inputs = decode(tensor("float32", [-1, 2]), body)
    assert (inputs.kind, inputs.rows) == (TENSOR, 2)
    assert inputs.arrays[""].tolist() == [[1, 2.5], [3, 4]]
    assert inputs.arrays[""].dtype == "float32"


def test_one_row_of_a_tensor_is_given_as_features():
    assert decode(tensor("float32", [-1, 2]), {"features": [1, 2]}).arrays[""].shape == (1, 2)


@pytest.mark.parametrize(
    ("value", "row", "reason"),
    [
        ([[1, 2], [3]], 1, "dimension 1 is not lists of one length"),
        ([[1, 2], 3], 1, "dimension 1 is not lists of one length"),
        ([1, 2], 0, "dimension 1 is not lists of one length"),
        ([[1, 2, 3]], None, "dimension 1 has length 3, not 2"),
        ([[[1], [2]]], None, "more than 2 dimensions"),
        ([[1, 2], ["1", 2]], 1, "a string where float32 is needed"),
        ([[1, 2], [True, 2]], 1, "a boolean where float32 is needed"),
        ([[1, 2], [1e39, 2]], 1, "a number beyond float32"),
    ],
)
def test_a_tensor_of_another_shape_or_type_is_refused_with_its_row(value, row, reason):
    assert refusal(tensor("float32", [-1, 2]), {"inputs": value}).details == [(row, None, reason)]


@pytest.mark.parametrize("value", [1.5, 2**31, -1e300])
def test_a_whole_number_tensor_takes_whole_numbers_in_range(value):
    error = refusal(tensor("int32", [-1]), {"inputs": [1, value]})
    assert error.details == [(1, None, "a number that int32 cannot hold")]


def test_null_in_a_tensor_of_floats_is_nan():
    array = decode(tensor("float32", [-1, 2]), {"inputs": [[None, 1], [2, None]]}).arrays[""]
    np.testing.assert_array_equal(array, np.array([[np.nan, 1], [2, np.nan]], dtype="float32"))
    error = refusal(tensor("int64", [-1]), {"inputs": [1, None]})
    assert error.details == [(1, None, "null where int64 is needed")]


@pytest.mark.parametrize(
    ("shape", "columns", "data"),
    [
        ([-1, 2], ["a", "b"], [[1, 2], [3, 4]]),
        ([-1, 2], ["a"], [[[1, 2]], [[3, 4]]]),
        ([-1, 1], ["a"], [[1], [2]]),
        ([-1], ["a"], [[1], [2]]),
    ],
)
def test_a_table_is_read_as_a_tensor(shape, columns, data):
    body = {"dataframe_split": {"columns": columns, "data": data}}
    assert decode(tensor("int64", shape), body).arrays[""].shape == (2, *shape[1:])


def test_tensors_by_name():
    inputs = decode(tensor("int64", [-1, 1], "ids"), {"inputs": {"ids": [[1], [2.0]]}})
    assert (inputs.kind, inputs.rows, inputs.arrays["ids"].tolist()) == (TENSORS, 2, [[1], [2]])
    assert refusal(tensor("int64", [-1, 1], "ids"), {"inputs": {"x": [[1]]}}).details == [
        (None, "ids", "required and missing")
    ]


# --- no signature, params, content --------------------------------------------------------------


def test_without_a_signature_types_are_inferred():
    records = {"dataframe_records": [{"a": 1, "b": "x"}, {"a": 2.5, "b": None}]}
    inputs = decode(rules.Signature(), records)
    assert [array.dtype.name for array in inputs.arrays.values()] == ["float64", "object"]
    assert decode(rules.Signature(), {"inputs": [[1, 2]]}).arrays[""].dtype == "int64"


def test_params_are_checked_defaulted_and_unknown_ones_dropped():
    signature = rules.parse(
        {
            "inputs": [{"type": "double", "name": "a", "required": True}],
            "params": [
                {"name": "t", "type": "double", "default": 0.5, "shape": None},
                {"name": "l", "type": "long", "default": [1], "shape": [-1]},
            ],
        }
    )
    body = {"features": [1], "params": {"t": 2, "other": 1}}
    assert decode(signature, body).params == {"t": 2, "l": [1]}
    assert decode(signature, {"features": [1]}).params == {"t": 0.5, "l": [1]}
    (whole,) = decode(signature, {"features": [1], "params": {"l": [2.0]}}).params["l"]
    assert (whole, type(whole)) == (2, int)
    error = refusal(signature, {"features": [1], "params": {"t": "hot", "l": 3}})
    assert error.details == [
        (None, "params.t", "not double"),
        (None, "params.l", "not a list of long"),
    ]


@pytest.mark.parametrize(
    ("content_type", "encoding", "taken"),
    [
        ("application/json", "", True),
        ("Application/JSON; charset=UTF-8", "identity", True),
        ('application/json;charset="utf-8"', "", True),
        ("", "", False),
        ("text/csv", "", False),
        ("application/json; charset=latin-1", "", False),
        ("application/json; strange", "", False),
        ("application/json", "gzip", False),
        ("application/x-www-form-urlencoded", "", False),
    ],
)
def test_content_that_is_not_json_in_utf_8_is_an_unsupported_media_type(
    content_type, encoding, taken
):
    if taken:
        codec.check_content(content_type, encoding)
        return
    with pytest.raises(RequestRefusedError) as caught:
        codec.check_content(content_type, encoding)
    assert caught.value.code == "unsupported_media_type"


@pytest.mark.parametrize(
    "signature", [{"inputs": [{"name": "a"}]}, {"inputs": ["a"]}, {"inputs": [{"type": "tensor"}]}]
)
def test_a_signature_that_is_not_mlflows_is_a_value_error(signature):
    with pytest.raises(ValueError, match="must be MLflow's"):
        rules.parse(signature)


def test_records_without_a_column_in_common_do_not_become_a_square():
    records = [{f"a{row}": 1} for row in range(5000)]
    assert "in common" in refusal(rules.Signature(), {"dataframe_records": records}).message
    assert decode(rules.Signature(), {"dataframe_records": records[:20]}).rows == 20


def test_a_message_lists_no_more_names_than_help():
    names = [f"{n:0100}" for n in range(400)]
    many = columns(*((name, "double", True) for name in names))
    arrays = tensor("float32", [-1], *names)
    for signature, body in ((many, {"input": "x"}), (arrays, {"inputs": [1.0]})):
        with pytest.raises(RequestRefusedError) as refused:
            decode(signature, body)
        assert refused.value.message.endswith(" and 380 more")
        assert len(refused.value.message) < MAX_DETAILS * 70 + 100
