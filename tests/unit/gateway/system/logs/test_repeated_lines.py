"""Equal warnings are written once, and counted; whatever else is logged passes."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from gateway.system.logs.repeated_lines import MOST_REMEMBERED, WINDOW_S, RepeatedLines


class Log:
    """What is written, through both ways into a log, at a time that the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.counts: list[tuple[str, int]] = []
        self.repeated = RepeatedLines(
            lambda name, times: self.counts.append((name, times)), lambda: self.now
        )

    def log(self, method: str, event: str, **fields: Any) -> None:
        try:
            self.repeated.process(None, method, {"event": event, **fields})
        except structlog.DropEvent:
            return
        self.lines.append(event)

    def foreign(self, level: int, text: str, *args: object) -> None:
        record = logging.LogRecord("asyncio", level, "", 0, text, args, None)
        if self.repeated.filter(record):
            self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.mark.parametrize(
    "write",
    [
        lambda log: log.log("error", "accept.failed", reason="no descriptor"),
        lambda log: log.log("exception", "accept.failed", exc_info=OSError(24, "no descriptor")),
        lambda log: log.foreign(logging.ERROR, "accept.%s", "failed"),
    ],
    ids=["ours", "an exception", "a library's"],
)
def test_a_line_that_repeats_is_counted(log: Log, write: Callable[[Log], None]) -> None:
    for _ in range(1000):
        write(log)
    assert log.lines == ["accept.failed"]
    log.repeated.log_counts(False)
    assert log.counts == []
    log.now += WINDOW_S
    log.repeated.log_counts(False)
    assert [times for _, times in log.counts] == [999]
    write(log)
    assert len(log.lines) == 2


@pytest.mark.parametrize("name", ["request_id", "stage_id", "pid"])
def test_lines_that_differ_in_the_name_of_one_occurrence_only_are_equal(
    log: Log, name: str
) -> None:
    for number in range(10_000):
        fields = {"model": "m", "status": 503, name: number}
        log.log("warning", "request.refused", **fields)
        log.log("error", "request.crashed", exc_info=ValueError("no"), **fields)
    assert log.lines == ["request.refused", "request.crashed"]
    log.log("warning", "request.refused", model="other", status=503, **{name: 1})
    assert len(log.lines) == 3


def test_lines_that_differ_are_all_written(log: Log) -> None:
    for number in range(3):
        log.log("warning", "step.failed", model=f"m{number}")
        log.log("error", "step.failed", model="m", exc_info=ValueError(number))
        log.log("error", "step.failed", model="m")
    assert len(log.lines) == 7


@pytest.mark.parametrize("method", ["debug", "info"])
def test_lines_below_warnings_are_never_counted(log: Log, method: str) -> None:
    for _ in range(3):
        log.log(method, "worker.output", text="the same")
        log.foreign(logging.INFO, "the same")
    assert len(log.lines) == 6


def test_counts_are_logged_at_the_end_and_bounded(log: Log) -> None:
    for number in range(2 * MOST_REMEMBERED):
        for _ in range(2):
            log.log("warning", "line", number=number)
    assert len(log.repeated._lines) == MOST_REMEMBERED
    log.repeated.log_counts(True)
    assert log.counts == [("line", 1)] * MOST_REMEMBERED + [("others", MOST_REMEMBERED)]
    log.repeated.log_counts(True)
    assert len(log.counts) == MOST_REMEMBERED + 1
