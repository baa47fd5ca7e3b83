"""What warm-up asks of a model, and in what time. Models are functions, and so is the time."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.worker.loading.proofs import warm_up
from gateway.worker.loading.proofs.background import Background
from gateway.worker.loading.proofs.proof import MAX_LOST, UNPROVED, Proof, libraries, parse
from gateway.worker.loading.proofs.prover import Pace, Prover
from gateway.worker.protocol.messages import Load, Message, Proved, Proving
from gateway.worker.rows import signature as rules
from gateway.worker.served_model import ServedModel

SIGNATURE = rules.Signature(columns=(rules.Column("x", "double"),))
EXAMPLE = b'{"inputs": {"x": [1.0, 2.5]}}'
ORDER = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {}, max_batch_rows=96)


class World:
    """A model whose calls take time, by a clock that nothing else moves."""

    def __init__(self, seconds: Callable[[int], float], answer: Any = None) -> None:
        self.now = 0.0
        self.calls: list[int] = []
        self.told: list[Message] = []
        self._seconds = seconds
        self._answer = answer or (lambda x: 2 * x)

    def call(self, inputs: Any) -> Any:
        self.calls.append(inputs.rows)
        self.now += self._seconds(inputs.rows)
        return self._answer(inputs.arrays["x"])

    def warm(self, order: Load = ORDER, example: bytes = EXAMPLE) -> tuple[Proof, Prover]:
        """Do as a load does; return what is proved, and what is left to prove."""
        self.calls.clear()
        model = ServedModel("m", 1, SIGNATURE, self.call)
        proof = warm_up.kept(order)
        prover = warm_up.warm(model, None, order, example, proof=proof, clock=lambda: self.now)
        warm_up.run(prover, proof, order.proof_budget_s, self.told.append)
        return proof, prover


def kept(proof: Proof, order: Load = ORDER) -> Load:
    """The order for the next worker, as the gateway makes it of what it was told."""
    return replace(order, proof=json.loads(json.dumps(proof.as_header())))


def test_a_quick_model_is_proved_whole_and_the_next_worker_asks_it_once() -> None:
    world = World(lambda _: 0.001)
    proof, prover = world.warm()
    assert prover.over
    assert (proof.answers, proof.batching, proof.joined_rows) == ("per_row", "joined", 96)
    assert (proof.call_path_reason, proof.decided) == ("this loader has no fast path", True)
    assert len(world.calls) < 20
    assert [type(one) for one in world.told] == [Proving, Proving, Proved]
    decided = parse(world.told[1].proof)  # type: ignore[union-attr]  # it is a Proving
    assert decided == replace(proof, joined_rows=6, lost=1)
    again, prover = world.warm(kept(proof))
    assert (again, prover.over, world.calls) == (proof, True, [2])


def test_what_is_done_but_once_is_not_expected_of_every_call() -> None:
    """The first call imports, compiles, allocates."""
    world = World(lambda _: 2.9 if len(world.calls) == 1 else 0.001)
    proof, prover = world.warm()
    assert (proof.joined_rows, prover.over) == (96, True)


@pytest.mark.parametrize("seconds", [3.1, 9.0, 10.0, 100.0])
def test_a_slow_model_is_asked_once_and_its_requests_go_alone(seconds: float) -> None:
    world = World(lambda _: seconds)
    proof, prover = world.warm()
    assert world.calls == [2]
    assert (proof.answers, proof.batching, proof.decided) == ("unknown", "alone", False)
    assert proof.batching_reason.startswith(f"{UNPROVED}: after 0 s the next call would take about")
    assert proof.batching_reason.endswith("GATEWAY_PROOF_BUDGET_S is 3")
    assert proof.call_path_reason == "this loader has no fast path"
    background = Background(prover, proof, 3.0, world.told.append)
    assert background.pause_s is None
    assert not background.over, "requests may show that it is quick now"
    again, _ = world.warm(kept(proof))
    assert (again, world.calls) == (proof, [2])


def test_a_proof_that_is_stopped_by_time_is_not_begun_by_the_next_worker() -> None:
    world = World(lambda _: 0.9)
    proof, _ = world.warm()
    assert world.calls == [2, 2], "a joined call may take three times as long as one alone"
    again, _ = world.warm(kept(proof))
    assert (again, world.calls) == (proof, [2])


@pytest.mark.parametrize("row_s", [0.03, 0.05, 0.18, 0.19])
@pytest.mark.parametrize("kind", ["floats", "one", "whole"])
def test_the_budget_is_kept_where_a_call_takes_as_long_as_it_has_rows(
    row_s: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first joined call has three times as many rows as the example."""
    world = World(lambda rows: row_s * rows)
    values = {"floats": [float(n) for n in range(1, 17)], "one": [1], "whole": list(range(16))}
    if kind != "floats":
        whole = rules.Signature(columns=(rules.Column("x", "long"),))
        monkeypatch.setitem(globals(), "SIGNATURE", whole)
    _, prover = world.warm(example=json.dumps({"inputs": {"x": values[kind]}}).encode())
    assert prover.spent_s <= ORDER.proof_budget_s


