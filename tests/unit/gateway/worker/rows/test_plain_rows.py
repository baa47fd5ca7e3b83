"""Plain values take a short cut; what comes out is what the long way gives."""

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from gateway.worker.errors import RequestRefusedError
from gateway.worker.rows import signature as rules, tables
from gateway.worker.rows.inputs import join
from gateway.worker.rows.plain_rows import PlainRows

KINDS = ["double", "float", "long", "integer", "boolean", "string"]
EDGES = [2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63), 2**53 + 1]
FLOAT_EDGES = [3.4028234663852886e38, 3.4028235677973362e38, 3.5e38, -1e39, 1e308, -0.0, 0.1]
values = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from(EDGES),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(FLOAT_EDGES),
    st.booleans(),
    st.text(max_size=3),
    st.none(),
)
given_columns = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(values, min_size=1, max_size=4))
)


def signature(*kinds, plain=True):
    columns = [rules.Column(f"c{n}", kind) for n, kind in enumerate(kinds)]
    made = rules.Signature(columns=tuple(columns))
    if not plain:
        made.__dict__["plain"] = None  # where `cached_property` keeps it
    return made


def outcome(kind, given, *, plain):
    try:
        rows = tables.from_columns(signature(kind, plain=plain), {"c0": given}, len(given))
    except RequestRefusedError as refusal:
        return refusal.details
    array = join([rows]).arrays["c0"]
    return array.dtype, array.tolist(), [type(value) for value in array.tolist()]


@given(given_columns)
@example(("float", [3.4028235677973362e38]))
@example(("long", [2**63]))
@example(("double", [True]))
def test_the_short_way_reads_what_the_long_one_does(table):
    kind, given_values = table
    assert outcome(kind, given_values, plain=True) == outcome(kind, given_values, plain=False)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_values_take_the_short_way(kind):
    value = {"boolean": True, "string": "a"}.get(kind, 1)
    assert isinstance(tables.from_columns(signature(kind), {"c0": [value]}, 1), PlainRows)


def test_joined_rows_keep_their_order_and_columns():
    made = signature("double", "string")
    parts = [
        tables.from_rows(made, ["c1", "c0"], [[f"{n}", n] for n in numbers])
        for numbers in ([1], [2, 3], [4])
    ]
    assert len({part.joins_with() for part in parts}) == 1
    joined = join(parts)
    assert list(joined.arrays) == ["c0", "c1"]
    np.testing.assert_array_equal(joined.arrays["c0"], [1.0, 2.0, 3.0, 4.0])
    assert joined.arrays["c1"].tolist() == ["1", "2", "3", "4"]
    assert joined.rows == 4


def test_other_columns_are_not_joined():
    one = tables.from_columns(signature("double"), {"c0": [1]}, 1)
    other = tables.from_columns(signature("double", "double"), {"c0": [1], "c1": [1]}, 1)
    assert one.joins_with() != other.joins_with()
