"""An ASGI application as a service: requests and answers are passed on as a whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import structlog

from gateway.system.http1.body import Body, UnboundedRoom, check_size
from gateway.system.http1.exchange import STATUS_LINE, Exchange
from gateway.system.http1.head import Header
from gateway.system.http1.refusals import CrashedError, EndingError, RefusedError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OURS = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_ILLEGAL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_log = structlog.get_logger("gateway.system.http1")


class AsgiService:
    """Serves an application. Event loop only.

    A body must make progress within ``body_timeout_s`` seconds; see `Body`.
    """

    def __init__(self, app: App, *, max_body_bytes: int, body_timeout_s: float) -> None:
        self._app = app
        self.max_body_bytes = max_body_bytes
        self.body_timeout_s = body_timeout_s
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, exchange: Exchange, length: int | None) -> Body:  # noqa: ARG002  # the port's
        """Return the receiver of a body that arrives in pieces."""
        check_size(length or 0, self.max_body_bytes)
        return Body(
            max_bytes=self.max_body_bytes,
            timeout_s=self.body_timeout_s,
            room=UnboundedRoom(),
            now=asyncio.get_running_loop().time(),
        )

    def begin(self, exchange: Exchange) -> None:
        """Run the application on a request."""
        try:
            check_size(len(exchange.body), self.max_body_bytes)
        except RefusedError as error:
            exchange.refuse(error)
            return
        call = _Call(exchange)
        task = asyncio.get_running_loop().create_task(self._run(exchange, call))
        # At once: the caller may hang up, or the process end, before the task has begun.
        exchange.on_end = partial(_end, exchange, call, task)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, exchange))

    async def _run(self, exchange: Exchange, call: _Call) -> None:
        try:
            await self._app(_scope(exchange), call.receive, call.send)
            lines = _lines(call)
        except Exception as error:  # noqa: BLE001  # every caller is answered
            self.refuse(exchange, error)
        else:
            exchange.answer(call.status, lines, b"".join(call.pieces))

    def _ended(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and exchange.on_end is not None:  # it was not answered yet
            exchange.keep_alive = False
            exchange.refuse(EndingError())

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request with an error."""
        if not isinstance(error, RefusedError):
            _log.error("request.crashed", exc_info=error)
            error = CrashedError(f"internal error ({type(error).__name__})")
        exchange.refuse(error)

    def end(self) -> None:
        """Cancel every running request, also of callers that have hung up."""
        for task in list(self._tasks):
            task.cancel()


class _Call:
    """One request as the application sees it, and its answer so far."""

    def __init__(self, exchange: Exchange) -> None:
        self._body: bytes | None = exchange.body
        self.gone = asyncio.Event()
        self.status = 0
        self.headers: list[Header] = []
        self.pieces: list[bytes] = []

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
        else:
            self.pieces.append(bytes(message.get("body", b"")))


def _end(exchange: Exchange, call: _Call, task: asyncio.Task[None]) -> None:
    """Report to the application that its caller has hung up, or cancel it if the process ends."""
    call.gone.set()
    if not exchange.disconnected:
        task.cancel()


def _scope(exchange: Exchange) -> Scope:
    path, _, query = exchange.url.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": None,
        "client": None,
        "scheme": "http",
        "root_path": "",
        "method": exchange.method.decode("ascii"),
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": exchange.headers,
        "state": {},
    }


def _lines(call: _Call) -> bytes:
    """Return an answer's headers as lines, with its length."""
    if call.status not in STATUS_LINE:
        raise RuntimeError("the application has not answered with a status from 200 to 599")
    pairs = [(name, value) for name, value in call.headers if name.lower() not in _OURS]
    pairs.append((b"content-length", b"%d" % sum(map(len, call.pieces))))
    if any(_ILLEGAL.search(name + value) for name, value in pairs):
        raise RuntimeError("a header of the answer must not have control characters")
    return b"".join(b"%b: %b\r\n" % pair for pair in pairs)
