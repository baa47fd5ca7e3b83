"""One request and its answer."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from gateway.system.http1.body import Body
from gateway.system.http1.head import Head
from gateway.system.http1.refusals import RefusedError, render

_PHRASES = {one.value: one.phrase for one in HTTPStatus}
STATUS_LINE = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
    for status in range(200, 600)
}


Send = Callable[[int, bytes, bytes], None]
"""Sends an answer: its status, its header lines and its body."""


class Exchange:
    """One request and its answer. Event loop only.

    Attributes:
        method: In upper case.
        url: Path and query.
        headers: Pairs in order; names are in lower case.
        fields: The headers by name; of duplicates, the last.
        body: Complete from `Service.begin` on.
        read: The head as `Service.expect` has parsed it, or None.
        keep_alive: Whether the connection stays open after the answer.
        disconnected: Whether the caller has hung up.
        on_end: Called if the caller hangs up, or the process ends, before the answer.
        on_read: Called once, when most of the answer was read or the caller has hung up.
    """

    __slots__ = (
        "_send",
        "body",
        "disconnected",
        "fields",
        "headers",
        "keep_alive",
        "method",
        "on_end",
        "on_read",
        "read",
        "url",
    )

    def __init__(self, send: Send, head: Head, *, keep_alive: bool) -> None:
        self._send = send
        self.method = head.method
        self.url = head.url
        self.headers = head.headers
        self.fields = head.fields
        self.body = b""
        self.read: object = None
        self.keep_alive = keep_alive
        self.disconnected = False
        self.on_end: Callable[[], object] | None = None
        self.on_read: Callable[[], object] | None = None

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer. ``lines``: all headers, each with its line break."""
        # The caller may read slowly: drop the request now.
        self.on_end = None
        self.url = self.body = b""
        self.headers, self.fields, self.read = [], {}, None
        if self.disconnected:
            self.was_read()
            return
        self._send(status, lines, b"" if self.method == b"HEAD" else body)

    def refuse(self, error: RefusedError) -> None:
        """Answer with a problem."""
        lines, body = render(error)
        self.answer(error.status, lines, body)

    def was_read(self) -> None:
        """Call ``on_read``. Idempotent."""
        on_read, self.on_read = self.on_read, None
        if on_read is not None:
            on_read()

    def end(self) -> None:
        """Stop waiting for the answer."""
        if self.on_end is not None:
            self.on_end()


class Service(Protocol):
    """Serves the requests of a listener. Only `expect` may raise."""

    def expect(self, exchange: Exchange, length: int | None) -> Body:
        """Return the receiver of a body that arrives in pieces. ``length``: None if chunked.

        Raises:
            Exception: The request is refused by its head.
        """
        ...

    def begin(self, exchange: Exchange) -> None:
        """Begin a complete request; `Exchange.answer` ends it."""
        ...

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request for which `expect` or its body has raised an error."""
        ...

    def end(self) -> None:
        """Stop waiting: the process ends."""
        ...
