"""Steady traffic from a process of its own, in an open loop: when each request is sent is fixed.

``python -m tests.acceptance.steady PORT PATH BODY WANTED --rate R``: asks R times a second until
its standard input ends, then prints one line of JSON for each request. Latency counts from the time
at which the request was due: one that waits for a connection, because the answers before it are
late, is late itself.
"""

import argparse
import asyncio
import gc
import json
import math
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

CONNECTIONS = 64
LAST_ANSWERS_S = 30.0
END_PATIENCE_S = 60.0
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Asked:
    """One request. Times are ``time.monotonic()``, the same clock in every process."""

    due: float
    done: float
    good: bool
    """Answered 200, with what was wanted in the body."""

    @property
    def latency_s(self) -> float:
        return self.done - self.due


def p99_s(asked: Sequence[Asked]) -> float:
    """The latency that 99 of 100 requests do not exceed."""
    assert len(asked) >= 100, f"{len(asked)} requests tell no 99th percentile"
    return sorted(each.latency_s for each in asked)[math.ceil(len(asked) * 0.99) - 1]


class Steady:
    """The process that asks, seen from the test. A context manager; `asked` is there at its end."""

    def __init__(self, port: int, path: str, body: str, wanted: str, *, rate: int) -> None:
        self._command = [sys.executable, "-m", "tests.acceptance.steady"]
        self._command += [str(port), path, body, wanted, "--rate", str(rate)]
        self.asked: list[Asked] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            out = self._process.communicate(timeout=LAST_ANSWERS_S + END_PATIENCE_S)[0]
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        self.asked = [Asked(*json.loads(line)) for line in out.splitlines()]

    def between(self, start: float, end: float) -> list[Asked]:
        """The requests that were due in this time."""
        return [each for each in self.asked if start <= each.due < end]


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, traffic: "_Traffic") -> None:
        self._traffic = traffic
        self._due: float | None = None
        self._received = b""

    def ask(self, due: float) -> None:
        self._due = due
        self._transport.write(self._traffic.request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._traffic.free(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        if not mark:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._received = b""
            wanted = self._traffic.wanted
            self._answered(head.startswith(b"HTTP/1.1 200") and wanted in body)
            self._traffic.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._answered(good=False)
        self._traffic.lost(self)

    def give_up(self) -> None:
        self._transport.abort()
        self._answered(good=False)

    def _answered(self, good: bool) -> None:
        if self._due is not None:
            self._traffic.answered(Asked(self._due, time.monotonic(), good))
            self._due = None


class _Traffic:
    """Requests that are due, and connections that are free for them."""

    def __init__(self, port: int, request: bytes, wanted: bytes) -> None:
        self.request = request
        self.wanted = wanted
        self.asked: list[Asked] = []
        self._port = port
        self._due: deque[float] = deque()
        self._free: deque[_Connection] = deque()  # each in its turn, so that none idles too long
        self._connections: list[_Connection] = []
        self._answered = asyncio.Event()

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self._port
            )
            self._connections.append(connection)

    def answered(self, asked: Asked) -> None:
        self.asked.append(asked)
        self._answered.set()

    def free(self, connection: _Connection) -> None:
        self._free.append(connection)
        self._send()

    def lost(self, connection: _Connection) -> None:
        """A connection that ends is not made again: with the last one, all that is due fails."""
        if connection in self._free:
            self._free.remove(connection)

    async def ask(self, rate: int, ended: asyncio.Event) -> int:
        """Ask until the end; return how many requests were due."""
        loop = asyncio.get_running_loop()
        started, count = time.monotonic(), 0
        tick = asyncio.Event()
        while not ended.is_set():
            due = started + count / rate
            tick.clear()
            loop.call_at(due, tick.set)  # the loop's clock is time.monotonic()
            await tick.wait()
            count += 1
            self._due.append(due)
            self._send()
        return count

    async def settle(self, count: int) -> None:
        """Wait for the last answers; what was not answered has failed."""
        give_up_at = time.monotonic() + LAST_ANSWERS_S
        while len(self.asked) < count and time.monotonic() < give_up_at:
            self._answered.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), 1)
        for connection in self._connections:
            connection.give_up()
        self.asked += [Asked(due, time.monotonic(), good=False) for due in self._due]
        assert len(self.asked) == count

    def _send(self) -> None:
        while self._due and self._free:
            self._free.popleft().ask(self._due.popleft())


async def _run(port: int, path: str, body: str, wanted: str, rate: int) -> None:
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    traffic = _Traffic(port, head.encode() + content, wanted.encode())
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await traffic.connect()
    count = await traffic.ask(rate, ended)
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    await traffic.settle(count)
    for each in traffic.asked:
        print(json.dumps([each.due, each.done, each.good]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body")
    parser.add_argument("wanted")
    parser.add_argument("--rate", type=int, required=True)
    given = parser.parse_args()
    gc.disable()  # it would make pauses of its own
    # Of all loops this one alone sleeps for less than a millisecond.
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        runner.run(_run(given.port, given.path, given.body, given.wanted, given.rate))


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    main()