def test_more_time_than_there_was_is_another_try() -> None:
    world = World(lambda _: 0.9)
    proof, _ = world.warm()
    more = replace(ORDER, proof_budget_s=60.0)
    again, _ = world.warm(kept(proof, more))
    assert (again.batching, again.budget_s) == ("joined", 60.0)
    less, _ = world.warm(kept(again, replace(ORDER, proof_budget_s=1.0)))
    assert (less, world.calls) == (again, [2])


def test_no_time_proves_nothing_but_what_was_proved_holds() -> None:
    world = World(lambda _: 0.001)
    none = replace(ORDER, proof_budget_s=0.0)
    proof, _ = world.warm(none)
    assert world.calls == [2]
    assert proof.batching_reason == f"{UNPROVED}: GATEWAY_PROOF_BUDGET_S is 0"
    proved, _ = world.warm(kept(proof))
    assert proved.batching == "joined"
    again, _ = world.warm(kept(proved, none))
    assert (again, world.calls) == (proved, [2])


def test_many_rows_are_proved_in_the_background_where_they_take_long() -> None:
    world = World(lambda rows: 0.01 * rows)
    proof, prover = world.warm()
    assert proof.decided
    assert proof.joined_rows < 96
    assert not prover.over
    spent = prover.spent_s
    assert spent <= 3.0
    again, _ = world.warm(kept(proof))
    assert (again, world.calls) == (proof, [2]), "nor does the next worker's warm-up"


