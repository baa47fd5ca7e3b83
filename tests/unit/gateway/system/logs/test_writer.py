"""Log lines into a real pipe: in order, bounded, and never waited for."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.system.logs import writer
from gateway.system.logs.writer import LogWriter

PATIENCE_S = 20.0
MANY = 10 * writer.MOST_LINES


class Pipe:
    """A pipe that somebody may read later, and the lines that go into it."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.lines = LogWriter(
            self.write_end, lambda count: self.lines.write(f"left out {count}\n")
        )

    def read(self) -> list[str]:
        """Read to the end."""
        os.close(self.write_end)
        with os.fdopen(self.read_end) as stream:
            return stream.read().splitlines()

    def fill(self) -> int:
        """Write until no byte more goes in; return how many did."""
        os.set_blocking(self.write_end, False)
        filled = 0
        for size in (4096, 1):
            try:
                while True:
                    filled += os.write(self.write_end, b"\n" * size)
            except BlockingIOError:
                pass
        os.set_blocking(self.write_end, True)
        return filled


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    pipe.lines.start()
    yield pipe
    # Whoever waits for a reader fails, and goes.
    os.close(os.dup2(os.open(os.devnull, os.O_RDWR), pipe.read_end))


def in_time(work) -> None:
    """Run in a thread, which may hang."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it waits for the reader"


def test_logged_lines_are_written_at_the_end(pipe: Pipe) -> None:
    for number in range(1000):
        pipe.lines.write(f"{number} é\udcff\n")
    pipe.lines.end()
    assert pipe.read() == [f"{number} é\\udcff" for number in range(1000)]


def test_logging_does_not_wait_for_the_reader(pipe: Pipe) -> None:
    pipe.fill()
    in_time(lambda: [pipe.lines.write(f"{number}\n") for number in range(MANY)])
    began = time.monotonic()
    in_time(pipe.lines.end)
    assert time.monotonic() - began < 2 * writer.END_TIMEOUT_S


@pytest.mark.parametrize("more", [False, True], ids=["then silence", "then more"])
def test_gap_is_reported_at_its_position(pipe: Pipe, more: bool) -> None:
    filled = pipe.fill()
    for number in range(MANY):
        pipe.lines.write(f"{number}\n")
    os.read(pipe.read_end, filled)
    give_up_at = time.monotonic() + PATIENCE_S
    while pipe.lines._left_out or not pipe.lines._lines.empty():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    if more:
        pipe.lines.write("more\n")
    pipe.lines.end()
    said = [line for line in pipe.read() if line]
    kept = [line for line in said if line.isdigit()]
    assert len(kept) >= writer.MOST_LINES
    assert kept == [str(number) for number in range(len(kept))]
    assert said == [*kept, f"left out {MANY - len(kept)}", *(["more"] if more else [])]


def test_gap_is_reported_at_the_end(pipe: Pipe) -> None:
    filled = pipe.fill()
    for number in range(MANY):
        pipe.lines.write(f"{number}\n")
    ending = threading.Thread(target=pipe.lines.end)
    ending.start()
    os.read(pipe.read_end, filled)
    ending.join(PATIENCE_S)
    said = pipe.read()
    assert said[-1] == f"left out {MANY - (len([line for line in said if line]) - 1)}"


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.write_end, False)
    size = fcntl.fcntl(pipe.write_end, fcntl.F_GETPIPE_SZ)
    line = "x" * size
    read: list[bytes] = []
    pipe.lines.write(line)
    pipe.lines.write(line)
    reader = threading.Thread(target=lambda: read.extend(iter(lambda: got(pipe, 2 * size), b"")))
    reader.start()
    pipe.lines.end()
    os.close(pipe.write_end)
    reader.join(PATIENCE_S)
    assert b"".join(read) == 2 * line.encode()


def got(pipe: Pipe, most: int) -> bytes:
    return os.read(pipe.read_end, most)


def test_missing_reader_costs_nothing(pipe: Pipe) -> None:
    spare = os.open(os.devnull, os.O_RDONLY)
    os.dup2(spare, pipe.read_end)
    os.close(spare)
    for _ in range(100):
        pipe.lines.write("x\n")
    in_time(pipe.lines.end)
    assert not pipe.lines._writer.is_alive()


def test_writer_calls_back_regularly_and_at_the_end(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "REGULARLY_S", 0.01)
    ends: list[bool] = []

    def regularly(at_end: bool) -> None:
        ends.append(at_end)
        lines.write("the last\n" if at_end else "")
        raise ValueError("a fault of whoever is called")

    lines = LogWriter(pipe.write_end, lambda _: None, regularly)
    lines.start()
    give_up_at = time.monotonic() + PATIENCE_S
    while len(ends) < 3:
        assert time.monotonic() < give_up_at
        time.sleep(0.005)
    lines.end()
    assert (ends[-1], ends.count(True)) == (True, 1)
    assert pipe.read()[-1] == "the last"
