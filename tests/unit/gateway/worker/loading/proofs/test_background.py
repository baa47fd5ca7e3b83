"""What is proved while no request waits, and what is not: over a real socket, by our clock."""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gateway.worker.batching import BatchLimits
from gateway.worker.loading import perturbation
from gateway.worker.loading.load import LoadedModel
from gateway.worker.loading.proofs import joining
from gateway.worker.loading.proofs.background import Background
from gateway.worker.loading.proofs.proof import JOINED, PER_ROW, Proof
from gateway.worker.loading.proofs.prover import Pace, Prover, Question
from gateway.worker.protocol.connection import Connection
from gateway.worker.protocol.frames import Frame, FrameReader, pack
from gateway.worker.protocol.messages import Kind, Loaded, Predict, Probe, Stop, encode_header
from gateway.worker.rows import signature as rules
from gateway.worker.rows.inputs import COLUMNS, Inputs
from gateway.worker.served_model import ServedModel
from gateway.worker.serving_loop import ServingLoop

EXAMPLE = Inputs(COLUMNS, {"x": np.array([1.0, 2.5])}, 2)
SIGNATURE = rules.Signature(columns=(rules.Column("x", "double"),))


class Clock:
    now = 0.0


class Model:
    """Doubles; a call takes as long as it is told to. What is called is noted."""

    def __init__(self, seconds: Any = lambda _: 0.0, answer: Any = lambda x: 2 * x) -> None:
        self.clock = Clock()
        self.computes = 1.0
        self.calls: list[int] = []
        self._seconds, self._answer = seconds, answer

    def __call__(self, inputs: Inputs) -> Any:
        self.calls.append(inputs.rows)
        self.clock.now += self._seconds(inputs.rows)
        return self._answer(inputs.arrays["x"])


def proving(model: Model, most: int = 96) -> tuple[Prover, Proof]:
    """A proof of few rows that is done, and one of many that is left."""
    proof = Proof(answers=PER_ROW, batching=JOINED, joined_rows=6, decided=True, budget_s=3.0)
    pace = Pace(model._seconds(2))
    asking = joining.widen([model], perturbation.vary(EXAMPLE), [], proof, most)
    clocks = (lambda: model.clock.now, lambda: model.clock.now * model.computes)
    return Prover(asking, pace, *clocks), proof


class Serving:
    """A loop with something left to prove, and the gateway's end of its socket."""

    def __init__(self, model: Model, budget_s: float = 3.0, most: int = 96) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(30)
        connection = Connection(self.theirs)
        prover, self.proof = proving(model, most)
        self.background = Background(
            prover,
            self.proof,
            budget_s,
            lambda message: connection.send([(0, message, b"")]),
            clock=lambda: model.clock.now,
        )
        report = Loaded(1, {}, "passed", "", "", "", "")
        served = ServedModel("m", 1, SIGNATURE, model)
        served.proved_form = EXAMPLE.form()
        loaded = LoadedModel(served, report, None, self.proof, self.background)
        self.loop = ServingLoop(connection, loaded, BatchLimits(1024, 10**6))

    def send(self, *frames: tuple[int, int, bytes, bytes]) -> None:
        self.ours.sendall(b"".join(b"".join(pack(*frame)) for frame in frames))

    def said(self) -> list[Frame]:
        """What the worker has said by now."""
        frames, reader = [], FrameReader()
        while select.select([self.ours], [], [], 0)[0]:
            frames += reader.feed(self.ours.recv(1 << 20))
        return frames

    def idle(self, times: int) -> None:
        """Let it wait for a frame that does not come."""
        for _ in range(times):
            self.loop._await_or_prove(self.background)


@pytest.fixture
def serve() -> Iterator[Any]:
    made: list[Serving] = []

    def make(*arguments: Any, idle: int = 0, **named: Any) -> Serving:
        made.append(Serving(*arguments, **named))
        made[-1].idle(idle)
        return made[-1]

    yield make
    for one in made:
        one.ours.close()
        one.theirs.close()


def request(id_: int, *values: float) -> tuple[int, int, bytes, bytes]:
    header = encode_header(Predict("predict", "application/json", 1e12, "r"))
    return Kind.PREDICT, id_, header, json.dumps({"inputs": {"x": values}}).encode()


STOP = (Kind.STOP, 0, encode_header(Stop()), b"")


