"""A real worker, with real models: what it answers, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest

from gateway.worker.protocol.messages import PROTOCOL_VERSION, Cancel, Failed, Load, Loaded, Reply
from tests.acceptance.waiting import until
from tests.integration.worker_process import (
    PATIENCE_S,
    RunningWorker,
    order_of,
    predict_header,
    refused,
    serving,
    started,
    stop_forkserver,
    store,
    wait_until_ended,
)
from tests.models.catalogue import (
    BuildableModel,
    HelperModel,
    IrisPipeline,
    LinearModel,
    OddModel,
    Payload,
    ScriptedModel,
    TorchModel,
)
from tests.models.corpus.beside import save
from tests.models.corpus.cases import WITH_EXAMPLE
from tests.models.corpus.table import CASES


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start the forkserver of all these tests in an empty folder, and end it after them."""
    folder = tmp_path_factory.mktemp("here")
    stop_forkserver()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        with started():
            pass
    yield folder
    stop_forkserver()


@pytest.mark.parametrize(
    ("model", "batching", "call_path"),
    [
        (IrisPipeline(3), "joined", "fast"),
        (LinearModel(2.0), "joined", "fast"),
        (HelperModel("doubling"), "joined", "pyfunc"),
        (ScriptedModel(scale=4.0), "joined", "pyfunc"),
        (ScriptedModel(subtract_batch_mean=True), "alone", "pyfunc"),
        (LinearModel(2.0, example=False), "alone", "pyfunc"),
        (ScriptedModel(print_on_predict=True), "joined", "pyfunc"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_kind_of_model_answers_exactly(
    tmp_path: Path, model: BuildableModel, batching: str, call_path: str
):
    with serving(store(model, tmp_path)) as (worker, report):
        assert (report.batching, report.call_path) == (batching, call_path), report
        assert report.peak_bytes >= report.private_bytes > 0
        assert set(report.durations_s) == {"verify", "load", "warm_up"}
        assert worker.hello is not None
        assert worker.hello.protocol_version == PROTOCOL_VERSION
        for rows in (1, 3):
            message, answer = worker.predict(model.payload(rows))
            assert isinstance(message, Reply), message
            assert message.rows == message.batch_rows == rows
            assert answer["predictions"] == model.expected(model.payload(rows))
            assert (answer["model_name"], answer["model_version"]) == ("a model", 7)
            assert len(answer["prediction_id"]) == 32
            assert answer["timestamp"].endswith("+00:00")
            assert answer["inference_time_ms"] >= 0
        assert worker.probe().example_ok


@pytest.mark.parametrize("serialization_format", ["pt2", "pickle"])
def test_a_torch_module_answers_its_tensor(tmp_path: Path, serialization_format: str):
    model = TorchModel(1, serialization_format)
    with serving(store(model, tmp_path)) as (worker, report):
        assert (report.batching, report.call_path) == ("joined", "fast"), report
        message, answer = worker.predict(model.payload(5))
        assert isinstance(message, Reply), message
        np.testing.assert_allclose(
            answer["predictions"], model.expected(model.payload(5)), rtol=1e-5, atol=1e-6
        )
        message, _ = worker.predict({"inputs": [[1.0, 2.0]]})
        assert isinstance(message, Failed)
        assert (message.code, message.details) == (
            "invalid_input",
            [[None, None, "dimension 1 has length 2, not 4"]],
        )


def test_two_models_with_a_module_of_the_same_name_answer_each_with_its_own(tmp_path: Path):
    one, other = HelperModel("doubling"), HelperModel("tripling")
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    with (
        serving(store(one, tmp_path / "1")) as (first, _),
        serving(store(other, tmp_path / "2")) as (second, _),
    ):
        payload = one.payload(2)
        assert first.predict(payload)[1]["predictions"] == one.expected(payload)
        assert second.predict(payload)[1]["predictions"] == other.expected(payload)


def test_probabilities_come_when_asked(tmp_path: Path):
    model = IrisPipeline(0)
    with serving(store(model, tmp_path)) as (worker, _):
        payload = model.payload(2)
        _, plain = worker.predict(payload)
        _, answer = worker.predict(payload, probabilities=True)
        assert "probabilities" not in plain
        assert answer["class_names"] == model.class_names
        np.testing.assert_allclose(answer["probabilities"], model.expected_probabilities(payload))


def test_a_worker_says_what_loading_held_at_most(tmp_path: Path):
    with serving(store(ScriptedModel(memory_mb=20, load_peak_mb=200), tmp_path)) as (_, report):
        passing = report.peak_bytes - report.private_bytes
        assert 150 << 20 < passing < 250 << 20, report


def test_concurrent_requests_are_joined_and_answered_each_with_its_own(tmp_path: Path):
    model = ScriptedModel(scale=2.0, predict_sleep_s=0.05)
    with serving(store(model, tmp_path)) as (worker, report):
        assert report.batching == "joined"
        payloads = [model.payload_of(*(100.0 * n + k for k in range(n % 4 + 1))) for n in range(50)]
        ids = worker.send_together([json.dumps(payload).encode() for payload in payloads])
        answers = {}
        largest = 0
        for _ in ids:
            id_, message, body = worker.receive()
            assert isinstance(message, Reply), message
            answers[id_] = json.loads(body)["predictions"]
            largest = max(largest, message.batch_rows)
        assert [answers[id_] for id_ in ids] == [model.expected(payload) for payload in payloads]
        assert largest > 10


@pytest.mark.parametrize("example", [(1.0, 2.5), (3.0,)], ids=["of two rows", "of one row"])
def test_rows_that_influence_each_other_are_answered_each_request_as_if_alone(
    tmp_path: Path, example: tuple[float, ...]
):
    """The requests lie in the worker all together: the test above shows that others are joined."""
    model = ScriptedModel(
        scale=2.0, subtract_batch_mean=True, predict_sleep_s=0.01, example=example
    )
    with serving(store(model, tmp_path)) as (worker, report):
        assert report.batching == "alone"
        payloads = [
            model.payload_of(*(100.0 * n + k * k for k in range(n % 4 + 1))) for n in range(50)
        ]
        ids = worker.send_together([json.dumps(payload).encode() for payload in payloads])
        answers, rows = {}, {}
        for _ in ids:
            id_, message, body = worker.receive()
            assert isinstance(message, Reply), message
            answers[id_], rows[id_] = json.loads(body)["predictions"], message.batch_rows
        assert [answers[id_] for id_ in ids] == [model.expected(payload) for payload in payloads]
        assert [rows[id_] for id_ in ids] == [n % 4 + 1 for n in range(50)]


def answers_under_load(worker: RunningWorker, model: ScriptedModel, count: int) -> set[int]:
    """Ask for one row many times at once; each answer must be right. Return the batches' rows."""
    payloads = [model.payload_of(10.0 * n + 1) for n in range(count)]
    ids = worker.send_together([json.dumps(payload).encode() for payload in payloads])
    answers, sizes = {}, set()
    for _ in ids:
        id_, message, body = worker.receive()
        assert isinstance(message, Reply), message
        answers[id_] = json.loads(body)["predictions"]
        sizes.add(message.batch_rows)
    wrong = [id_ for id_, p in zip(ids, payloads, strict=True) if answers[id_] != model.expected(p)]
    assert wrong == []
    return sizes


@pytest.mark.parametrize("threshold", [21, 300])
def test_rows_that_influence_each_other_in_large_batches_are_never_in_one(
    tmp_path: Path, threshold: int
):
    model = ScriptedModel(
        scale=2.0, subtract_batch_mean=True, influence_from=threshold, predict_sleep_s=0.002
    )
    # A busy machine needs more than the usual seconds to prove as many rows as may be joined.
    with serving(replace(store(model, tmp_path), proof_budget_s=60.0)) as (worker, report):
        assert (report.batching, report.answers) == ("joined", "per_row")
        assert "influence each other" in report.batching_reason
        assert threshold // 4 <= report.joined_rows < threshold
        sizes = answers_under_load(worker, model, 1500)
        assert 1 < max(sizes) <= report.joined_rows


def test_joining_widens_in_the_background_and_every_answer_is_right(tmp_path: Path):
    """With little time for it in the warm-up; a call takes longer with every row."""
    model = ScriptedModel(scale=2.0, row_sleep_s=0.002, calls_file=str(tmp_path / "calls"))
    order = replace(store(model, tmp_path), max_batch_rows=96)
    with serving(order) as (worker, report):
        assert report.batching == "joined"
        assert report.joined_rows < 96
        assert max(answers_under_load(worker, model, 200)) <= report.joined_rows
        limit = time.monotonic() + PATIENCE_S
        while not (worker.proofs and worker.proofs[-1].proof["joined_rows"] == 96):
            assert time.monotonic() < limit
            time.sleep(1)  # it goes on only while nothing comes
            assert worker.probe().example_ok  # what it has said meanwhile is read with it
        assert max(answers_under_load(worker, model, 300)) > report.joined_rows
        proof = worker.proofs[-1].proof
    Path(model.calls_file).write_text("")
    with serving(replace(order, proof=proof)) as (worker, again):
        assert (again.joined_rows, again.proof) == (96, proof)
        assert model.calls() == [2]
        assert worker.probe().example_ok


@pytest.mark.parametrize(
    ("answers", "example"),
    [("forecast", (1.0, 2.0, 3.0)), ("best", (1.0, 2.5)), ("scalar", (1.0,))],
)
def test_an_answer_that_is_not_one_per_row_is_served_whole_and_alone(
    tmp_path: Path, answers: str, example: tuple[float, ...]
):
    model = ScriptedModel(scale=2.0, answers=answers, example=example, predict_sleep_s=0.01)
    lines = [{"request": model.payload(4), "expected": model.expected(model.payload(4))}]
    with serving(expecting(model, tmp_path, lines)) as (worker, report):
        assert (report.answers, report.batching) == ("whole", "alone"), report
        assert report.expected_answers == 1
        for rows in (1, 2, 3, 5):
            message, answer = worker.predict(model.payload(rows))
            assert isinstance(message, Reply), message
            assert answer["predictions"] == model.expected(model.payload(rows))
            assert message.rows == message.batch_rows == rows
        assert answers_under_load(worker, model, 30) == {1}
        assert worker.probe().example_ok


def test_so_it_is_without_an_example_and_with_wrong_expected_answers_it_is_refused(tmp_path: Path):
    model = ScriptedModel(answers="forecast", example=())
    (tmp_path / "one").mkdir()
    with serving(store(model, tmp_path / "one")) as (worker, report):
        assert (report.answers, report.batching) == ("unknown", "alone")
        assert worker.predict(model.payload(2))[1]["predictions"] == model.expected(
            model.payload(2)
        )
    lines = [{"request": model.payload(2), "expected": [1.0, 2.0]}]
    (tmp_path / "other").mkdir()
    told = refused(expecting(model, tmp_path / "other", lines)).message
    assert told == "warmup.jsonl, line 1, 3 rows where 2 are expected"


def test_a_slow_model_is_asked_once_before_it_serves(tmp_path: Path):
    model = ScriptedModel(predict_sleep_s=1.5, calls_file=str(tmp_path / "calls"))
    order = replace(store(model, tmp_path), proof_budget_s=1.0)
    with serving(order) as (worker, report):
        assert model.calls() == [2]
        assert (report.batching, report.answers) == ("alone", "unknown")
        assert "GATEWAY_PROOF_BUDGET_S" in report.batching_reason
        assert worker.predict(model.payload(3))[1]["predictions"] == model.expected(
            model.payload(3)
        )
        assert model.calls() == [2, 3]


@pytest.mark.parametrize(
    "model",
    [IrisPipeline(3), LinearModel(2.0), TorchModel(1, "pickle")],
    ids=lambda one: type(one).__name__,
)
def test_what_was_proved_holds_for_the_next_worker(tmp_path: Path, model: BuildableModel):
    # A busy machine needs more than the usual seconds to prove as many rows as may be joined.
    order = replace(store(model, tmp_path), proof_budget_s=60.0)
    with serving(order) as (_, first):
        assert (first.call_path, first.batching, first.joined_rows) == ("fast", "joined", 1024)
    with serving(replace(order, proof=first.proof)) as (worker, second):
        assert second.proof == first.proof
        assert (second.call_path, second.batching, second.joined_rows) == ("fast", "joined", 1024)
        _, answer = worker.predict(model.payload(5))
        wanted = model.expected(model.payload(5))
        if isinstance(model, TorchModel):
            wanted = [pytest.approx(row, rel=1e-5, abs=1e-6) for row in wanted]
        assert answer["predictions"] == wanted
    other = {**first.proof, "made_with": "other"}
    with serving(replace(order, proof={**other, "batching": "alone", "joined_rows": 1})) as (
        _,
        third,
    ):
        assert third.proof == first.proof


def test_a_request_that_fails_takes_no_joined_request_with_it(tmp_path: Path):
    model = ScriptedModel(raise_on=13.0, nan_on=14.0, predict_sleep_s=0.05)
    values = [1.0, 2.0, 13.0, 3.0, 14.0, 4.0]
    with serving(store(model, tmp_path)) as (worker, _):
        ids = worker.send_together([json.dumps(model.payload_of(v)).encode() for v in values])
        answers = {}
        for _ in ids:
            id_, message, body = worker.receive()
            answers[id_] = (message, body)
        for id_, value in zip(ids, values, strict=True):
            message, body = answers[id_]
            if value == 13.0:
                assert isinstance(message, Failed)
                assert (message.code, message.message) == (
                    "model_error",
                    "the model raised RuntimeError",
                )
            else:
                assert json.loads(body)["predictions"] == [None if value == 14.0 else value]


def test_a_number_that_is_not_finite_is_refused_where_the_order_says_so(tmp_path: Path):
    model = ScriptedModel(nan_on=14.0)
    with serving(replace(store(model, tmp_path), not_finite="refuse")) as (worker, _):
        message, _ = worker.predict(model.payload_of(1.0, 14.0))
        assert isinstance(message, Failed)
        assert (message.code, message.details) == (
            "not_finite",
            [[0, "predictions", "a number that is not finite"]],
        )
        assert worker.predict(model.payload_of(1.0))[1]["predictions"] == [1.0]


def test_traces_of_a_model_leave_no_database_where_the_gateway_runs(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own
        model = save(CASES["converses-responses"], WITH_EXAMPLE, tmp_path)
    order = order_of(model, tmp_path)
    monkeypatch.chdir(here)  # a worker starts where its gateway runs, as the forkserver did
    with serving(order) as (worker, _):
        assert Path(f"/proc/{worker.pid}/cwd").resolve() == here
        asked = {"input": [{"role": "user", "content": "hello"}]}
        assert isinstance(worker.predict(asked)[0], Reply)
    assert list(here.iterdir()) == []


def test_bad_bodies_are_refused_and_the_worker_goes_on(tmp_path: Path):
    model = LinearModel(1.0)
    deep = b'{"instances": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    cases: list[tuple[bytes, list[list[object]]]] = [
        (b"not json", []),
        (deep, []),
        (b'{"dataframe_split": {"columns": ["x1", "x2"], "data": [[1, NaN]]}}', []),
        (b'{"instances": [[1, 2]], "inputs": [[1, 2]]}', []),
        (b'{"dataframe_records": [{"x1": 1}]}', [[0, "x2", "required and missing"]]),
        (
            b'{"dataframe_records": [{"x1": 1, "x2": 2}, {"x1": "secret", "x2": 1}]}',
            [[1, "x1", "a string where a number is needed"]],
        ),
        (b'{"features": [1, null]}', [[0, "x2", "null in a required column"]]),
        (b'{"instances": [[1, 2], [1]]}', [[1, None, "not a list of 2 values"]]),
    ]
    with serving(store(model, tmp_path)) as (worker, _):
        for body, details in cases:
            message, _ = worker.predict(body)
            assert isinstance(message, Failed), body[:80]
            assert (message.code, message.details) == ("invalid_input", details), message
            assert "secret" not in message.message
        message, _ = worker.predict(model.payload(), content_type="text/csv")
        assert isinstance(message, Failed)
        assert message.code == "unsupported_media_type"
        assert worker.predict(model.payload())[1]["predictions"] == model.expected(model.payload())


def test_a_cancelled_request_is_not_predicted(tmp_path: Path):
    model = ScriptedModel(subtract_batch_mean=True, predict_sleep_s=0.2)
    with serving(store(model, tmp_path)) as (worker, _):
        first, second, third = worker.send_together(
            [json.dumps(model.payload_of(1.0)).encode()] * 3
        )
        worker.send(Cancel(), id_=third)
        answers = {}
        for _ in range(3):
            id_, message, _ = worker.receive()
            answers[id_] = message
        assert isinstance(answers[first], Reply)
        assert isinstance(answers[second], Reply)
        assert answers[third].code == "cancelled"


def test_a_request_whose_deadline_has_passed_is_not_predicted(tmp_path: Path):
    model = ScriptedModel()
    with serving(store(model, tmp_path)) as (worker, _):
        message, _ = worker.predict(model.payload(), deadline=time.monotonic() - 1)
        assert isinstance(message, Failed)
        assert message.code == "deadline_exceeded"


def test_a_crash_is_seen_as_the_end_of_the_stream(tmp_path: Path):
    model = ScriptedModel(exit_on=13.0)
    with serving(store(model, tmp_path)) as (worker, _):
        worker.send(predict_header(), json.dumps(model.payload_of(13.0)).encode())
        with pytest.raises((EOFError, ConnectionResetError)):
            worker.receive()
        worker.wait_until_ended()


def test_stop_answers_what_was_received_and_ends_the_children_of_the_model(tmp_path: Path):
    file = tmp_path / "child"
    model = ScriptedModel(child_pid_file=str(file), predict_sleep_s=0.05)
    with serving(store(model, tmp_path)) as (worker, _):
        child = int(file.read_text())
        assert psutil.Process(child).is_running()
        ids = worker.send_together([json.dumps(model.payload_of(1.0)).encode()] * 3)
        worker.stop()
        assert {worker.receive()[0] for _ in ids} == set(ids)
        worker.wait_until_ended()
        wait_until_ended(child)


def catches_sigterm(pid: int) -> bool:
    """Whether a child still has its parent's handler: to leave it behind is its first act."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)


def test_sigterm_to_everything_ends_no_worker_but_what_its_model_started(tmp_path: Path):
    model = OddModel()
    with serving(store(model, tmp_path)) as (worker, _):
        forkserver = psutil.Process(worker.pid).parent()

        def predictions(payload: Payload):
            worker.send(predict_header(), json.dumps(payload).encode())
            return json.loads(worker.receive()[2])["predictions"]

        for way in ("fork_and_stay", "start_child"):
            predictions(model.oddly(way))
        children = psutil.Process(worker.pid).children()
        assert len(children) == 2
        assert forkserver is not None
        until(lambda: not any(catches_sigterm(one.pid) for one in children), "both can hear it")
        forkserver.terminate()
        os.killpg(worker.pid, signal.SIGTERM)
        for child in children:
            wait_until_ended(child.pid)
        assert predictions(model.payload()) == model.expected(model.payload())
        assert forkserver.is_running()
        with started() as another:
            assert psutil.Process(another.pid).ppid() == forkserver.pid


def test_a_closed_lifeline_ends_a_worker_that_hangs_and_its_children(tmp_path: Path):
    file = tmp_path / "child"
    model = ScriptedModel(child_pid_file=str(file), hang_on=13.0)
    with serving(store(model, tmp_path)) as (worker, _):
        child = int(file.read_text())
        worker.send(predict_header(), json.dumps(model.payload_of(13.0)).encode())
        worker.lifeline.close()
        worker.wait_until_ended()
        wait_until_ended(child)


@pytest.mark.parametrize(
    ("model", "failure"),
    [
        (ScriptedModel(fail_load=True), "load_failed"),
        (ScriptedModel(raise_on=2.5), "warm_up_failed"),
        (ScriptedModel(nan_on=2.5), "warm_up_failed"),
    ],
)
def test_a_model_that_fails_is_refused_with_a_reason(
    tmp_path: Path, model: ScriptedModel, failure: str
):
    report = refused(store(model, tmp_path))
    assert report.failure == failure
    assert report.message
    assert "hunter2" not in report.message


@pytest.mark.parametrize(
    ("connects", "told"),
    [
        ("load", "loading the model raised RuntimeError"),
        ("predict", "the input example: the model raised RuntimeError"),
    ],
)
def test_a_model_that_misses_something_for_a_moment_is_not_told_to_be_bad(
    tmp_path: Path, connects: str, told: str
):
    port = tmp_path / "port"
    order = store(ScriptedModel(connect_file=str(port), connects=connects), tmp_path)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # and does not listen yet
        port.write_text(str(server.getsockname()[1]))
        report = refused(order)
        assert report.failure == "unavailable"
        assert (
            report.message == f"{told}: ConnectionRefusedError (Connection refused), which may pass"
        )
        server.listen()
        with serving(order) as (_, loaded):
            assert loaded.warm_up == "passed"


@pytest.mark.parametrize("example", [True, False])
def test_expected_answers_decide_whether_a_model_serves(tmp_path: Path, example: bool):
    model = LinearModel(2.0, example=example)
    lines: list[dict[str, Any]] = [
        {"request": model.payload(rows), "expected": model.expected(model.payload(rows))}
        for rows in (1, 3)
    ]
    (tmp_path / "right").mkdir()
    with serving(expecting(model, tmp_path / "right", lines)) as (_, report):
        assert (report.warm_up, report.expected_answers) == ("passed", 2)
    lines[1]["expected"][2] += 1.0
    (tmp_path / "wrong").mkdir()
    failed = refused(expecting(model, tmp_path / "wrong", lines))
    assert failed.failure == "warm_up_failed"
    assert failed.message.startswith("warmup.jsonl, line 2, row 2: off by 1, where 0.02")


def expecting(model: BuildableModel, folder: Path, lines: list[dict[str, Any]]) -> Load:
    """Store a model with a ``warmup.jsonl``."""

    class Publishing:
        def save(self, to: Path) -> Path:
            model.save(to)
            (to / "warmup.jsonl").write_text("\n".join(map(json.dumps, lines)))
            return to

    return store(cast("BuildableModel", Publishing()), folder)


def test_bytes_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path):
    order = store(LinearModel(1.0), tmp_path)
    data = bytearray((Path(order.artifact) / "model.skops").read_bytes())
    data[len(data) // 2] ^= 1
    (Path(order.artifact) / "model.skops").write_bytes(bytes(data))
    assert refused(order).failure == "integrity"


def test_loading_leaves_the_artifact_as_it_was(tmp_path: Path):
    model = HelperModel("doubling")
    order = store(model, tmp_path)
    before = sorted(path for path in Path(order.artifact).rglob("*"))
    with serving(order) as (worker, _):
        worker.predict(model.payload())
    assert sorted(path for path in Path(order.artifact).rglob("*")) == before


@pytest.mark.parametrize("threads", [1, 2])
def test_every_numerical_library_uses_as_many_threads_as_it_was_told(tmp_path: Path, threads: int):
    if threads > len(os.sched_getaffinity(0)):
        pytest.skip("there is one core only")
    order = replace(store(ThreadsProbe(), tmp_path), threads=threads)
    with serving(order) as (worker, _):
        _, answer = worker.predict({"instances": [{"x": 1.0}]})
    counts = json.loads(answer["predictions"][0])
    assert {"blas", "openmp"} < counts.keys()
    assert set(counts.values()) == {threads}, counts


class ThreadsProbe(ScriptedModel):
    """A model that answers with the numbers of threads."""

    def _arguments(self):
        script = Path(__file__).parents[1] / "models" / "code_paths" / "scripts" / "threads.py"
        return {**super()._arguments(), "python_model": str(script), "model_config": {}}


def test_a_worker_loads_behind_its_neighbours_and_serves_beside_them(tmp_path: Path):
    gate = tmp_path / "gate"
    order = store(ScriptedModel(load_gate=str(gate)), tmp_path)
    with started() as worker:
        before = priorities(worker.pid)
        worker.send(order, id_=0)
        wait_for(lambda: len(priorities(worker.pid)) == 3, "its thread and its child have begun")
        loading = priorities(worker.pid)
        if os.getuid() == 0:  # else niceness could not be raised again
            assert min(loading) > max(before)
        gate.touch()
        assert isinstance(worker.report(), Loaded)
        assert set(priorities(worker.pid)) == set(before)
        assert len(priorities(worker.pid)) == 3


def priorities(pid: int) -> list[int]:
    """The niceness of every thread of a process and its children."""
    process = psutil.Process(pid)
    threads = [t.id for one in (process, *process.children()) for t in one.threads()]
    return [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads]


def wait_for(look: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < limit, what
        time.sleep(0.01)


def test_a_worker_leads_its_own_session_and_runs_in_one_thread_of_its_own(tmp_path: Path):
    with serving(store(LinearModel(1.0), tmp_path)) as (worker, _):
        assert os.getpgid(worker.pid) == os.getsid(worker.pid) == worker.pid
        assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() == "500"


def test_the_forkserver_has_no_thread_that_a_fork_would_lose():
    with started() as worker:
        forkserver = psutil.Process(worker.pid).ppid()
        tasks = {int(task.name): task for task in Path(f"/proc/{forkserver}/task").iterdir()}
        del tasks[forkserver]
        # An allocator's, which restarts it after a fork. Any other could hold a lock then.
        assert {(task / "comm").read_text().strip() for task in tasks.values()} <= {
            "jemalloc_bg_thd"
        }
