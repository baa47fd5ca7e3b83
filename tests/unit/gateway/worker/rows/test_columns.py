"""Columns of JSON values as arrays."""

import time

import numpy as np
import pytest

from gateway.worker.errors import RequestRefusedError
from gateway.worker.rows import columns, tensors

NO_MOMENT = "a string that is not an ISO 8601 date and time"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02", "2026-01-02T00:00:00.000000000"),
        ("2026-01-02T03:04:05.1", "2026-01-02T03:04:05.100000000"),
        ("2026-01-02 03:04:05,12345", "2026-01-02T03:04:05.123450000"),
        ("2026-01-02T03:04:05.123456789", "2026-01-02T03:04:05.123456789"),
        ("2026-01-02T03:04:05.1234567Z", "2026-01-02T03:04:05.123456700"),
        ("2026-01-02T03:04:05.000000001+02:00", "2026-01-02T01:04:05.000000001"),
        ("1969-12-31T23:59:59.999999999", "1969-12-31T23:59:59.999999999"),
        (None, "NaT"),
    ],
)
def test_a_date_and_time_keeps_its_nanoseconds(text, moment):
    for values in ([text], [text, "2026-01-02"], ["2026-01-02", text]):
        array = columns.to_array("t", values, "datetime", required=False)
        assert array.dtype == "datetime64[ns]"
        assert str(array[values.index(text)]) == moment


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-01-02T03:04:05.1234567890", "a date and time finer than a nanosecond"),
        ("2026-01-02T03:04.5", NO_MOMENT),
        ("2026-01-02T03:04:05.", NO_MOMENT),
        ("2026-01-02T03:04:05.1.1", NO_MOMENT),
        ("2026.01.02", NO_MOMENT),
        ("", NO_MOMENT),
    ],
)
def test_what_would_lose_a_part_of_a_moment_is_refused(text, reason):
    with pytest.raises(RequestRefusedError) as refused:
        columns.to_array("t", [text], "datetime", required=True)
    assert refused.value.details == [(0, "t", reason)]


def test_a_moment_of_a_type_hint_has_microseconds():
    assert columns.moment("2026-01-02T03:04:05.123456000").microsecond == 123456
    with pytest.raises(ValueError, match="finer than a microsecond"):
        columns.moment("2026-01-02T03:04:05.123456789")


def test_a_long_text_that_is_no_moment_is_refused_at_once():
    began = time.monotonic()
    for text in ("00:00:00." + "1" * 100_000 + ".", "00:00:00.1" * 10_000, "1" * 100_000 + "."):
        with pytest.raises(ValueError, match="ISO 8601"):
            columns.moment(text)
    assert time.monotonic() - began < 1


def test_moments_in_a_list_keep_their_nanoseconds():
    moment = columns.scalar("datetime", "2026-01-02T03:04:05.123456789")
    assert columns.narrow("datetime", moment) == np.datetime64("2026-01-02T03:04:05.123456789")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True], "bool"),
        ([1, -1], "int64"),
        ([2**63, 1], "uint64"),
        ([2**63, -1], "object"),
        ([2**63, 0.5], "float64"),
        ([2**63, None], "float64"),
        ([True, 1], "object"),
        ([None], "object"),
        (["x"], "object"),
    ],
)
def test_without_a_signature_a_column_is_of_the_narrowest_type_that_fits(values, dtype):
    array = columns.infer(values)
    assert array.dtype == dtype
    if None not in values:
        assert array.tolist() == values


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([], "float64"),
        ([[], []], "float64"),
        ([[True, False]], "bool"),
        ([[True, 2]], "int64"),
        ([2**64 - 1, 0], "uint64"),
        ([2**63, -1], "float64"),
        ([True, 0.5], "float64"),
        ([[1, "x"]], "object"),
    ],
)
def test_without_a_signature_a_tensor_is_of_the_narrowest_type_that_fits(value, dtype):
    array = tensors.infer_tensor(value)
    assert array.dtype == dtype
    assert array.tolist() == value


@pytest.mark.parametrize(
    ("kind", "value", "expected", "of_type"),
    [
        ("double", 3, 3.0, float),
        ("float", 0.1, np.float32(0.1), np.float32),
        ("integer", 7, 7, np.int32),
        ("long", 7, 7, int),
        ("string", "a", "a", str),
    ],
)
def test_a_value_is_the_one_that_its_type_takes(kind, value, expected, of_type):
    found = columns.narrow(kind, value)
    assert found == expected
    assert type(found) is of_type


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("float", 1e300, "beyond float32"),
        ("integer", 2**31, "beyond 32 bits"),
        ("integer", -(2**31) - 1, "beyond 32 bits"),
        ("long", 2**63, "beyond 64 bits"),
    ],
)
def test_a_value_beyond_its_type_is_refused(kind, value, reason):
    with pytest.raises(ValueError, match=reason):
        columns.narrow(kind, value)
    if kind in ("integer", "long") and value > 0:
        assert columns.narrow(kind, value - 1) == value - 1


def test_a_whole_number_may_have_a_point_and_no_fraction():
    assert columns.to_array("n", [1, 2.0], "long", required=True).tolist() == [1, 2]
    for odd in (2.5, True, "2"):
        with pytest.raises(RequestRefusedError):
            columns.to_array("n", [odd], "long", required=True)