def test_workers_that_each_begin_a_proof_anew_share_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is evicted after two calls in the background."""
    whole = rules.Signature(columns=(rules.Column("x", "long"),))
    monkeypatch.setitem(globals(), "SIGNATURE", whole)
    example = json.dumps({"inputs": {"x": list(range(16))}}).encode()
    world, proof, calls = World(lambda _: 0.29), Proof(), []
    for _ in range(150):
        proof, prover = world.warm(kept(proof), example)
        background = Background(prover, proof, 3.0, world.told.append, clock=lambda: world.now)
        for _ in range(2):
            if background.pause_s is not None:
                background.step()
        calls.append(len(world.calls))
    assert calls[:3] == [2, 2, 2]
    assert calls[-40:] == [1] * 40, "only the example"
    assert proof.spent_s <= 30.0
    assert (proof.decided, proof.batching) == (False, "alone")


@pytest.mark.parametrize(
    "order",
    [
        kept(Proof(made_with="other", batching="joined", joined_rows=96, decided=True)),
        replace(ORDER, proof={"batching": "joined"}),
        replace(ORDER, proof={}),
        replace(ORDER, proof=Proof(decided=True, lost=9).as_header()),
    ],
    ids=["other libraries", "other fields", "nothing", "out of bounds"],
)
def test_a_proof_that_is_none_or_of_other_libraries_is_made_anew(order: Load) -> None:
    world = World(lambda _: 0.001, answer=lambda x: x - x.mean())
    proof, _ = world.warm(order)
    assert (proof.batching, proof.batching_reason) == ("alone", "rows influence each other")
    assert proof.made_with == libraries({}, platform.python_version())


def test_before_a_proof_is_told_what_holds_if_it_does_not_end() -> None:
    world = World(lambda _: 0.001)
    world.warm()
    begun = world.told[0]
    assert isinstance(begun, Proving)
    lost = parse(begun.proof)
    assert lost is not None
    assert (lost.lost, lost.batching) == (1, "alone")
    proof, _ = world.warm(replace(ORDER, proof=begun.proof))
    assert proof.batching == "joined", "a worker may end by chance"
    second = parse(world.told[3].proof)  # type: ignore[union-attr]  # it is a Proving
    assert second is not None
    assert second.lost == MAX_LOST
    world.told.clear()
    proof, prover = world.warm(kept(second))
    assert (world.calls, world.told, prover.over) == ([2], [], True)
    assert proof.batching == "alone"
    assert "workers ended, did not come back" in proof.batching_reason


def test_what_is_proved_stays_when_workers_end_while_they_prove_more() -> None:
    world = World(lambda rows: 0.01 * rows)
    proof, _ = world.warm()
    lost = replace(proof, lost=MAX_LOST)
    again, prover = world.warm(kept(lost))
    assert again == replace(lost, batching_reason=again.batching_reason)
    told = "no more rows are proved yet: workers ended, did not come back"
    assert told in again.batching_reason
    assert prover.over


def failing(error: Exception, *at: int, rows: int = 0) -> World:
    """A model that raises in its calls with these numbers, or with so many rows."""
    calls = []

    def answer(x: Any) -> Any:
        calls.append(len(x))
        if len(calls) in at or len(x) == rows:
            raise error
        return 2 * x

    return World(lambda _: 0.001, answer)


@pytest.mark.parametrize("error", [ConnectionError("once"), MemoryError(), TimeoutError()])
def test_a_fault_that_passes_is_not_kept(error: Exception) -> None:
    world = failing(error, 2)
    proof, prover = world.warm()
    assert prover.over
    assert (proof.decided, proof.lost, proof.budget_s) == (False, 1, 0.0)
    assert proof.batching_reason == (
        f"{UNPROVED}: a call met {type(error).__name__}, which may pass"
    )
    again, _ = world.warm(kept(proof))
    assert (again.batching, again.joined_rows, again.decided) == ("joined", 96, True)
    assert again.batching_reason == "the input example answers the same alone and joined"


def test_a_fault_that_does_not_pass_is_kept() -> None:
    world = failing(ValueError("no"), 2)
    proof, _ = world.warm()
    assert (proof.decided, proof.batching, proof.lost) == (True, "alone", 0)
    again, _ = world.warm(kept(proof))
    assert (again, len(world.calls)) == (proof, 1)


def test_a_fault_in_many_rows_leaves_what_is_proved_and_is_met_twice_at_most() -> None:
    world = failing(MemoryError(), rows=48)
    proof, _ = world.warm()
    assert (proof.decided, proof.joined_rows, proof.stopped_at, proof.lost) == (True, 24, 0, 1)
    assert proof.batching_reason.endswith(
        "no more rows are proved yet: a call met MemoryError, which may pass"
    )
    proof, prover = world.warm(kept(proof))
    background = Background(prover, proof, 3.0, world.told.append, clock=lambda: world.now)
    while not background.over:
        background.step()
    told = world.told[-1]
    assert isinstance(told, Proved)
    assert (told.proof["joined_rows"], told.proof["lost"]) == (24, MAX_LOST)
    again, prover = world.warm(kept(proof))
    assert (prover.over, again.joined_rows, world.calls) == (True, 24, [2])


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: np.arange(5.0) + x.sum(),
        lambda x: float(x.sum()),
        lambda x: sorted(x)[:1],
        lambda x: {"all": x.tolist()},
    ],
    ids=["forecast", "scalar", "best", "object"],
)
def test_an_answer_that_is_not_one_per_row_is_settled_by_the_example(answer: Any) -> None:
    world = World(lambda _: 0.001, answer)
    proof, prover = world.warm()
    assert world.calls == [2]
    assert (proof.answers, proof.batching) == ("whole", "alone")
    assert proof.batching_reason == "the answers are not one per row"
    assert prover.over


def test_an_example_of_as_many_rows_as_its_forecast_is_seen_through() -> None:
    world = World(lambda _: 0.001, lambda x: np.arange(2.0) + x.sum())
    proof, _ = world.warm()
    assert (proof.answers, proof.batching) == ("whole", "alone")
    assert len(world.calls) == 3


def test_a_model_without_an_example_says_why_nothing_is_proved() -> None:
    model = ServedModel("m", 1, SIGNATURE, lambda i: i)
    proof = Proof()
    prover = warm_up.warm(model, None, ORDER, None, proof=proof, clock=lambda: 0.0)
    assert prover.over
    assert (proof.batching, proof.answers, proof.decided) == ("alone", "unknown", True)
    assert proof.batching_reason == "there is no input example to prove joining"


@pytest.mark.parametrize(
    ("took", "rows", "expected"),
    [
        ({}, 5, 7.0),
        ({2: 1.0}, 2, 1.0),
        ({2: 1.0}, 6, 3.0),
        ({2: 1.0, 6: 1.2}, 12, 2.4),
        ({8: 1.0}, 2, 1.0),
    ],
)
def test_expected_time_is_proportional_to_the_largest_smaller_call(
    took: dict[int, float], rows: int, expected: float
) -> None:
    pace = Pace(7.0)
    for number, seconds in took.items():
        pace.took(number, seconds)
    assert pace.expected_s(rows) == pytest.approx(expected)


def test_of_the_last_calls_of_a_size_the_quickest_counts() -> None:
    pace = Pace()
    for seconds in (0.1, 5.0, 7.0):
        pace.took(2, seconds)
    assert pace.expected_s(2) == 0.1
    pace.took(2, 6.0)
    assert pace.expected_s(2) == 5.0, "the model may have become slow"


def test_a_slow_call_is_forgotten_after_many_others() -> None:
    pace = Pace()
    pace.took(10, 1.0)
    for _ in range(200):
        pace.took(6, 0.001)
    assert pace.expected_s(12) == pytest.approx(1.2)
    for _ in range(100):
        pace.took(6, 0.001)
    assert pace.expected_s(12) == pytest.approx(0.002)


def test_what_is_known_of_calls_is_bounded() -> None:
    pace = Pace()
    for rows in range(1, 10_000):
        pace.took(rows, 1.0)
    assert len(pace._took) == 64
