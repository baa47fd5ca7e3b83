"""An application as a service: whoever leaves, and whatever raises, every caller is answered."""

import asyncio
from typing import Any

import pytest

from gateway.system.http1 import asgi
from gateway.system.http1.asgi import AsgiService
from tests.fakes.wire import connect

PATIENCE_S = 20.0
GET = b"GET / HTTP/1.1\r\nhost: g\r\n\r\n"


class Waiting:
    """An application that waits until its caller has left, as one that streams does."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.left = asyncio.Event()

    async def __call__(self, _scope: Any, receive: Any, _send: Any) -> None:
        while not self.told or self.told[-1] != "http.disconnect":
            self.told.append((await receive())["type"])
        self.left.set()


def served(app: Any) -> AsgiService:
    return AsgiService(app, max_body_bytes=100, body_timeout_s=60)


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_application_sees_that_its_caller_hung_up(turns: int) -> None:
    app = Waiting()
    wire = connect(served(app))
    wire.send(GET)
    for _ in range(turns):
        await asyncio.sleep(0)
    wire.connection.connection_lost(None)
    async with asyncio.timeout(PATIENCE_S):
        await app.left.wait()
    assert app.told == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_caller_is_refused_whenever_the_process_ends(turns: int) -> None:
    service = served(Waiting())
    wire = connect(service)
    wire.send(GET)
    for _ in range(turns):
        await asyncio.sleep(0)
    service.end()
    status, headers, body = await wire.answered()
    assert (status, dict(headers)["connection"]) == (503, "close")
    assert b'"draining"' in body
    assert wire.written.count(b"HTTP/1.1") == 1


async def test_failure_before_the_application_runs_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(_exchange: object) -> None:
        raise MemoryError

    monkeypatch.setattr(asgi, "_scope", failing)
    wire = connect(served(Waiting()))
    wire.send(GET)
    assert (await wire.answered())[0] == 500


@pytest.mark.parametrize("status", [200, 0])
async def test_an_answer_has_its_headers_and_needs_a_status(status: int) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"x-a", b"b")]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    wire = connect(served(app))
    wire.send(GET)
    found, headers, _ = await wire.answered()
    assert (found, dict(headers).get("x-a")) == ((200, "b") if status else (500, None))
