"""A connection after a refusal, and one whose caller sends ahead."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.system.http1 import connection
from gateway.system.http1.asgi import AsgiService
from tests.fakes.wire import Wire, connect

PATIENCE_S = 20.0
MOST = 100_000
NEXT = b"GET / HTTP/1.1\r\nhost: g\r\n\r\n"


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def head(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\n" % length


@pytest.mark.parametrize("length", [MOST + 1, 1_000_000, 20])
async def test_refusal_before_100_continue_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(connection, "_DROPPED_S", 0.01)
    wire = connect(AsgiService(hello, max_body_bytes=min(MOST, length - 1), body_timeout_s=60))
    wire.send(head(length) + b"expect: 100-continue\r\n\r\n")
    status, headers, _ = await wire.answered()
    assert (status, dict(headers)["connection"]) == (413, "close")
    wire.send(NEXT)
    async with asyncio.timeout(PATIENCE_S):
        await wire.ended.wait()
    assert wire.written.count(b"HTTP/1.1") == 1


async def test_a_connection_goes_on_behind_a_small_refused_body_that_comes() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=10, body_timeout_s=60))
    wire.send(head(20) + b"expect: 100-continue\r\n\r\n" + b"x" * 5)
    status, headers, _ = await wire.answered()
    assert status == 413
    assert "connection" not in dict(headers)
    wire.written = b""
    wire.send(b"x" * 15 + NEXT)
    assert (await wire.answered())[0] == 200


async def test_the_last_answer_to_a_whole_request_closes_the_connection_at_once() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    wire.send(head(3) + b"connection: close\r\n\r\nabc")
    await in_turns(wire.is_closing)
    assert wire.written.endswith(b"hello")


# --- requests that are sent ahead -----------------------------------------------------------------

AHEAD_BYTES = 1024
PIECE = NEXT * 100
"""Much more than may wait behind an open request, as what a transport reads at once is."""
CHUNKED = b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"


@pytest.fixture
def little_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_AHEAD_BYTES", AHEAD_BYTES)


async def in_turns(look: Callable[[], bool]) -> None:
    """Give the loop turns until something is true."""
    for _ in range(10_000):
        if look():
            return
        await asyncio.sleep(0)
    raise AssertionError("it has not become true")


def answers(wire: Wire) -> int:
    return wire.written.count(b"HTTP/1.1 200")


@pytest.mark.usefixtures("little_waits")
async def test_pipelined_requests_are_read_as_they_are_answered() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    for pieces in (1, 2, 3):
        wire.send(PIECE)
        assert not wire.reading, "100 requests are more than may wait"
        await in_turns(lambda: wire.reading)
        left = 100 * pieces - answers(wire)
        assert left * len(NEXT) <= AHEAD_BYTES + len(NEXT)
    await in_turns(lambda: answers(wire) == 300)


@pytest.mark.usefixtures("little_waits")
async def test_a_large_body_that_begins_ahead_is_read_to_its_end() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    wire.send(NEXT)
    wire.send(head(2 * len(PIECE)) + b"\r\n" + PIECE)
    assert not wire.reading
    await in_turns(lambda: wire.reading)
    wire.send(PIECE)
    await in_turns(lambda: answers(wire) == 2)


@pytest.mark.usefixtures("little_waits")
async def test_bytes_behind_a_refused_head_are_dropped() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    wire.send(NEXT)
    wire.send(b"no request\r\n\r\n" + PIECE)
    assert not wire.reading
    await in_turns(lambda: b"HTTP/1.1 400" in wire.written)
    assert wire.reading


@pytest.mark.usefixtures("little_waits")
async def test_reading_stays_paused_behind_a_body_that_cuts_the_connection() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    wire.send(NEXT)
    wire.send(CHUNKED + CHUNK * 50_000)
    await in_turns(lambda: b"HTTP/1.1 400" in wire.written)
    assert not wire.reading


async def test_reading_pauses_behind_a_body_that_comes_slowly_and_cuts_the_connection() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    wire.send(CHUNKED)

    def refused() -> bool:
        assert wire.reading, "nothing waits yet"
        wire.send(CHUNK)
        return b"HTTP/1.1 400" in wire.written

    await in_turns(refused)
    assert not wire.reading


async def test_the_refusal_of_a_caller_that_has_left_ends_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    monkeypatch.setattr(wire, "write", lambda _: wire.close())
    wire.send(b"no request\r\n\r\n")
    assert wire.is_closing()


async def test_dropping_behind_a_refused_head_is_bounded() -> None:
    wire = connect(AsgiService(hello, max_body_bytes=MOST, body_timeout_s=60))
    wire.send(b"no request\r\n\r\n")
    most = 32  # of 64 KiB each
    dropped = 0
    while wire.reading and dropped < most:
        wire.send(b"x" * 64 * 1024)
        dropped += 1
    assert 1 < dropped < most
    assert not wire.is_closing(), "its caller may still read the answer"
    async with asyncio.timeout(PATIENCE_S):
        await wire.ended.wait()
