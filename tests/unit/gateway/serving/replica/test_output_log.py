"""What a worker prints, read from a real pipe, and what of it reaches the log."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from gateway.serving.replica import output_log
from gateway.serving.replica.output_log import OutputLog
from tests.fakes.waiting import becomes


class Printing:
    """A worker's end of the pipe, and what was logged of it."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.output = OutputLog("m/1", self.read_end)

    def say(self, data: bytes) -> None:
        os.write(self.write_end, data)


@pytest.fixture
async def worker() -> AsyncIterator[Printing]:
    worker = Printing()
    worker.output.open()
    yield worker
    worker.output.close()
    os.close(worker.read_end)
    os.close(worker.write_end)


async def until_logged(logs: list[EventDict], count: int) -> None:
    await becomes(lambda: len(logs) >= count, f"{count} lines are logged")


async def test_output_is_logged_with_its_replica(worker: Printing) -> None:
    with capture_logs() as logs:
        worker.say(b"one\ntwo\n\xff")
        await until_logged(logs, 1)
    assert logs == [
        {
            "event": "worker.output",
            "replica": "m/1",
            "text": "one\ntwo\n�",
            "log_level": "info",
        }
    ]


async def test_endless_output_is_slowed_and_cut(worker: Printing) -> None:
    written, ending = 0, threading.Event()

    def print_on() -> None:
        nonlocal written
        while not ending.is_set():
            written += os.write(worker.write_end, b"the model says something\n" * 100)

    thread = threading.Thread(target=print_on)
    with capture_logs() as logs:
        thread.start()
        await asyncio.sleep(1.0)  # how much of a second's output is logged
        ending.set()
        while thread.is_alive():  # noqa: ASYNC110  # the pipe is read meanwhile
            await asyncio.sleep(0.01)
        worker.output.close()
    logged = sum(len(one["text"]) for one in logs)
    left_out = sum(one.get("left_out_bytes", 0) for one in logs)
    allowed = output_log._BURST_BYTES + 10 * output_log._BYTES_PER_S
    assert logged <= allowed + output_log._LAST_BYTES
    assert written > 4 * allowed, "it was not drowned, but nor did it print much"
    assert logged + left_out == pytest.approx(written, abs=len(logs) + 1)  # final line ends
    assert written < 64 * 1024 * 1024


async def test_last_output_is_always_logged(worker: Printing) -> None:
    worker.output._left_bytes = 0.0
    with capture_logs() as logs:
        worker.say(b"x" * 10_000 + b"\nlast words")
        worker.output.close()
    (only,) = logs
    assert only["text"].endswith("\nlast words")
    assert len(only["text"]) == output_log._LAST_BYTES
    assert only["left_out_bytes"] == 10_011 - len(only["text"])


async def test_end_of_the_pipe_ends_the_log(worker: Printing) -> None:
    with capture_logs() as logs:
        worker.say(b"bye")
        os.close(worker.write_end)
        worker.write_end = os.open(os.devnull, os.O_WRONLY)
        await until_logged(logs, 1)
        await becomes(lambda: not worker.output._open, "the log ends")
        worker.output.close()
    assert len(logs) == 1


async def test_a_pipe_that_blocks_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Printing()
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise OSError(errno.EBADF, "Bad file descriptor")

        broken.setattr(os, "set_blocking", fail)
        with pytest.raises(OSError, match="Bad file descriptor"):
            worker.output.open()
    worker.output.close()  # returns at once, though the worker's end is open
    worker.say(b"unread")
    assert os.read(worker.read_end, 16) == b"unread"
    os.close(worker.read_end)
    os.close(worker.write_end)
