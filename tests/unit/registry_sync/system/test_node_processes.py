"""When a process of the node that has ended is started again."""

import pytest

from registry_sync.system.node_processes import End, pause_before_restart


@pytest.mark.parametrize(
    ("status", "was_up", "pause_s"),
    [
        (1, False, None),
        (2, False, None),
        (1, True, 0.5),
        (2, True, 0.5),
        (0, False, 0.5),
        (-9, False, 0.5),
        (71, False, 0.5),
    ],
)
def test_a_process_that_refuses_its_start_is_not_started_again(
    status: int, was_up: bool, pause_s: float | None
) -> None:
    assert pause_before_restart(End(status, 1.0), was_up=was_up, short_runs=1) == pause_s


def test_pauses_grow_while_runs_are_short_and_are_bounded() -> None:
    ends = [(count, End(-11, 1.0)) for count in (0, 1, 2, 3, 6, 7, 10_000)]
    pauses = [pause_before_restart(end, was_up=True, short_runs=count) for count, end in ends]
    assert pauses == [0.5, 0.5, 1.0, 2.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("status", "says"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-63, "signal 63")],
)
def test_an_end_is_said_in_words(status: int, says: str) -> None:
    assert str(End(status, 1.0)) == says
