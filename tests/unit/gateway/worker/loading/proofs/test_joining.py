"""How many rows are joined: as many as were proved together, found out twice as many at a time."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gateway.worker.loading import perturbation
from gateway.worker.loading.proofs import joining
from gateway.worker.loading.proofs.proof import JOINED, Proof
from gateway.worker.rows.inputs import COLUMNS, Inputs
from tests.fakes.asked import ask_all


def numbers(*values: float) -> Inputs:
    return Inputs(COLUMNS, {"x": np.array(values)}, len(values))


EXAMPLE = numbers(1.0, 2.5)


def widened(*calls: Any, most: int = 1024, start: int = 6) -> Proof:
    proof = Proof(batching=JOINED, batching_reason="proved", joined_rows=start)
    far = perturbation.vary_far(EXAMPLE, whole=False)
    ask_all(joining.widen(calls, perturbation.vary(EXAMPLE), far, proof, most))
    return proof


def doubling(inputs: Inputs) -> Any:
    return 2 * inputs.arrays["x"]


def centred_from(rows: int) -> Any:
    def call(inputs: Inputs) -> Any:
        x = inputs.arrays["x"]
        return x - x.mean() if inputs.rows >= rows else x

    return call


@pytest.mark.parametrize("most", [7, 48, 1000, 1024])
@pytest.mark.parametrize(
    "call",
    [
        doubling,
        lambda i: doubling(i).tolist(),
        lambda i: pd.DataFrame({"y": doubling(i)}),
        lambda i: pd.Series(doubling(i), index=range(i.rows, 0, -1)),
    ],
    ids=["array", "list", "frame", "series"],
)
def test_rows_that_do_not_influence_each_other_are_joined_up_to_the_limit(
    call: Any, most: int
) -> None:
    proof = widened(call, most=most)
    assert (proof.joined_rows, proof.stopped_at) == (most, 0)


@pytest.mark.parametrize("threshold", [7, 12, 13, 21, 100, 1024])
def test_rows_that_do_from_a_number_on_are_joined_below_it(threshold: int) -> None:
    proof = widened(centred_from(threshold))
    assert proof.joined_rows < threshold <= proof.stopped_at
    assert "the rows influence each other" in proof.batching_reason


def test_what_is_never_asked_for_is_not_proved() -> None:
    assert widened(centred_from(1025)).joined_rows == 1024


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (lambda x: np.zeros(len(x)), "influence"),
        (lambda x: x[::-1], "influence"),
        (np.sort, "influence"),
        (lambda x: x[:100], "one per row"),
        (lambda x: float(x.sum()), "one per row"),
        (lambda _: np.linalg.inv(np.zeros((2, 2))), "cannot be predicted: LinAlgError"),
    ],
    ids=["zeros", "reversed", "sorted", "cut", "scalar", "raises"],
)
def test_whatever_goes_wrong_with_many_rows_is_the_end_of_it(odd: Any, reason: str) -> None:
    proof = widened(lambda i: odd(i.arrays["x"]) if i.rows > 100 else i.arrays["x"])
    assert (proof.joined_rows, proof.stopped_at) == (96, 192)
    assert reason in proof.batching_reason
    assert proof.batching_reason.startswith("proved; ")


def test_probabilities_have_a_say() -> None:
    proof = widened(doubling, centred_from(200))
    assert (proof.joined_rows, proof.stopped_at) == (192, 384)


def once(raised: Exception, then: Any, at: int = 1) -> Any:
    """A call that raises the ``at``-th time, and answers every other time."""
    asked = []

    def call(inputs: Inputs) -> Any:
        asked.append(inputs.rows)
        if len(asked) == at:
            raise raised
        return then(inputs)

    return call


@pytest.mark.parametrize("other", ["serves", "beside"])
def test_a_call_that_raises_on_what_is_proved_widens_nothing(other: str) -> None:
    """What it answers to many rows was never compared, and it may be what serves."""
    odd = once(ValueError("once"), centred_from(21))
    proof = widened(odd, doubling) if other == "serves" else widened(doubling, odd)
    assert (proof.joined_rows, proof.stopped_at) == (6, 6)
    assert "called again, they cannot be predicted: ValueError" in proof.batching_reason
    proof = widened(lambda i: doubling(i)[:1])
    assert (proof.joined_rows, proof.stopped_at) == (6, 6)
    assert "called again, the answers are not one per row" in proof.batching_reason


def test_what_the_model_does_not_bear_is_not_mixed_in() -> None:
    def choosy(inputs: Inputs) -> Any:
        if (np.abs(inputs.arrays["x"]) > 500).any():
            raise ValueError("too far")
        return inputs.arrays["x"]

    assert widened(choosy).joined_rows == 1024


def test_rows_that_are_far_off_show_what_others_do_not() -> None:
    def outliers(inputs: Inputs) -> Any:
        x = inputs.arrays["x"]
        many = inputs.rows >= 21
        return np.minimum(x, np.mean(x)) if many and x.max() > 50 else x

    assert widened(outliers).joined_rows < 21


def test_picked_rows_are_the_same_every_time_and_few_are_far_off() -> None:
    picked = joining.pick(400, 6, 10)
    assert picked == joining.pick(400, 6, 10)
    assert set(picked) == set(range(10))
    assert 50 < sum(row >= 6 for row in picked) < 150
    assert max(joining.pick(400, 6, 6)) == 5


@pytest.mark.parametrize(("arrays", "body", "size"), [(16, 10, 8), (16, 100, 50), (0, 0, 1)])
def test_a_row_is_as_large_as_its_arrays_or_its_body(arrays: int, body: int, size: int) -> None:
    example = Inputs(COLUMNS, {"x": np.zeros(arrays, dtype="uint8")}, 2)
    assert joining.row_bytes(example, body) == size


@pytest.mark.parametrize(
    ("likely", "proved"),
    [
        (doubling, True),
        (once(ValueError("once"), np.cumsum), False),
        (lambda i: doubling(i)[:1], False),
        (None, False),
    ],
    ids=["each", "raises once", "fewer", "none"],
)
def test_probabilities_are_proved_only_if_they_answer_the_example(
    likely: Any, proved: bool
) -> None:
    proof, varied = Proof(), perturbation.vary(EXAMPLE)
    own = doubling(EXAMPLE)
    ask_all(joining.prove([doubling], varied, [], own, proof, probabilities=likely))
    assert (proof.batching, proof.probabilities_joined) == (JOINED, proved)


def test_as_many_rows_are_joined_as_the_smallest_call_had() -> None:
    def choosy(inputs: Inputs) -> Any:
        x = inputs.arrays["x"]
        if x.min() < 0 and x.max() > 100:
            raise ValueError("too far from each other")
        return 2 * x

    proof, far = Proof(), [numbers(-10.0), numbers(200.0, 300.0)]
    ask_all(joining.prove([choosy], [EXAMPLE], far, choosy(EXAMPLE), proof))
    assert (proof.batching, proof.joined_rows) == (JOINED, 1 + EXAMPLE.rows + 1)


def test_an_answer_that_cannot_be_read_proves_no_joining() -> None:
    class Odd:
        def tolist(self) -> None:
            raise RuntimeError("no")

    proof, varied = Proof(), perturbation.vary(EXAMPLE)
    ask_all(joining.prove([lambda i: [Odd()] * i.rows], varied, [], [Odd(), Odd()], proof))
    assert proof.batching == "alone"
    assert proof.batching_reason == "joined rows cannot be compared: RuntimeError"
