"""Connections of the public listener: how many there are, and how slow and how large they may be.

uvicorn bounds how long a connection idles after an answer, and nothing else. Added here are a time
for the head of a request, for a connection on which nothing was ever sent, and for a caller who
does not read its answer; a size of the head; a number of connections, and of requests that are
sent ahead on one. Nearly every request comes in one piece, and costs no timer for any of it: such a
one is offered as an `Exchange` first.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from httptools import HttpParserInvalidURLError
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import (
    DrainingError,
    GatewayError,
    HeadTimeoutError,
    HeadTooLargeError,
    InvalidHttpError,
    TooManyConnectionsError,
)
from gateway.http.exchange import Exchange, Header
from gateway.http.problems import MEDIA_TYPE, new_request_id, render, retry_after, status_of

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_SENT_AHEAD = 16
MIN_READ_BYTES = 64 * 1024
"""What a caller has to read of its answer in the time that it has; less only of the last rest."""
_TURNED_AWAY_AT_ONCE = 512
_FAREWELL_S = 1.0
_INVALID_URL = (
    "the URL is invalid: what is not printable ASCII must be percent-encoded in UTF-8, such as "
    "%C3%BC for \u00fc"
)

Take = Callable[[Exchange], bool]
"""Begins with a request that came whole; False: the application is to have it the usual way."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The most connections; and seconds: to idle, to send a head, to read of an answer."""

    most: int
    idle_s: float
    head_s: float
    read_s: float


