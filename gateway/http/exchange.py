"""A request that came in one piece, and its answer in one write: nearly every prediction.

ASGI costs such a request a task, a timer and two writes, and as much again in dictionaries: more
than all that this gateway does with it. What comes in several pieces goes that way all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Header = tuple[bytes, bytes]
_NOBODY_WAITS = asyncio.Event()


class Line(Protocol):
    """The connection, as an exchange sees it."""

    def common_headers(self) -> bytes:
        """Return the lines that every answer has."""
        ...

    def write(self, data: bytes) -> None:
        """Write, whether the caller reads or not."""
        ...

    @property
    def is_read(self) -> bool:
        """Whether the caller has read most of what was written."""
        ...

    async def until_read(self) -> None:
        """Wait until the caller has read most of what was written, or is gone."""
        ...

    def answered(self, exchange: Exchange) -> None:
        """Go on after an answer: with the next request, or to the end."""
        ...


class Exchange:
    """One whole request, and its answer. Event loop only.

    To the server it is the request under way, so it has what uvicorn asks of one.

    Attributes:
        url: With headers and body, there until the answer is.
        headers: Names are in lower case.
        keep_alive: Whether the connection goes on after the answer.
        response_complete: Whether it has been answered.
        disconnected: Whether its caller has hung up.
        on_end: Called when it is not to be waited for any more: its caller has hung up, or the
            gateway ends now.
    """

    __slots__ = (
        "_line",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "on_end",
        "response_complete",
        "url",
    )
    more_body = False
    response_started = False
    message_event = _NOBODY_WAITS

    def __init__(
        self, line: Line, url: bytes, headers: list[Header], body: bytes, *, keep_alive: bool
    ) -> None:
        """Store."""
        self._line = line
        self.url = url
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.on_end: Callable[[], object] | None = None

    @property
    def is_read(self) -> bool:
        """Whether an answer can be written now: the caller has read most of those before it."""
        return self._line.is_read

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer. ``lines``: headers, each with its end; ``content-length`` is among them."""
        self._let_request_go()
        self._write(status, lines, body)
        self._complete()

    async def answer_in_time(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer; return when the caller has read most of it, or is gone."""
        self._let_request_go()
        await self._line.until_read()
        self._write(status, lines, body)
        await self._line.until_read()
        self._complete()

    def _write(self, status: int, lines: bytes, body: bytes) -> None:
        if not self.disconnected:
            end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
            pieces = (STATUS_LINE[status], self._line.common_headers(), lines, end, body)
            self._line.write(b"".join(pieces))

    def _let_request_go(self) -> None:
        """Keep nothing of it: the answer is here, but its caller may be slow, and idle for long.

        Nobody is to be told any more that the answer is not waited for.
        """
        self.on_end = None
        self.url = self.body = b""
        self.headers = []

    def _complete(self) -> None:
        self.response_complete = True
        if not self.disconnected:
            self._line.answered(self)

    def end(self) -> None:
        """Stop waiting for the answer, if there is none yet."""
        if self.on_end is not None:
            self.on_end()