def test_it_goes_on_by_one_call_when_nothing_waits_and_joining_widens(serve: Any) -> None:
    model = Model()
    serving = serve(model)
    widths = []
    for _ in range(5):
        serving.idle(1)
        widths.append(serving.loop._limits.rows)
    assert model.calls == [6, 12, 24, 48, 96]
    assert widths == [6, 12, 24, 48, 96]
    assert serving.loop._background is None
    said = serving.said()
    assert [one.kind for one in said] == [Kind.PROVING, Kind.PROVED] * 5
    begun, proved = json.loads(said[-2].header)["proof"], json.loads(said[-1].header)["proof"]
    assert (begun["joined_rows"], begun["lost"]) == (48, 1)
    assert (proved["joined_rows"], proved["lost"]) == (96, 0)


def test_it_does_not_while_requests_wait(serve: Any) -> None:
    model = Model()
    serving = serve(model)
    serving.send(*(request(n, 1.0, 2.0) for n in range(1, 10)), STOP)
    serving.loop.run()
    assert model.calls == [6, 6, 6]
    assert serving.background.proof.joined_rows == 6


def test_beside_requests_that_wait_short_calls_take_a_tenth_of_the_time(serve: Any) -> None:
    """Or a worker that is never idle would join too few rows for ever."""
    model = Model(lambda rows: 0.001)
    serving = serve(model, most=12)
    serving.loop._clock = lambda: model.clock.now
    serving.send(*(request(n, 1.0, 2.0) for n in range(1, 200)), STOP)
    serving.loop.run()
    assert serving.proof.joined_rows == 12
    first = next(n for n, rows in enumerate(model.calls) if rows > 6)
    assert first >= 18, "two steps, and nine batches before each"
    assert max(model.calls) == 12


def test_beside_requests_that_wait_no_call_is_long(serve: Any) -> None:
    model = Model(lambda rows: 0.05)
    serving = serve(model)
    serving.loop._clock = lambda: model.clock.now
    serving.send(*(request(n, 1.0, 2.0) for n in range(1, 200)), STOP)
    serving.loop.run()
    assert set(model.calls) == {2, 6}, "the last request is alone"


def test_a_frame_that_comes_is_taken_first(serve: Any) -> None:
    model = Model()
    serving = serve(model)
    serving.send((Kind.PROBE, 3, encode_header(Probe()), b""))
    serving.idle(1)
    assert model.calls == []
    assert [one.kind for one in serving.said()] == [Kind.ALIVE]


def test_it_waits_as_long_as_a_call_will_take(serve: Any) -> None:
    model = Model(lambda _: 0.2)
    serving = serve(model, budget_s=60.0)
    assert serving.background.pause_s == pytest.approx(0.2)
    began = time.monotonic()
    serving.idle(1)
    assert time.monotonic() - began >= 0.2
    assert model.calls == [6]


def test_half_a_frame_does_not_end_the_pause(serve: Any) -> None:
    """The rest of it may be about to come: its caller would wait for the call."""
    model = Model(lambda _: 0.5)
    serving = serve(model, budget_s=60.0)
    whole = b"".join(pack(*request(1, *([1.0] * 1000))))
    timers = [
        threading.Timer(0.05, serving.ours.sendall, [whole[:1000]]),
        threading.Timer(0.2, serving.ours.sendall, [whole[1000:]]),
    ]
    for timer in timers:
        timer.start()
    serving.idle(1)
    assert model.calls == []
    assert [one.id for one in serving.loop._waiting] == [1]
    for timer in timers:
        timer.join()


@pytest.mark.parametrize(("seconds", "rows"), [(0.05, 96), (0.2, 6), (0.31, 6), (10.0, 6)])
def test_a_model_that_callers_would_wait_for_is_not_proved_further(
    serve: Any, seconds: float, rows: int
) -> None:
    """A call may take a tenth of the budget: 0.3 s."""
    model = Model(lambda _: seconds)
    serving = serve(model)
    while serving.background.pause_s is not None:
        serving.loop._prove(serving.background)
    assert serving.proof.joined_rows == rows
    assert max([0.0, *(model._seconds(one) for one in model.calls)]) <= 0.3


