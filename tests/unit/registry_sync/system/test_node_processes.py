"""When a process of the node that has ended is started again, and how long its end may take."""

import pytest

from registry_sync.system.node_processes import (
    _PLANES,
    End,
    _stop_limit_s,
    pause_before_restart,
)


def test_pauses_grow_while_runs_are_short_and_are_bounded() -> None:
    pauses = [pause_before_restart(count) for count in (0, 1, 2, 3, 6, 7, 10_000)]
    assert pauses == [0.5, 0.5, 1.0, 2.0, 16.0, 30.0, 30.0]


def test_a_control_plane_that_fails_does_not_end_the_gateway() -> None:
    assert [(one.name, set(one.refusals)) for one in _PLANES] == [
        ("gateway", {1, 2}),
        ("control plane", {2}),
    ]


@pytest.mark.parametrize(("given", "limit_s"), [("", 45), ("5", 20), ("many", 45)])
def test_the_end_may_take_as_long_as_the_gateway_drains_and_a_margin(
    given: str, limit_s: float
) -> None:
    assert _stop_limit_s({"GATEWAY_DRAIN_TIMEOUT_S": given}) == limit_s


@pytest.mark.parametrize(
    ("status", "says"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-63, "signal 63")],
)
def test_an_end_is_said_in_words(status: int, says: str) -> None:
    assert str(End(status, 1.0)) == says
