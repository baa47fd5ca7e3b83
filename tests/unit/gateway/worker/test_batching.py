import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.batching import Waiting, assemble, key_of
from gateway.worker.inputs import COLUMNS, Inputs, join
from gateway.worker.messages import Predict

MAX_ROWS = 10


def waiting(id_: int, rows: int, *, column="x", dtype="float64", params=None, probabilities=False):
    inputs = Inputs(COLUMNS, {column: np.full(rows, id_, dtype=dtype)}, rows, params or {})
    request = Predict("predict", "application/json", 1.0, "r", probabilities=probabilities)
    return Waiting(id_, request, inputs, 0.0, key_of(request, inputs))


requests = st.lists(
    st.builds(
        waiting,
        st.integers(0, 100),
        st.integers(1, 14),
        column=st.sampled_from(["x", "y"]),
        dtype=st.sampled_from(["float64", "float32"]),
        params=st.sampled_from([{}, {"a": 1}]),
        probabilities=st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@given(requests, st.booleans())
def test_a_batch_is_bounded_compatible_and_loses_nobody(queue, joined):
    batch, rest = assemble(queue, max_rows=MAX_ROWS, joined=joined)
    assert batch[0] is queue[0]
    assert sorted(map(id, batch + rest)) == sorted(map(id, queue))
    assert len({w.key for w in batch}) == 1
    assert len(batch) == 1 or (joined and sum(w.inputs.rows for w in batch) <= MAX_ROWS)
    for part in (batch, rest):
        positions = [next(i for i, w in enumerate(queue) if w is one) for one in part]
        assert positions == sorted(positions)


def test_only_equal_columns_types_params_and_wishes_are_joined():
    first = waiting(0, 1)
    others = [
        waiting(1, 1, column="y"),
        waiting(2, 1, dtype="float32"),
        waiting(3, 1, params={"t": 1}),
        waiting(4, 1, probabilities=True),
    ]
    batch, rest = assemble([first, *others, waiting(5, 2)], max_rows=MAX_ROWS, joined=True)
    assert [w.id for w in batch] == [0, 5]
    assert [w.id for w in rest] == [1, 2, 3, 4]
    assert join([w.inputs for w in batch]).arrays["x"].tolist() == [0, 5, 5]
