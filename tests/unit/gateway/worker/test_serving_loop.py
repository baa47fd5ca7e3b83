"""The serving loop over a socket pair, with a model whose answers are objects of its own."""

import json
import socket
import time

import numpy as np
import pytest

from gateway.errors import InvalidInputError
from gateway.serving.replica.worker_messages import MAX_HEADER_BYTES, read_failed
from gateway.worker import serving_loop
from gateway.worker.batching import BatchLimits
from gateway.worker.flavors import NotTakenError, pytorch
from gateway.worker.loading.load import LoadedModel
from gateway.worker.loading.proofs import fast_path, warm_up
from gateway.worker.loading.proofs.proof import PER_ROW, UNKNOWN, Proof
from gateway.worker.protocol.connection import Connection
from gateway.worker.protocol.frames import FrameReader, pack
from gateway.worker.protocol.messages import (
    Cancel,
    Kind,
    Load,
    Loaded,
    Predict,
    Probe,
    Stop,
    encode_header,
)
from gateway.worker.rows.inputs import TENSOR, TENSOR_NAME, VALUES, Form, Inputs, join
from gateway.worker.rows.plain_rows import PlainLayout, PlainRows, Rows
from gateway.worker.rows.signature import Column, Param, Signature
from gateway.worker.served_model import ServedModel
from gateway.worker.serving_loop import ServingLoop

ANY = Form(TENSOR, frozenset({TENSOR_NAME}), frozenset())
"""What all requests here are like."""

SPLIT = '{"columns": ["c"], "data": [[%s]]}'


class Odd:
    """A row that raises what no library's documentation names."""

    def tolist(self):
        raise RuntimeError("no")


def model(inputs):
    """Answer 1 as it is, and everything else oddly."""
    return [1 if value == 1 else Odd() for value in inputs.native()]


