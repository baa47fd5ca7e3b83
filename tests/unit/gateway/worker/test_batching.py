import numpy as np
import pytest
from hypothesis import given, strategies as st

from gateway.worker.batching import BatchLimits, WaitingRequest, assemble, key_of
from gateway.worker.protocol.messages import Predict
from gateway.worker.rows.inputs import COLUMNS, Inputs, join

LIMITS = BatchLimits(rows=10, bytes=100)


def waiting(
    id_: int,
    rows: int,
    *,
    column="x",
    dtype="float64",
    shape=(),
    params=None,
    probabilities=False,
    body_bytes=1,
):
    inputs = Inputs(
        COLUMNS, {column: np.full((rows, *shape), id_, dtype=dtype)}, rows, params or {}
    )
    request = Predict("predict", "application/json", 1.0, "r", probabilities=probabilities)
    return WaitingRequest(id_, request, inputs, 0.0, body_bytes, key_of(request, inputs))


requests = st.lists(
    st.builds(
        waiting,
        st.integers(0, 100),
        st.integers(1, 14),
        column=st.sampled_from(["x", "y"]),
        dtype=st.sampled_from(["float64", "float32"]),
        shape=st.sampled_from([(), (2,)]),
        body_bytes=st.integers(0, 120),
        params=st.sampled_from([{}, {"a": 1}]),
        probabilities=st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@given(requests, st.booleans())
def test_a_batch_is_bounded_compatible_and_loses_nobody(queue, joined):
    batch, rest = assemble(queue, limits=LIMITS, joined=joined)
    assert batch[0] is queue[0]
    assert sorted(map(id, batch + rest)) == sorted(map(id, queue))
    assert len({w.key for w in batch}) == 1
    rows, size = (sum(w.inputs.rows for w in batch), sum(w.body_bytes for w in batch))
    assert len(batch) == 1 or (joined and rows <= LIMITS.rows and size <= LIMITS.bytes)
    for part in (batch, rest):
        positions = [next(i for i, w in enumerate(queue) if w is one) for one in part]
        assert positions == sorted(positions)


def test_only_equal_columns_types_shapes_params_and_wishes_are_joined():
    first = waiting(0, 1)
    others = [
        waiting(1, 1, column="y"),
        waiting(2, 1, dtype="float32"),
        waiting(3, 1, params={"t": 1}),
        waiting(4, 1, probabilities=True),
        waiting(6, 1, shape=(3,)),
    ]
    batch, rest = assemble([first, *others, waiting(5, 2)], limits=LIMITS, joined=True)
    assert [w.id for w in batch] == [0, 5]
    assert [w.id for w in rest] == [1, 2, 3, 4, 6]
    assert join([w.inputs for w in batch]).arrays["x"].tolist() == [0, 5, 5]


@pytest.mark.parametrize(
    ("rows", "body_bytes", "joined"),
    [(7, 1, True), (8, 1, False), (1, 90, True), (1, 91, False)],
)
def test_a_batch_takes_what_fits_exactly_and_no_row_or_byte_more(rows, body_bytes, joined):
    first = waiting(0, 3, body_bytes=10)
    batch, rest = assemble(
        [first, waiting(1, rows, body_bytes=body_bytes)], limits=LIMITS, joined=True
    )
    assert ([one.id for one in batch], len(rest)) == (([0, 1], 0) if joined else ([0], 1))


def test_one_that_fits_goes_before_one_that_does_not():
    queue = [waiting(0, 3), waiting(1, 8), waiting(2, 7), waiting(3, 1)]
    batch, rest = assemble(queue, limits=LIMITS, joined=True)
    assert [one.id for one in batch] == [0, 2]
    assert [one.id for one in rest] == [1, 3]