class Connections:
    """Every open connection of a listener. Event loop only.

    Attributes:
        draining: Whether each connection ends with its next answer.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        """Store."""
        self.limits = limits
        self.open: set[Connection] = set()
        self.draining = False
        self._owed: set[Connection] = set()
        self._common: tuple[list[Header], bytes] = ([], b"")

    def drain(self) -> None:
        """Let every connection end with its next answer. Twice is once."""
        if self.draining:
            return
        self.draining = True
        self._owed = {connection for connection in self.open if connection.busy}
        for connection in self._owed:
            connection.end_with_answer()

    @property
    def owing(self) -> bool:
        """Whether a connection is open on which something was under way as the drain began.

        Who comes later is refused at once; if that counted, callers who try again and again could
        hold up the end.
        """
        return not self._owed.isdisjoint(self.open)

    def close_idle(self, for_s: float = 0.0) -> None:
        """Close the connections on which nothing has been under way for this many seconds."""
        for connection in list(self.open):
            if not connection.busy and connection.idled_s >= for_s:
                connection.close()

    @property
    def busy(self) -> bool:
        """Whether anything is under way on any of them."""
        return any(connection.busy for connection in self.open)

    def give_up(self) -> None:
        """Close all but those that are being answered; refuse requests that have not come whole."""
        self.close_idle()
        for connection in list(self.open):
            connection.refuse_head()

    def end_exchanges(self) -> None:
        """Wait for no answer any more: whoever is owed one is told so."""
        for connection in list(self.open):
            connection.end_exchange()

    def common_headers(self, headers: list[Header]) -> bytes:
        """Return as lines what the server gives every answer: another list for every second."""
        if self._common[0] is not headers:
            self._common = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._common[1]

    def abort(self) -> None:
        """End all of them at once, whatever is under way."""
        for connection in list(self.open):
            connection.transport.abort()


class Connection(HttpToolsProtocol):
    """One connection, within its limits."""

    def __init__(
        self,
        connections: Connections,
        take: Take | None,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Store; the server makes one for each. ``take`` is offered requests that come whole."""
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._limits = connections.limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._in_head = False
        self._in_body = False
        self._piece_bytes = 0
        self._first_bytes = 0  # of the piece in which the head began
        self._head_bytes = 0  # of all pieces that it came in, and so no fewer than its own
        self._beside_bytes = 0  # of pieces that came after the last one of a body with some of it
        self._unread = 0
        self._deaf = False
        self._refusal: GatewayError | None = None
        self._take = take
        self._held: bytes | None = None  # of a body that may come whole with its head
        self._exchange: Exchange | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is arriving or being answered, or an answer is still to be read."""
        if self._farewell is not None:
            return False
        arriving = self._in_head and not self._deaf
        return self._at_work() or arriving or self.transport.get_write_buffer_size() > 0

    @property
    def idled_s(self) -> float:
        """Seconds since it was made, or since its last answer ended."""
        return self.loop.time() - self._idle_since

    def _at_work(self) -> bool:
        cycle: RequestResponseCycle | Exchange | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _hears(self) -> bool:
        return not self._deaf

    # --- begin and end ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's
        """Begin; or turn it away, if there are too many."""
        super().connection_made(transport)
        self._all.open.add(self)
        beyond = len(self._all.open) - self._limits.most
        if beyond > _TURNED_AWAY_AT_ONCE:
            transport.abort()
        elif beyond > 0:
            self._say_and_close(TooManyConnectionsError("too many connections", retry_after_s=1))
        else:
            self._idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go that belongs to it."""
        self._all.open.discard(self)
        self._end_idle_timer()
        for timer in (self._head_timer, self._read_timer, self._farewell):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.disconnected = True
            self.end_exchange()

    def close(self) -> None:
        """Close it once what was written has been read, within the time for that."""
        self.transport.close()
        self._watch_reader()

    def end_with_answer(self) -> None:
        """Close it with its next answer, that of the last request that was sent ahead."""
        if self._at_work():
            self.cycle.keep_alive = False

    # One timer for all the times that a connection idles: one for each would be set and cancelled
    # with every request.

    def _idle(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._idle_later(self._limits.idle_s)

    def _idle_later(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close it if it has idled for too long; else look again when it will have."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing() or self._at_work() or self._head_timer is not None:
            return  # what ends that begins to idle, or closes it
        left_s = self._idle_since + self._limits.idle_s - self.loop.time()
        if left_s > 0:
            self._idle_later(left_s)
        else:
            self.close()

    def _unset_keepalive_if_required(self) -> None:
        """Keep the timer, which the server would have cancelled: it looks at the time."""

    def _end_idle_timer(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def on_response_complete(self) -> None:
        """Begin with the next request, or to idle; see to it that the answer is read."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._watch_reader()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle()
            self._watch_head()

    # --- what arrives -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what came; begin to count the time of a head that is not complete."""
        if not self._hears():
            return
        self._piece_bytes = len(data)
        if self._in_head:
            self._head_bytes += len(data)
        self._beside_bytes += len(data)
        super().data_received(data)
        if not self._hears():
            return
        if self._held is not None:
            self._begin_with_part()
        if self._in_head and self._head_bytes - self._first_bytes > MAX_HEAD_BYTES:
            self._refuse(_too_large())
        elif self._in_body and self._beside_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadTooLargeError(f"trailers are larger than {MAX_HEAD_BYTES} bytes"))
        self._watch_head()

    def _watch_head(self) -> None:
        """Begin to count the time of a head that has begun, once nothing goes before it.

        What else comes is no request: empty lines, or the rest of a body that was answered before
        it came. The connection idles, and the time for that does not begin anew.
        """
        waits = self._in_head and not self._at_work()
        if waits and self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self._limits.head_s, self._head_is_late)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._first_bytes = self._head_bytes = self._piece_bytes
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A trailer, which comes after the body, is none: it would count as one."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head has come whole: refuse it, or begin with the request."""
        self._in_head = False
        self._in_body = True
        self._beside_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._head_is_large():
            self._refusal = _too_large()
            raise self._refusal
        if len(self.pipeline) >= MAX_SENT_AHEAD:
            self._refusal = InvalidHttpError("too many requests were sent ahead of their answers")
            raise self._refusal
        if self._take is None or self._at_work() or not self._may_come_whole():
            self._begin()
        else:
            self._held = b""

    def _may_come_whole(self) -> bool:
        post = self.parser.get_method() == b"POST"
        return post and not self.expect_100_continue and not self.parser.should_upgrade()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._beside_bytes = 0
        if self._held is None:
            super().on_body(body)
        else:
            self._held += body

    def on_message_complete(self) -> None:
        """A request has come whole: offer it, if it came in one piece."""
        self._in_body = False
        if self._held is None:
            super().on_message_complete()
        elif not self._offer(self._held):
            self._begin_with_part()
            super().on_message_complete()

    def _begin(self) -> None:
        """Begin with a request the usual way, whether its body is here or not."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # only now: what it prepares, nearly no request needs
        self.url, self.expect_100_continue = url, expect
        self.headers += headers
        super().on_headers_complete()
        if self._all.draining:
            self.cycle.keep_alive = False

    def _begin_with_part(self) -> None:
        """Begin the usual way with a request of whose body a part is here, or all of it."""
        body, self._held = self._held, None
        self._begin()
        if body:
            super().on_body(body)

    # --- requests in one piece --------------------------------------------------------------------

    def _offer(self, body: bytes) -> bool:
        parser, before = self.parser, self.cycle
        keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0"
        exchange = Exchange(
            self, self.url, self.headers, body, keep_alive=keep_alive and not self._all.draining
        )
        self.cycle = self._exchange = exchange  # type: ignore[assignment]  # has what is asked of it
        if self._take is None or not self._take(exchange):
            self.cycle, self._exchange = before, None
            return False
        self._held = None
        self.url, self.headers = b"", []  # the connection may idle for long, and needs them no more
        return True

    def end_exchange(self) -> None:
        """Wait for its answer no more, if one is under way."""
        if self._exchange is not None:
            self._exchange.end()

    def common_headers(self) -> bytes:
        """Return the lines that every answer has."""
        return self._all.common_headers(self.server_state.default_headers)

    def write(self, data: bytes) -> None:
        """Write, whether the caller reads or not."""
        self.transport.write(data)

    @property
    def is_read(self) -> bool:
        """Whether the caller has read most of what was written."""
        return not self.flow.write_paused

    async def until_read(self) -> None:
        """Wait until the caller has read most of what was written, or is gone."""
        await self.flow.drain()

    def answered(self, exchange: Exchange) -> None:
        """Go on after an answer."""
        self._exchange = None
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _head_is_large(self) -> bool:
        if len(self.headers) > MAX_HEADERS:
            return True
        if self._head_bytes <= MAX_HEAD_BYTES:
            return False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return size > MAX_HEAD_BYTES

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._at_work():
            self._refuse(HeadTimeoutError(f"no request came within {self._limits.head_s:g} s"))

    def refuse_head(self) -> None:
        """Refuse a request whose head has not come whole: there is no time left to wait for it."""
        if self._in_head and not self._deaf:
            self._refuse(DrainingError("the gateway shuts down now", retry_after_s=1))

    # --- refusals ---------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take. The server calls this while it handles why."""
        if isinstance(sys.exception(), HttpParserInvalidURLError):
            msg = _INVALID_URL
        self._refuse(self._refusal or InvalidHttpError(msg))

    def _refuse(self, error: GatewayError) -> None:
        """Answer with an error, unless earlier requests are to be answered first; then close."""
        own_body = self._at_work() and self.cycle.more_body and not self.cycle.response_started
        if not self._at_work() or (own_body and not self.pipeline):
            self._say_and_close(error)
        else:
            self._deaf = True
            self.cycle.keep_alive = False

    def _say_and_close(self, error: GatewayError) -> None:
        """Answer, say that it was all, and read on for a moment: or the answer may be lost."""
        self._deaf = True
        self._end_idle_timer()
        if self._at_work():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = render(error, new_request_id())
        status = HTTPStatus(status_of(error))
        seconds = retry_after(error)
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"content-type: {MEDIA_TYPE}",
            f"content-length: {len(body)}",
            *([f"retry-after: {seconds}"] if seconds else []),
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._farewell = self.loop.call_later(_FAREWELL_S, self.transport.abort)

    # --- callers who do not read ------------------------------------------------------------------

    def pause_writing(self) -> None:
        """More is unread than a connection keeps: begin to count the time."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Most of it was read."""
        super().resume_writing()
        if self._read_timer is not None and not self.transport.is_closing():
            self._read_timer.cancel()
            self._read_timer = None

    def _watch_reader(self) -> None:
        if self._read_timer is None:
            self._unread = self.transport.get_write_buffer_size()
            self._read_timer = self.loop.call_later(self._limits.read_s, self._reader_is_late)

    def _reader_is_late(self) -> None:
        self._read_timer = None
        unread = self.transport.get_write_buffer_size()
        if unread > self._unread - MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(
        f"the request's line and headers are larger than {MAX_HEAD_BYTES} bytes, or there are "
        f"more than {MAX_HEADERS} headers"
    )