@pytest.mark.parametrize(("timeout_s", "rows"), [(30.0, 96), (1.01, 96), (0.99, 6)])
def test_a_call_takes_no_more_than_a_tenth_of_the_models_time_out(
    timeout_s: float, rows: int
) -> None:
    model = Model(lambda _: 0.05)
    prover, proof = proving(model)
    background = Background(
        prover, proof, 3.0, lambda _: None, timeout_s=timeout_s, clock=lambda: model.clock.now
    )
    while background.pause_s is not None:
        background.step()
    assert proof.joined_rows == rows


def test_requests_tell_that_it_is_quick_after_all(serve: Any) -> None:
    model = Model(lambda _: 10.0)
    serving = serve(model)
    assert serving.background.pause_s is None
    model._seconds = lambda _: 0.001
    serving.loop._clock = lambda: model.clock.now
    serving.send(request(1, 1.0, 2.0), STOP)
    serving.loop.run()
    assert serving.background.pause_s == pytest.approx(0.003)


def test_a_call_that_takes_far_longer_than_was_expected_is_the_workers_last(serve: Any) -> None:
    """Compilers that begin anew for another number of rows do that; a busy machine does it once."""
    model = Model(lambda rows: 5.0 if rows == 24 else 0.001)
    serving = serve(model, idle=3)
    assert serving.loop._background is None
    assert (serving.proof.joined_rows, serving.proof.stopped_at) == (24, 0)
    assert serving.proof.lost == 1
    told = json.loads(serving.said()[-1].header)["proof"]
    assert (told["joined_rows"], told["lost"]) == (24, 1)
    assert told["batching_reason"].endswith(
        "no more rows are proved yet: calls took 5 s, the last one 5 s"
    )


def test_a_machine_that_is_busy_with_something_else_is_forgiven_once(serve: Any) -> None:
    model = Model(lambda rows: 5.0 if rows == 24 else 0.001)
    model.computes = 0.01
    serving = serve(model, idle=5)
    assert (serving.proof.joined_rows, serving.proof.lost) == (96, 0)
    model._seconds = lambda rows: 5.0 if rows in {12, 24} else 0.001
    serving = serve(model, idle=3)
    assert serving.loop._background is None
    assert (serving.proof.joined_rows, serving.proof.lost) == (24, 0)


@pytest.mark.parametrize("seconds", [0.5, 0.2])
def test_a_call_during_which_the_machine_was_busy_says_nothing_of_the_next(
    serve: Any, seconds: float
) -> None:
    """Also if callers may wait for it, but not for the next, which would be expected longer."""
    model = Model(lambda rows: seconds if rows == 12 else 0.001)
    model.computes = 0.01
    serving = serve(model, idle=5)
    assert (serving.proof.joined_rows, serving.loop._background) == (96, None)
    assert serving.proof.batching_reason == "it is not proved", "nothing is left to say"


def test_a_call_that_computes_for_so_long_is_the_last_and_the_proof_says_why(serve: Any) -> None:
    model = Model(lambda rows: 0.5 if rows == 12 else 0.001)
    serving = serve(model, idle=2)
    assert serving.background.pause_s is None
    told = json.loads(serving.said()[-1].header)["proof"]
    assert (told["joined_rows"], told["stopped_at"], told["lost"]) == (12, 0, 0)
    assert told["batching_reason"].endswith(
        "no more rows are proved yet: "
        "a call of 24 rows would take about 1 s, and callers may wait for 0.3 s"
    )
    for _ in range(300):
        serving.background.saw(6, 0.001)
    assert serving.background.pause_s == pytest.approx(0.004)
    serving.loop._prove(serving.background)
    assert "no more rows" not in serving.proof.batching_reason


def test_all_calls_together_have_a_budget() -> None:
    model = Model(lambda _: 0.25)
    told: list[Any] = []

    def endless() -> Any:
        while True:
            yield Question(model, EXAMPLE)

    def clock() -> float:
        return model.clock.now

    background = Background(Prover(endless(), Pace(), clock, clock), Proof(), 3.0, told.append)
    while background.pause_s is not None:
        background.step()
    assert background.over
    assert 29 < model.clock.now <= 30


def test_an_influence_that_begins_with_many_rows_leaves_joining_where_it_was(serve: Any) -> None:
    model = Model(answer=lambda x: x - x.mean() if len(x) > 20 else x)
    serving = serve(model, idle=3)
    assert serving.loop._limits.rows == 12
    assert serving.loop._background is None
    assert "in 24 rows the rows influence each other" in serving.proof.batching_reason