def serve(
    *frames,
    batching="joined",
    proof=None,
    proved_params=None,
    proved_form=ANY,
    example=None,
    model=model,
    clock=time.monotonic,
    connection=Connection,
    limits=BatchLimits(10, 1000),  # noqa: B008  # frozen
    max_answer_bytes=10_000,
    joined_rows=1000,
    answers_per_row=False,
    probabilities=None,
    probabilities_joined=False,
    signature=Signature(),  # noqa: B008  # frozen
):
    """Let a loop take ``frames`` and STOP; return its answers by id, in their order."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(b"".join(pack(*frame)) for frame in frames))
        ours.sendall(b"".join(pack(Kind.STOP, 0, encode_header(Stop()))))
        served = ServedModel("m", 1, signature, model, probabilities)
        served.proved_params, served.proved_form = proved_params or {}, proved_form
        proof = proof or Proof(
            answers=PER_ROW if answers_per_row else UNKNOWN,
            batching=batching,
            joined_rows=joined_rows,
            probabilities_joined=probabilities_joined,
        )
        report = Loaded(1, {}, "passed", "", "", "", "")
        loaded = LoadedModel(served, report, example, proof)
        ServingLoop(
            connection(theirs), loaded, limits, (), clock, max_answer_bytes=max_answer_bytes
        ).run()
        theirs.shutdown(socket.SHUT_WR)
        stream = b"".join(iter(lambda: ours.recv(65536), b""))
    return {frame.id: frame for frame in FrameReader().feed(stream)}


def asking(id_, body, deadline=1e12, *, likely=False):
    header = encode_header(
        Predict("predict", "application/json", deadline, "r", probabilities=likely)
    )
    return Kind.PREDICT, id_, header, body


def request(id_, value, deadline=1e12, *, likely=False):
    return asking(id_, b'{"instances": [%d]}' % value, deadline, likely=likely)


def batch_rows(answers):
    """Return the rows of the batch of each request, by its id."""
    return [json.loads(answers[id_].header)["batch_rows"] for id_ in sorted(answers) if id_]


def predictions(answers):
    """Return the predictions of each request, by its id."""
    return [json.loads(answers[id_].body)["predictions"] for id_ in sorted(answers) if id_]


def failure(answers, id_):
    """Return the error that a request was answered with."""
    assert answers[id_].kind == Kind.FAILED
    return json.loads(answers[id_].header)


def test_an_answer_that_cannot_be_read_fails_its_own_request_only():
    answers = serve(request(1, 1), request(2, 2), request(3, 1))
    failed = failure(answers, 2)
    del answers[2]
    assert predictions(answers) == [[1], [1]]
    assert failed["code"] == "model_error"
    assert "RuntimeError" in failed["message"]


class Believed(Connection):
    """Sends nothing that would end the worker, nor hang where nobody reads meanwhile."""

    def send(self, answers):
        assert all(len(encode_header(one[1])) < MAX_HEADER_BYTES for one in answers)
        super().send(answers)


@pytest.mark.parametrize("letter", ["名", "\x00", "\U0001f600", "\ud800"])
def test_names_that_a_caller_chooses_do_not_end_the_worker(letter):
    split = {"columns": [letter * 4096], "data": [["x"]] * 20}
    body = json.dumps({"dataframe_split": split}).encode()
    nameless = Signature((Column(0, "double", named=False),))
    failed = serve(asking(1, body), signature=nameless, connection=Believed)[1]
    assert failed.kind == Kind.FAILED
    error = read_failed(failed.header)
    assert isinstance(error, InvalidInputError)
    if letter != "\ud800":  # no JSON has it
        assert [detail[0] for detail in error.details] == list(range(20))
        assert {detail[1] for detail in error.details} == {letter * 199 + "…"}


def test_no_more_rows_are_joined_than_were_proved_together():
    requests = [request(id_, 1) for id_ in range(1, 8)]
    answers = serve(*requests, joined_rows=3)
    assert batch_rows(answers) == [3, 3, 3, 3, 3, 3, 1]


@pytest.mark.parametrize("proved", [True, False])
def test_requests_for_probabilities_are_joined_only_where_that_was_proved(proved):
    requests = [request(id_, id_, likely=id_ % 2) for id_ in range(1, 7)]
    answers = serve(
        *requests,
        model=lambda i: [2 * one for one in i.native()],
        probabilities=lambda i: [[one / sum(i.native())] for one in i.native()],
        probabilities_joined=proved,
    )
    assert batch_rows(answers) == ([3] * 6 if proved else [1, 3] * 3)
    likely = [json.loads(answers[id_].body)["probabilities"] for id_ in (1, 3, 5)]
    assert (likely == [[[1.0]]] * 3) is not proved


@pytest.mark.parametrize(
    ("whole", "wanted"),
    [
        (lambda i: [float(n) for n in range(5)], [0.0, 1.0, 2.0, 3.0, 4.0]),
        (lambda i: [], []),
        (lambda i: 7.5, 7.5),
        (lambda i: {"low": 1.0, "high": 2.0}, {"low": 1.0, "high": 2.0}),
        (lambda i: np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ],
    ids=["forecast", "empty", "scalar", "object", "matrix"],
)
def test_an_answer_that_is_not_one_per_row_is_answered_whole(whole, wanted):
    answers = serve(request(1, 1), request(2, 1), model=whole, batching="alone", joined_rows=1)
    assert predictions(answers) == [wanted] * 2
    assert [json.loads(answers[id_].header)["rows"] for id_ in (1, 2)] == [1, 1]


def test_where_one_per_row_was_proved_another_number_ends_joining():
    """It is answered as it is, and whose row is whose in a joined one could not be told."""

    def filtering(inputs):
        return [value for value in inputs.native() if value != 13]

    requests = [request(id_, value) for id_, value in enumerate([1, 13, 2, 3, 4], start=1)]
    answers = serve(*requests, model=filtering, answers_per_row=True)
    assert predictions(answers) == [[1], [], [2], [3], [4]]
    assert batch_rows(answers) == [1, 1, 1, 1, 1]
    told = json.loads(answers[0].header)["proof"]
    assert (answers[0].kind, told["answers"], told["batching"]) == (Kind.PROVED, "whole", "alone")
    assert told["batching_reason"] == "an answer to 1 rows was not one per row"


def test_a_batch_whose_answer_cannot_be_divided_is_answered_one_by_one():
    answers = serve(request(1, 1), request(2, 1), model=lambda i: [5, 6, 7])
    assert predictions(answers) == [[5, 6, 7]] * 2
    assert batch_rows(answers) == [1, 1]


def test_requests_with_params_that_nothing_was_proved_with_go_alone():
    def of_param(inputs):
        return list(inputs.native()) * inputs.params["times"]

    signature = Signature(params=(Param("times", "long", 1, is_list=False),))
    bodies = [b'{"instances": [1]}', b'{"instances": [2], "params": {"times": 3}}']
    answers = serve(
        *(asking(id_, body) for id_, body in enumerate(bodies * 2, start=1)),
        model=of_param,
        signature=signature,
        proved_params={"times": 1},
    )
    assert predictions(answers) == [[1], [2, 2, 2]] * 2
    assert batch_rows(answers) == [2, 1, 2, 1]


def test_a_batch_that_the_proved_call_does_not_take_is_answered_one_by_one(capfd):
    def direct(inputs):
        if 13 in inputs.native():
            raise NotTakenError("rounded")
        return list(inputs.native())

    def pyfunc(inputs):  # centres its rows, where they are several
        return [value - (inputs.rows > 1) for value in inputs.native()]

    call = fast_path._unless_not_taken(direct, pyfunc)
    requests = [request(id_, value) for id_, value in enumerate([1, 13, 2], start=1)]
    answers = serve(*requests, model=call)
    assert predictions(answers) == [[1], [13], [2]]
    assert capfd.readouterr().err == ""


def test_a_row_with_a_null_is_never_joined():
    """The mean that it is filled with would be that of other callers' rows."""

    def filling(inputs):
        x = inputs.native()["x"]
        return x.fillna(x.mean()).fillna(0.0).to_numpy()

    signature = Signature(columns=(Column("x", "double", required=False),))
    model = ServedModel("m", 1, signature, filling)
    order = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {})
    proof = warm_up.kept(order)
    example = b'{"inputs": {"x": [1.0, 2.5]}}'
    prover = warm_up.warm(model, None, order, example, proof=proof, clock=time.monotonic)
    warm_up.run(prover, proof, order.proof_budget_s, lambda _: None)
    assert (proof.batching, proof.joined_rows) == ("joined", 1024)
    columns = [b"[null]", b"[50.0]", b"[null, 1.0]", b"[60.0]", b"[null]"]
    answers = serve(
        *(asking(id_, b'{"inputs": {"x": %b}}' % one) for id_, one in enumerate(columns, start=1)),
        model=filling,
        signature=signature,
        proof=proof,
        proved_form=model.proved_form,
    )
    assert predictions(answers) == [[0.0], [50.0], [1.0, 1.0], [60.0], [0.0]]
    assert batch_rows(answers) == [1, 2, 2, 2, 1]


