"""One HTTP/1.1 connection: one open request at a time, each step within its limits.

Bytes behind an open request wait, and reading pauses once there are many. So pipelined requests
need no queue and no limit of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.system.http1.body import Body
from gateway.system.http1.chunks import Chunks
from gateway.system.http1.connections import Connections
from gateway.system.http1.exchange import STATUS_LINE, Exchange, Service
from gateway.system.http1.head import Head
from gateway.system.http1.refusals import (
    EndingError,
    HeadTimeoutError,
    RefusedError,
    TinyChunksError,
    render,
)

MIN_READ_BYTES = 64 * 1024
"""Minimum progress of a caller that reads its answer, per read timeout."""
_UNREAD_BYTES = 64 * 1024
"""With more unread bytes of an answer, the next request waits."""
_AHEAD_BYTES = 64 * 1024
"""With more bytes waiting behind an open request, reading pauses."""
_SKIPPED_BYTES = 64 * 1024
"""The most remaining bytes of a refused body that are skipped; beyond, the connection ends."""
_DROPPED_BYTES = 256 * 1024 * 1024
_DROPPED_S = 5.0
"""If a caller still sends when its connection is closed, the connection is reset and the answer may
be lost. So its bytes are dropped first, within these limits."""
_DROPPED_AFTER_HEAD_BYTES = 1024 * 1024
"""The same after a refused head."""
_LAST_READ_S = 1.0


class Connection(asyncio.Protocol):
    """One connection. Event loop only."""

    _transport: asyncio.Transport

    def __init__(self, connections: Connections, service: Service) -> None:
        self._all = connections
        self._limits = connections.limits
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._head: Head | None = None  # the head that arrives
        self._exchange: Exchange | None = None  # its body arrives, or it is being answered
        self._answering = False
        self._body: Body | None = None  # the body that arrives
        self._chunks: Chunks | None = None  # of that body
        self._left: int | None = 0  # remaining bytes of the body, or None for a chunked body
        self._ahead = b""  # bytes behind the open request
        self._to_drop = 0  # bytes to drop before the end
        self._cut = False
        self._paused_reading = False
        self._paused_writing = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None  # of the step under way
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = self._loop.time()
        self._unread = 0

    # --- begin and end ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to idle, or refuse the connection."""
        self._transport = cast("asyncio.Transport", transport)
        refusal = self._all.enter(self)
        if refusal is None:
            self._begin_to_idle()
        elif not transport.is_closing():
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # however it ended
        """Release everything of this connection."""
        self._all.leave(self)
        self._stop_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._head, self._ahead = None, b""
        self._drop_body()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnected = True
            exchange.end()
            exchange.was_read()

    @property
    def busy(self) -> bool:
        """Whether a request arrives or is answered, or an answer is still unread."""
        under_way = self._exchange is not None or self._head is not None or self._ahead != b""
        return under_way or self._transport.get_write_buffer_size() > 0

    @property
    def idled_s(self) -> float:
        """Seconds since it was made, or since its last answer ended."""
        return self._loop.time() - self._idle_since

    def close(self) -> None:
        """Close it once its answer was read, or the read timeout has passed."""
        self._closing = True
        self._transport.close()
        self._watch_reader()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def end_with_answer(self) -> None:
        """Close it with its next answer."""
        if self._exchange is not None:
            self._exchange.keep_alive = False

    def end_exchange(self) -> None:
        """Stop waiting for its head, its body or its answer."""
        if self._head is not None:
            self._refuse(EndingError())
        elif self._body is not None:
            self._refuse_body(EndingError())
        elif self._exchange is not None:
            self._exchange.end()

    # --- timers -----------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, due: Callable[[], None]) -> None:
        """Limit the present step; there is one at a time."""
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, due)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # One timer for all idle times: one each would be set and cancelled with every request.

    def _begin_to_idle(self) -> None:
        self._idle_since = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._limits.idle_s, self._check_idle)

    def _check_idle(self) -> None:
        """Close it if it has idled for too long; else check again when it would have."""
        self._idle_timer = None
        if self._closing or self._exchange is not None or self._head is not None:
            return  # its end begins the idle time anew, or closes the connection
        left_s = self._idle_since + self._limits.idle_s - self._loop.time()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._check_idle)
        else:
            self.close()

    # --- requests ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read bytes, or keep them behind an open request."""
        if self._closing:
            self._drop_bytes(len(data))
        elif self._answering or self._ahead:
            self._ahead += data
            self._pause_or_resume()
        else:
            self._read(data)
            self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        """Pause reading while many bytes wait."""
        much = len(self._ahead) > _AHEAD_BYTES
        if much is self._paused_reading or self._cut or self._transport.is_closing():
            return
        self._paused_reading = much
        if much:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _read_ahead(self) -> None:
        """Read waiting bytes, in a step of their own so that other connections are served."""
        if self._closing or self._answering or self._transport.is_closing():
            return
        data, self._ahead = self._ahead, b""
        if data:
            self._read(data)
        self._pause_or_resume()

    def _read(self, data: bytes) -> None:
        try:
            if self._body is not None:
                self._read_body(self._body, data)
            else:
                self._read_head(data)
        except RefusedError as error:
            self._refuse(error)

    def _read_head(self, data: bytes) -> None:
        if self._left != 0:
            data = self._skip(data)
        head = self._head
        if head is None:
            # Empty lines are not a request: the connection stays idle.
            if data[:1] in (b"\r", b"\n"):
                data = data.lstrip(b"\r\n")
            if not data:
                return
            head = self._head = Head()
        rest = head.take(data)
        if rest is None:
            if self._timer is None:
                self._set_timer(self._limits.head_s, self._head_is_late)
            return
        self._head = None
        self._stop_timer()
        self._begin(head, rest)

    def _skip(self, data: bytes) -> bytes:
        """Return the bytes after a refused body."""
        left = self._left or 0
        self._left = max(0, left - len(data))
        return data[left:]

    def _head_is_late(self) -> None:
        self._refuse(HeadTimeoutError(f"no request came within {self._limits.head_s:g} s"))

    def _begin(self, head: Head, rest: bytes) -> None:
        """Begin a request, or receive its body first."""
        keep_alive = head.keep_alive and not self._all.draining
        exchange = self._exchange = Exchange(self._answer, head, keep_alive=keep_alive)
        length = head.length
        if length is not None and length <= len(rest):
            exchange.body, self._ahead = rest[:length], rest[length:]
            self._open(exchange)
        else:
            self._expect(exchange, head, rest)

    def _open(self, exchange: Exchange) -> None:
        self._answering = True
        self._service.begin(exchange)

    # --- bodies that arrive in pieces -------------------------------------------------------------

    def _expect(self, exchange: Exchange, head: Head, rest: bytes) -> None:
        self._left = head.length
        try:
            self._body = self._service.expect(exchange, head.length)
        except Exception as error:  # noqa: BLE001  # the service knows its own errors
            self._left = None if head.length is None else head.length - len(rest)
            if head.expects and not rest:
                exchange.keep_alive = False
            self._refuse_body(error)
            return
        if head.length is None:
            self._chunks = Chunks()
        if head.expects and not rest:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._watch_body(self._body)
        if rest:
            self._read_body(self._body, rest)

    def _watch_body(self, body: Body) -> None:
        self._set_timer(max(0.0, body.give_up_at - self._loop.time()), self._body_may_be_late)

    def _body_may_be_late(self) -> None:
        body = self._body
        if body is None:
            return
        if self._loop.time() < body.give_up_at:
            self._watch_body(body)
        else:
            self._refuse_body(body.too_late(), late=True)

    def _read_body(self, body: Body, data: bytes) -> None:
        try:
            complete = self._take_body(body, data)
        except Exception as error:  # noqa: BLE001  # as above
            self._refuse_body(error)
            return
        exchange = self._exchange
        if complete and exchange is not None:
            self._stop_timer()
            self._body = self._chunks = None
            self._left = 0
            exchange.body = body.finish()
            self._open(exchange)

    def _take_body(self, body: Body, data: bytes) -> bool:
        """Take a piece of a body; return whether the body is complete."""
        now = self._loop.time()
        if self._chunks is None:
            left = self._left or 0
            self._left = max(0, left - len(data))
            body.add(data[:left], now, last=self._left == 0)
            self._ahead = data[left:]
            return self._left == 0
        pieces, self._ahead = self._chunks.take(data)
        for piece in pieces:
            body.add(piece, now, last=self._chunks.complete)
        if self._ahead and not self._chunks.complete:
            self._loop.call_soon(self._read_ahead)
        return self._chunks.complete

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.drop()
        self._body = self._chunks = None

    def _refuse_body(self, error: Exception, *, late: bool = False) -> None:
        """Refuse a request whose body is incomplete; skip its end, or end the connection."""
        self._stop_timer()
        self._drop_body()
        exchange = self._exchange
        if exchange is None:
            return
        if late or self._left is None or self._left > _SKIPPED_BYTES:
            exchange.keep_alive = False
        self._cut = isinstance(error, TinyChunksError)
        self._answering = True
        self._service.refuse(exchange, error)

    # --- answers ----------------------------------------------------------------------------------

    def _write(self, status: int, lines: bytes, body: bytes, *, keep_alive: bool) -> None:
        end = b"\r\n" if keep_alive else b"connection: close\r\n\r\n"
        head = STATUS_LINE[status], self._all.date_header(), lines, end
        self._transport.write(b"".join((*head, body)))

    def _answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer, and continue once the caller has read most of it."""
        keep_alive = self._exchange is not None and self._exchange.keep_alive
        self._write(status, lines, body, keep_alive=keep_alive)
        if self._transport.get_write_buffer_size() <= _UNREAD_BYTES:
            self._complete()
        else:
            self._watch_reader()
            self._loop.call_soon(self._complete_if_read)  # a transport pauses after this step

    def _complete_if_read(self) -> None:
        if not self._paused_writing:
            self._complete()

    def pause_writing(self) -> None:
        """Note that the transport's buffer is full."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """Continue: most of the answer was read."""
        self._paused_writing = False
        if self._answering and not self._closing:
            self._complete()

    def _complete(self) -> None:
        """Begin the next request or an idle time, or end the connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return  # the connection was lost
        self._answering = False
        self._stop_timer()
        exchange.was_read()
        if not exchange.keep_alive:
            self._end_after_answer()
            return
        self._begin_to_idle()
        if self._ahead:
            self._loop.call_soon(self._read_ahead)

    def _watch_reader(self) -> None:
        self._unread = self._transport.get_write_buffer_size()
        self._set_timer(self._limits.read_s, self._reader_is_late)

    def _reader_is_late(self) -> None:
        if self._transport.get_write_buffer_size() > self._unread - MIN_READ_BYTES:
            self.abort()
        else:
            self._watch_reader()

    # --- the last answer --------------------------------------------------------------------------

    def _end_after_answer(self) -> None:
        """End after an answer; drop the remaining bytes of the request first."""
        self._ahead = b""
        if self._cut:
            self._transport.pause_reading()
            self._end_writing(_LAST_READ_S, 0)
        elif self._left == 0:
            self.close()
        else:
            self._end_writing(_DROPPED_S, min(self._left or _DROPPED_BYTES, _DROPPED_BYTES))

    def _drop_bytes(self, size: int) -> None:
        """Drop bytes after the last answer."""
        self._to_drop -= size
        if self._to_drop > 0 or self._transport.is_closing():
            return
        if self._left:
            self.close()  # that was all of its request
        else:
            self._transport.pause_reading()  # it ends soon

    def _refuse(self, error: RefusedError) -> None:
        """Answer an invalid request with an error, and end."""
        self._head, self._ahead = None, b""
        self._write(error.status, *render(error), keep_alive=False)
        self._end_writing(_LAST_READ_S, _DROPPED_AFTER_HEAD_BYTES)

    def _end_writing(self, seconds: float, most_bytes: int) -> None:
        """Close the sending side, and drop received bytes, within limits."""
        self._closing = True
        self._to_drop = most_bytes
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._set_timer(seconds, self.abort)
