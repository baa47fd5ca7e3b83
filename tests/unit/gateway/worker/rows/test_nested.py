"""Types that hold others: what a column's values become, and where a value does not fit."""

import datetime as dt

import numpy as np
import pytest

from gateway.worker.errors import MAX_DETAILS
from gateway.worker.rows import nested

HOME = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "required": True},
        "place": {"type": "map", "values": {"type": "double"}, "required": False},
    },
}
PERSON = nested.parse(
    {
        "type": "object",
        "properties": {
            "age": {"type": "long", "required": True},
            "homes": {"type": "array", "items": HOME, "required": True},
            "born": {"type": "datetime", "required": False},
        },
    }
)


def array(kind):
    return nested.parse({"type": "array", "items": {"type": kind}})


def bound(type_, value):
    faults: list[nested.Fault] = []
    return nested.bind(type_, value, faults), faults


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        ({"age": 3, "homes": [{"city": "Bern"}]}, []),
        ({"age": 3, "homes": [], "born": None}, []),
        ("Ann", [("", "a string where an object is needed")]),
        ({"homes": []}, [("age", "required and missing")]),
        ({"age": 3, "homes": {}}, [("homes", "an object where a list is needed")]),
        (
            {"age": "3", "homes": [{"city": "Bern"}, {"city": 4}]},
            [
                ("age", "a string where a whole number is needed"),
                ("homes[1].city", "a whole number where a string is needed"),
            ],
        ),
        (
            {"age": 3, "homes": [{"city": "Bern", "place": {"lat": "x"}}]},
            [("homes[0].place.lat", "a string where a number is needed")],
        ),
        ({"age": 3, "homes": [], "more": 1}, [("more", "not in the model's signature")]),
        (
            {"age": 3, "homes": [], "born": "once"},
            [("born", "a string that is not an ISO 8601 date and time")],
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_place(value, faults):
    assert bound(PERSON, value)[1] == faults


def test_faults_are_bounded_and_hold_no_data_but_short_names():
    people = array("long")
    assert len(bound(people, ["secret"] * 1000)[1]) == MAX_DETAILS
    ((at, reason),) = bound(PERSON, {"age": 3, "homes": [], "n" * 1000: "secret"})[1]
    assert (at, "secret" in reason) == ("n" * 64, False)


@pytest.mark.parametrize(
    ("kind", "given", "bound_", "dtype"),
    [
        ("double", [1, 2.5, None], [1.0, 2.5, None], None),
        ("float", [0.5], [0.5], np.float32),
        ("integer", [4.0], [4], np.int32),
        ("long", [4.0], [4], int),
        ("binary", ["AA\nE=\r\n"], [b"\x00\x01"], bytes),
        ("datetime", ["2026-01-02T00:00:00Z"], [np.datetime64("2026-01-02", "ns")], None),
        ("string", ["x"], ["x"], str),
        ("any", [{"k": [1]}, None], [{"k": [1]}, None], None),
    ],
)
def test_items_become_what_mlflow_takes_without_narrowing(kind, given, bound_, dtype):
    value, faults = bound(array(kind), given)
    assert (value, faults) == (bound_, [])
    assert dtype is None or {type(one) for one in value} == {dtype}


@pytest.mark.parametrize(
    ("kind", "given", "reason"),
    [
        ("string", None, "null where a string is needed"),
        ("boolean", None, "null where a boolean is needed"),
        ("long", None, "null where a whole number is needed"),
        ("integer", 2**31, "a whole number beyond 32 bits"),
        ("float", 1e39, "a number beyond float32"),
    ],
)
def test_items_that_mlflow_would_change_are_refused(kind, given, reason):
    assert bound(array(kind), [given])[1] == [("[0]", reason)]


def test_a_cell_is_an_array_where_one_can_hold_it():
    assert nested.cell([1, 2]).dtype == "int64"
    assert nested.cell([{"a": 1}]).shape == (1,)
    assert nested.cell([[1], [2, 3]]) == [[1], [2, 3]]
    assert nested.cell(None) is None


def test_a_hints_value_is_converted_and_left_to_mlflow():
    """Its model may allow a null, or a field, of which the signature says nothing."""
    value = {"age": 3.0, "homes": [None], "born": "2026-01-02T03:04:05Z", "more": 1}
    converted, garbled = nested.convert(PERSON, value)
    born = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert converted == {"age": 3, "homes": [None], "born": born, "more": 1}
    assert garbled == []
    told = nested.faults_of(PERSON, converted)
    assert told == [("homes[0]", "null where an object is needed")]


@pytest.mark.parametrize("kind", ["binary", "datetime"])
def test_invalid_bytes_and_dates_are_refused_before_mlflow(kind):
    assert [at for at, _ in nested.convert(array(kind), ["***"])[1]] == ["[0]"]
    assert nested.convert(array(kind), [None])[1] == []