def test_failed_batch_is_predicted_one_by_one_within_deadlines():
    now, alone = 0.0, []

    def slow(inputs):
        nonlocal now
        now += 1.0
        if inputs.rows > 1:
            raise ValueError("not all of them")
        alone.append(inputs.native()[0])
        return inputs.native()

    answers = serve(
        request(1, 1), request(2, 2, deadline=1.5), request(3, 3), model=slow, clock=lambda: now
    )
    assert [answers[id_].kind for id_ in (1, 2, 3)] == [Kind.REPLY, Kind.FAILED, Kind.REPLY]
    assert failure(answers, 2)["code"] == "deadline_exceeded"
    assert alone == [1, 3]


@pytest.mark.parametrize(
    ("shape", "rows"),
    [("inputs", "[%s]"), ("dataframe_records", '[{"c": %s}]'), ("dataframe_split", SPLIT)],
)
def test_what_a_model_changed_before_it_raised_is_not_what_it_is_given_alone(shape, rows):
    """It takes a member away, and raises at the other row: its neighbour is answered as alone."""

    def changing(inputs):
        given = inputs.native()
        rows = given if isinstance(given, list) else given["c"]
        return [row.pop("times", 1) * row["of"] for row in rows]

    body = f'{{"{shape}": {rows}}}'
    cells = ['{"times": 2, "of": 3}', '{"times": 2}']
    requests = [asking(id_, (body % cell).encode()) for id_, cell in enumerate(cells, start=1)]
    answers = serve(*requests, model=changing)
    assert failure(answers, 2)["message"] == "the model raised KeyError"
    assert json.loads(answers[1].body)["predictions"] == [6.0]


