"""The expected answers of an artifact, asked of models that are plain functions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gateway.worker.loading import expected_answers
from gateway.worker.loading.input_example import WarmUpFailedError
from gateway.worker.rows import signature as rules
from gateway.worker.served_model import ServedModel

SIGNATURE = rules.Signature(columns=(rules.Column("x", "double"),))


def doubling(inputs: Any) -> Any:
    return 2 * inputs.arrays["x"]


def check(folder: Path, *lines: Any, call: Any = doubling, data: bytes | None = None) -> int:
    """Write the file (objects become lines) and have a model answer it."""
    text = "\n".join(json.dumps(line) for line in lines).encode() if data is None else data
    (folder / expected_answers.FILE).write_bytes(text)
    return expected_answers.check(ServedModel("m", 1, SIGNATURE, call), folder).count


def line(*values: float, expect: Any, **more: Any) -> dict[str, Any]:
    return {"request": {"instances": [{"x": value} for value in values]}, "expected": expect} | more


def failure(*arguments: Any, **named: Any) -> str:
    with pytest.raises(WarmUpFailedError) as failed:
        check(*arguments, **named)
    return str(failed.value)


def test_an_artifact_without_the_file_expects_nothing(tmp_path: Path) -> None:
    model = ServedModel("m", 1, SIGNATURE, doubling)
    assert expected_answers.check(model, tmp_path) == expected_answers.CheckedAnswers(
        0, whole=False
    )


def test_answers_as_expected_are_counted(tmp_path: Path) -> None:
    lines = [line(1.0, 2.0, expect=[2.0, 4]), line(0.5, expect=[1.0], tolerance=0)]
    assert check(tmp_path, *lines) == 2


def test_empty_lines_say_nothing_but_count(tmp_path: Path) -> None:
    one = json.dumps(line(1.0, expect=[2.0])).encode()
    assert check(tmp_path, data=b"\n" + one + b"\r\n\n" + one + b"\n") == 2
    told = failure(tmp_path, data=b"\n\n" + one.replace(b"2.0", b"3.0"))
    assert told.startswith("warmup.jsonl, line 3, row 0: off by 1")


def test_a_mismatch_names_line_row_and_difference(tmp_path: Path) -> None:
    wrong = line(1.0, 2.0, expect=[2.0, 4.25])
    told = failure(tmp_path, line(1.0, expect=[2.0]), wrong)
    assert told == "warmup.jsonl, line 2, row 1: off by 0.25, where 4.25e-05 is allowed"


@pytest.mark.parametrize(
    ("got", "wanted", "tolerance", "told"),
    [
        ([1.0], [1.0 + 9e-6], 1e-5, None),
        ([1.0], [1.0 + 2e-5], 1e-5, "row 0: off by 2e-05, where 1e-05 is allowed"),
        ([1e6], [1e6 + 9.0], 1e-5, None),
        ([0.0], [9e-6], 1e-5, None),
        ([1.0], [1.5], 0.5, None),
        ([0.1 + 0.2], [0.3], 0.0, "row 0: off by 5.551e-17, where 0 is allowed"),
        ([0.3], [0.3], 0.0, None),
        ([1], [2], 10.0, "row 0: off by 1"),
        ([3.0], [3], 0.0, None),
        ([3.5], [3], 1.0, None),
        (["a"], ["a"], 1.0, None),
        (["a"], ["b"], 1.0, "row 0: another string than expected"),
        ([True], [False], 1.0, "row 0: another boolean than expected"),
        ([True], [1], 1.0, "row 0: a boolean where a whole number is expected"),
        ([None], [None], 0.0, None),
        ([None], [1.0], 1.0, "row 0: null where a number is expected"),
        ([1.0], [1.0, 2.0], 1.0, "1 rows where 2 are expected"),
        ([[1.0, 2.0]], [[1.0, 4.0]], 0.25, "row 0[1]: off by 2, where 1 is allowed"),
        ([[1.0]], [[1.0, 2.0]], 0.5, "row 0: 1 values where 2 are expected"),
        ([{"a": 1.0}], [{"a": 2.0}], 0.1, "row 0, 'a': off by 1, where 0.2 is allowed"),
        ([{"a": 1.0}], [{"b": 1.0}], 0.1, "row 0: other fields than expected"),
        ({"all": [1.0]}, {"all": [1.0]}, 0.0, None),
        ("a", "b", 0.0, "the answer: another string than expected"),
        ([1e308], [-1e308], 1.0, "row 0: off by inf, where 1e+308 is allowed"),
    ],
)
def test_what_counts_as_equal(got: Any, wanted: Any, tolerance: float, told: str | None) -> None:
    assert expected_answers.difference(got, wanted, tolerance) == told


def test_numbers_of_libraries_are_compared_as_callers_get_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": np.array([1.5], dtype="float32"), "label": ["a"]})
    wanted = [{"y": 1.5, "label": "a"}]
    assert check(tmp_path, line(1.0, expect=wanted), call=lambda _: frame) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"no JSON",
        b'{"request": {"instances": [[1]]}, "expected": [NaN]}',
        b"[1, 2]",
        b'{"request": {"instances": [[1]]}}',
        b'{"expected": [1]}',
        b'{"request": {"instances": [[1]]}, "expected": [2.0], "tolerence": 1}',
        b'{"request": [[1]], "expected": [2.0]}',
        b'{"request": {}, "expected": [2.0], "tolerance": -1}',
        b'{"request": {}, "expected": [2.0], "tolerance": true}',
        b'{"request": {}, "expected": [2.0], "tolerance": "1"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_line_that_cannot_be_read_is_a_failure_with_its_number(
    tmp_path: Path, data: bytes
) -> None:
    good = json.dumps(line(1.0, expect=[2.0])).encode()
    told = failure(tmp_path, data=good + b"\n" + data)
    assert told.startswith("warmup.jsonl, line 2 cannot be read: "), told
    assert len(told) < 200


def test_a_request_without_an_answer_is_a_failure_that_says_why(tmp_path: Path) -> None:
    told = failure(tmp_path, {"request": {"instances": [{"x": "secret"}]}, "expected": [1.0]})
    assert told == (
        "warmup.jsonl, line 1: the input does not fit the model's signature "
        "(row 0, field 'x', a string where a number is needed)"
    )


def test_an_answer_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    class Odd:
        def tolist(self) -> None:
            raise RuntimeError("no")

    told = failure(tmp_path, line(1.0, expect=[2.0]), call=lambda _: [Odd()])
    assert told == "warmup.jsonl, line 1: the model's answer could not be read: RuntimeError"


def test_file_and_reason_are_bounded(tmp_path: Path) -> None:
    one = json.dumps(line(1.0, expect=[2.0])).encode() + b"\n"
    assert check(tmp_path, data=one * expected_answers.MAX_LINES) == expected_answers.MAX_LINES
    assert "more than 1000 lines" in failure(tmp_path, data=one * (expected_answers.MAX_LINES + 1))
    assert "larger than 8 MiB" in failure(tmp_path, data=b" " * (expected_answers.MAX_BYTES + 1))
    assert "is empty" in failure(tmp_path, data=b"\n \n")
    names = {"n" * 1000: {"m" * 1000: {"o" * 1000: {"p" * 1000: {"q" * 1000: {"r" * 9: 1.0}}}}}}
    deep: Any = [names]
    for _ in range(20):
        deep = [{"s" * 100: deep}]
    told = failure(tmp_path, line(1.0, expect=json.loads(json.dumps(deep).replace("1.0", "2.0"))),
                   call=lambda _: deep)  # fmt: skip
    assert len(told) <= 300


def test_answers_that_are_not_one_per_row_are_compared_whole(tmp_path: Path) -> None:
    def forecast(inputs: Any) -> Any:
        return np.arange(3.0) + inputs.arrays["x"][0]

    (tmp_path / expected_answers.FILE).write_text(json.dumps(line(1.0, expect=[1.0, 2.0, 3.0])))
    model = ServedModel("m", 1, SIGNATURE, forecast)
    assert expected_answers.check(model, tmp_path) == expected_answers.CheckedAnswers(1, whole=True)
    told = failure(tmp_path, line(1.0, expect=[1.0]), call=forecast)
    assert told == "warmup.jsonl, line 1, 3 rows where 1 are expected"
