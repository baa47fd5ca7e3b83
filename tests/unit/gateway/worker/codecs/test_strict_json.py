import contextlib
import json
import math
import time
import timeit
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.worker.codecs import strict_json
from gateway.worker.codecs.strict_json import MAX_DEPTH, InvalidJsonError, NotFiniteError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=20,
)


@given(value=values)
def test_what_is_written_is_read_again(value):
    written = strict_json.dumps(value)
    assert strict_json.loads(written) == json.loads(written) == value
    assert strict_json.loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nope",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"[-1e999]",
        b"1" + b"0" * 400,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'{"\\ud800": 1}',
        b"\xef\xbb\xbf1",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        "[1]".encode("utf-16"),
        b"[1,]",
        b"[01]",
        b"[1.]",
        b"{'a': 1}",
        b'"a\nb"',
        b"[1] 2",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 10_000,
        b'[{"a":' * 5_000,
        b'{"instances": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_the_contract_excludes_is_refused(body):
    with pytest.raises(InvalidJsonError):
        strict_json.loads(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551616", 1.8446744073709552e19),
        (b"-9223372036854775809", -9.223372036854776e18),
        (b"1e-999", 0.0),
        (b" [1 , 2.5e3 ] ", [1, 2500.0]),
        (b'"[[[[{{{{"', "[[[[{{{{"),
    ],
)
def test_the_edges_of_the_contract_are_read(body, value):
    read = strict_json.loads(body)
    assert read == value
    assert type(read) is type(value)


def test_the_depth_has_one_limit():
    assert strict_json.loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(InvalidJsonError):
        strict_json.loads(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    with pytest.raises(InvalidJsonError):
        strict_json.loads(b'[{"a":' * MAX_DEPTH + b"1" + b"}]" * MAX_DEPTH)
    many = [["[", "]]"], {"a": [1]}] * 100
    assert strict_json.loads(json.dumps(many).encode()) == many


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": (-math.inf,)}, "\ud800", object()])
def test_what_json_cannot_say_is_not_written(value):
    with pytest.raises(InvalidJsonError):
        strict_json.dumps(value)


def test_null_may_stand_for_a_number_that_is_not_finite():
    value: list[Any] = [1.5, math.nan, {"a": (math.inf, -math.inf), "b": [None, "NaN"]}]
    written = strict_json.dumps_with_nulls(value)
    assert strict_json.loads(written) == [1.5, None, {"a": [None, None], "b": [None, "NaN"]}]
    assert math.isnan(value[1])
    with pytest.raises(InvalidJsonError):
        strict_json.dumps_with_nulls(["\ud800", math.nan])


@pytest.mark.parametrize(
    ("value", "row"),
    [(math.nan, None), ([1.0, [None, math.inf]], 1), ({"a": [math.nan]}, None), ([math.nan], 0)],
)
def test_the_first_row_with_such_a_number_is_told(value, row):
    with pytest.raises(NotFiniteError) as caught:
        strict_json.dumps(value)
    assert caught.value.row == row


def test_whole_numbers_beyond_64_bits_are_written():
    written = b"[%d,1]" % 2**70
    assert strict_json.dumps([2**70, 1]) == strict_json.dumps_with_nulls([2**70, 1]) == written


near_json = st.text('[]{}",:0123456789.-eE\\u\\dabNn ', max_size=40).map(str.encode)


def _by_the_standard_library(body: bytes) -> Any:
    """Read ``body`` under the contract without ``orjson``; raise ValueError if it breaks it."""

    def refuse(_: str) -> None:
        raise ValueError

    def finite(text: str) -> float:
        if math.isfinite(value := float(text)):
            return value
        raise ValueError

    def whole(text: str) -> float:
        exact = int(text) if len(text) <= 20 else 2**64
        return exact if -(2**63) <= exact < 2**64 else finite(text)

    value = json.loads(body.decode(), parse_constant=refuse, parse_float=finite, parse_int=whole)
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is a ValueError here
    return value


@given(st.binary(max_size=60) | near_json)
def test_bytes_are_read_or_refused_as_by_the_standard_library(body):
    results = []
    for loads in (strict_json.loads, _by_the_standard_library):
        try:
            results.append(repr(loads(body)))
        except ValueError:
            results.append("refused")
    assert results[0] == results[1]


@pytest.mark.parametrize("piece", [b'\\"', b'"', b"\\\\", b'[{"a'])
def test_a_string_without_an_end_takes_no_longer_than_one_with_an_end(piece):
    opening = b"[" * (MAX_DEPTH + 1) + b'"'
    size = 100_000 // len(piece)

    def seconds(body):
        began = time.process_time()
        with pytest.raises(InvalidJsonError):
            strict_json.loads(body)
        return time.process_time() - began

    plain = min(seconds(opening + b"x" * 100_000 + b'"') for _ in range(3))
    assert seconds(opening + piece * size) < 1000 * plain + 1


def test_an_example_has_null_where_mlflow_writes_nan():
    repaired = strict_json.repair_example(b'{"data": [[0.5, NaN]]}')
    assert json.loads(repaired) == {"data": [[0.5, None]]}


@pytest.mark.parametrize("text", [b"", b"[Infinity]", b"[1e999]", b"\xff", b"[" * 100_000])
def test_an_example_that_no_caller_could_send_is_none(text):
    with pytest.raises(InvalidJsonError):
        strict_json.repair_example(text)


_TEXTS = st.text(alphabet='[]{}"\\a', max_size=12)
_NESTED = st.recursive(
    st.one_of(st.integers(0, 9), _TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=3)
    ),
    max_leaves=40,
)


def _levels_in(value):
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if held is None else 1 + max(map(_levels_in, held), default=0)


@given(_NESTED, st.integers(1, 8), st.integers(1, 70), st.booleans())
def test_the_depth_that_is_scanned_is_the_depth_that_there_is(value, levels, chunk_bytes, is_long):
    body, deep = json.dumps(value).encode(), _levels_in(value) > levels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(strict_json, "_SHORT_BYTES", -1 if is_long else len(body))
        with pytest.raises(InvalidJsonError) if deep else contextlib.nullcontext():
            strict_json.check_depth(body, levels)


_MANY = 4_000_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * _MANY,
        b"[" * (_MANY // 2) + b"]" * (_MANY // 2),
        (b"[" * 66 + b"]" * 66) * (_MANY // 132),
        b'{"a":' * (_MANY // 5),
        b"]" * _MANY,
        b'["' + b'\\"' * 100_000 + b'",' + b"[" * _MANY,
    ],
    ids=["opened", "balanced", "columns", "objects", "closed", "after a string"],
)
def test_too_deep_body_is_refused_cheaply(body):
    """A ratio within one run: numbers of as many bytes are read by the fastest decoder there is."""
    numbers = b"[" + b"1," * (_MANY // 2) + b"1]"
    reading_s = min(timeit.repeat(lambda: strict_json.loads(numbers), number=1, repeat=3))

    def refuse():
        with pytest.raises(InvalidJsonError):
            strict_json.loads(body)

    assert min(timeit.repeat(refuse, number=1, repeat=5)) < reading_s / 5