def test_params_changed_by_a_failed_batch_are_restored():
    first = Inputs(VALUES, {TENSOR_NAME: np.array([1])}, 1, {"stop": ["a", "b"]})
    plain = PlainRows(PlainLayout([("x", "double")]), [[1.5]], 1, {"stop": ["a", "b"]})
    one: Rows
    for one in (first, plain):
        join([one, one]).params["stop"].clear()
        assert join([one]).params == {"stop": ["a", "b"]}


def test_a_cancelled_request_of_a_batch_that_failed_is_not_begun():
    begun: list[int] = []

    class Watched(Connection):
        """Sends CANCEL for the last request as soon as the first is answered."""

        def receive(self, *, wait):
            cancelled = (Kind.CANCEL, 3, encode_header(Cancel()))
            if begun == [1]:
                return [
                    *super().receive(wait=False),
                    *FrameReader().feed(b"".join(pack(*cancelled))),
                ]
            return super().receive(wait=wait)

    def choosy(inputs):
        if inputs.rows > 1:
            raise ValueError("not all of them")
        begun.append(inputs.native()[0])
        return inputs.native()

    answers = serve(request(1, 1), request(2, 2), request(3, 3), model=choosy, connection=Watched)
    assert begun == [1, 2]
    assert failure(answers, 3)["code"] == "cancelled"


def test_an_example_whose_answer_cannot_be_read_is_told_to_the_probe():
    answers = serve((Kind.PROBE, 9, encode_header(Probe())), example=b'{"instances": [2]}')
    alive = json.loads(answers[9].header)
    assert answers[9].kind == Kind.ALIVE
    assert not alive["example_ok"]


def test_an_answer_that_is_too_large_fails_its_own_request_only():
    def wordy(inputs):
        return ["x" * int(value) for value in inputs.native()]

    answers = serve(
        request(1, 1), request(2, 1000), request(3, 1), model=wordy, max_answer_bytes=500
    )
    assert [answers[id_].kind for id_ in (1, 2, 3)] == [Kind.REPLY, Kind.FAILED, Kind.REPLY]
    failed = json.loads(answers[2].header)
    assert failed["code"] == "model_error"
    assert failed["message"] == "the model's answer is larger than 500 bytes"


def test_a_probe_is_told_what_the_worker_holds_of_gpus(monkeypatch):
    monkeypatch.setattr(pytorch, "gpu_bytes", lambda: 7)
    answers = serve((Kind.PROBE, 9, encode_header(Probe())))
    assert json.loads(answers[9].header)["gpu_bytes"] == 7


def test_a_probe_is_told_how_long_the_example_took_and_not_its_queue():
    moments = [100.0]

    def slow(inputs):
        moments[0] += float(inputs.native()[0])
        return inputs.native()

    probe = (Kind.PROBE, 9, encode_header(Probe()))
    answers = serve(
        request(1, 50), probe, model=slow, example=b'{"instances": [3]}', clock=lambda: moments[0]
    )
    assert json.loads(answers[9].header)["example_s"] == 3.0


def test_requests_are_joined_up_to_so_many_bytes_of_their_bodies():
    size = len(request(1, 1)[3])
    requests = [request(id_, 1) for id_ in range(1, 6)]
    answers = serve(*requests, limits=BatchLimits(10, 2 * size))
    assert batch_rows(answers) == [2, 2, 2, 2, 1]


# --- large bodies -------------------------------------------------------------------------------


class Slow:
    """A model of which a large body takes ``large_s`` and a small one ``small_s``.

    Large bodies ask for 1; what is asked for is told in ``order``.
    """

    def __init__(self, large_s=1.0, small_s=0.0):
        self.now, self.order = 0.0, []
        self._seconds = {True: large_s, False: small_s}

    def __call__(self, inputs):
        values = inputs.native()
        self.order.append(list(values))
        self.now += self._seconds[values[0] == 1]
        return values

    def clock(self):
        return self.now


@pytest.fixture
def large(monkeypatch):
    """Return what makes a request whose body is large, as the loop counts for this test."""
    monkeypatch.setattr(serving_loop, "_LARGE_BYTES", 100)

    def made(id_, value=1, **options):
        kind, number, header, body = request(id_, value, **options)
        return kind, number, header, body + b" " * 100

    return made


