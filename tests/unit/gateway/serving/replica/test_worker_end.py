"""How a worker ended, as its status and its output tell."""

import pytest

from gateway.serving.replica.worker_end import WorkerEnd, last_lines

FATAL = """loading
Fatal Python error: Segmentation fault

Current thread 0x01 (most recent call first):
  File "/model/code/odd.py", line 3 in load
  File "/lib/mlflow/pyfunc.py", line 9 in load_model

Extension modules: numpy, pandas (total: 2)
"""


@pytest.mark.parametrize(
    ("status", "says", "is_crash"),
    [
        (0, "ended itself with exit status 0", True),
        (3, "ended itself with exit status 3", True),
        (-11, "was ended by SIGSEGV", True),
        (-6, "was ended by SIGABRT", True),
        (-9, "was ended by SIGKILL", False),
        (-15, "was ended by SIGTERM", False),
        (-63, "was ended by signal 63", False),
        (255, "ended itself with exit status 255", True),
        (None, "ended", False),
    ],
)
def test_only_what_a_process_does_itself_is_a_crash(
    status: int | None, says: str, is_crash: bool
) -> None:
    assert (str(WorkerEnd(status)), WorkerEnd(status).is_crash) == (says, is_crash)


def test_of_a_fatal_error_its_first_lines_are_shown() -> None:
    assert last_lines(FATAL) == (
        "Fatal Python error: Segmentation fault | Current thread 0x01 (most recent call first): | "
        'File "/model/code/odd.py", line 3 in load | '
        'File "/lib/mlflow/pyfunc.py", line 9 in load_model'
    )


def test_of_other_output_the_last_lines_are_shown_within_a_bound() -> None:
    assert last_lines("\n".join(map(str, range(100)))) == "94 | 95 | 96 | 97 | 98 | 99"
    assert last_lines("") == last_lines("\n \n") == ""
    assert last_lines("a" * 5000 + "end") == "a" * 597 + "end"
    assert len(last_lines("Fatal Python error: " + "a" * 5000)) == 600