def test_small_requests_go_before_the_next_large_body(large):
    slow = Slow()
    answers = serve(
        *(large(1), large(2), request(3, 3), request(4, 4), large(5)), model=slow, clock=slow.clock
    )
    assert [answers[id_].kind for id_ in range(1, 6)] == [Kind.REPLY] * 5
    assert list(map(list, slow.order)) == [[1], [3, 4], [1], [1]]


def test_large_body_waits_no_longer_than_the_batch_before_it(large):
    """Small requests never end, and one takes a quarter of a large one."""
    slow, numbers = Slow(large_s=0.5, small_s=0.125), iter(range(10, 60))

    class Endless(Connection):
        def receive(self, *, wait):
            number = next(numbers, None)
            if number is None:
                return super().receive(wait=wait)
            first = [large(1), large(2)] if number == 10 else []
            frames = [*first, request(number, number)]
            return FrameReader().feed(b"".join(b"".join(pack(*one)) for one in frames))

    answers = serve(model=slow, clock=slow.clock, connection=Endless)
    assert len(answers) == 52
    assert [value[0] == 1 for value in slow.order[:8]] == [True, *[False] * 4, True, *[False] * 2]


def test_small_requests_behind_a_large_body_that_still_comes_go_first(large):
    """Four large bodies fill the socket many times over, and small requests are behind them."""
    slow = Slow()
    stream = [large(1), large(2), large(3), request(4, 4)]
    data = b"".join(b"".join(pack(*frame)) for frame in stream)
    pieces = iter([data[start : start + 150] for start in range(0, len(data), 150)])

    class Slowly(Connection):
        def receive(self, *, wait):
            piece = next(pieces, None)
            return self._reader.feed(piece) if piece else super().receive(wait=wait)

    answers = serve(model=slow, clock=slow.clock, connection=Slowly)
    assert len(answers) == 4
    assert [int(value[0]) for value in slow.order] == [1, 4, 1, 1]


def test_a_large_body_that_nobody_waits_for_is_never_read(large):
    slow = Slow()
    garbled = (*large(2)[:3], b"[" * 1000)
    cancel = (Kind.CANCEL, 2, encode_header(Cancel()))
    late = (*large(3, deadline=0.5)[:3], b"[" * 1000)
    answers = serve(large(1), garbled, late, cancel, model=slow, clock=slow.clock)
    codes = [failure(answers, id_)["code"] for id_ in (2, 3)]
    assert codes == ["cancelled", "deadline_exceeded"]
    assert len(slow.order) == 1


def test_a_large_body_is_joined_with_no_other(large):
    answers = serve(large(1), large(2), request(3, 3), request(4, 4), model=Slow())
    assert batch_rows(answers) == [1, 1, 2, 2]


@pytest.mark.parametrize("where", ["decode", "join", "model"])
def test_a_body_that_does_not_fit_into_memory_says_nothing_of_the_model(monkeypatch, where):
    """Which is what `begun` says: whether the model was called."""

    def fail(*_, **__):
        raise MemoryError

    if where == "join":
        monkeypatch.setattr(serving_loop, "join", fail)
    if where == "decode":
        monkeypatch.setattr(ServedModel, "decode", fail)
    answers = serve(request(1, 1), request(2, 1), model=fail if where == "model" else Slow())
    for id_ in (1, 2):
        failed = json.loads(answers[id_].header)
        assert (failed["code"], failed["begun"]) == ("model_error", where == "model")


def test_what_joining_raises_fails_its_requests_alone(monkeypatch):
    def fail(parts):
        if len(parts) == 2:
            raise ValueError("never seen")
        return join(parts)

    monkeypatch.setattr(serving_loop, "join", fail)
    answers = serve(request(1, 1), request(2, 1), model=Slow())
    assert batch_rows(answers) == [1, 1]


def test_what_a_model_calls_its_errors_is_bounded():
    odd = type("Odd" * 10_000, (Exception,), {})

    def fail(inputs):
        raise odd

    failed = json.loads(serve(request(1, 1), model=fail)[1].header)
    assert len(failed["message"]) <= 4096
