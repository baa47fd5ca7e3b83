"""One HTTP/1.1 connection: one request open at a time, each step of it within its limits.

What comes behind an open request waits as bytes, and reading pauses once there are many: so
requests that are sent ahead need no queue, and no limit of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.system.http1.body import Body
from gateway.system.http1.chunks import Chunks
from gateway.system.http1.connections import Connections
from gateway.system.http1.exchange import STATUS_LINE, Exchange, Service
from gateway.system.http1.head import Head
from gateway.system.http1.refusals import HeadTimeoutError, RefusedError, ending, render

MIN_READ_BYTES = 64 * 1024
"""What a caller has to read of its answer in the time that it has; less only of the last rest."""
_UNREAD_BYTES = 64 * 1024
"""With more of an answer unread, the next request has to wait."""
_AHEAD_BYTES = 64 * 1024
"""With more bytes waiting behind an open request, reading pauses."""
_SKIPPED_BYTES = 64 * 1024
"""The rest of a refused body is skipped if it is no larger; else the connection ends."""
_HEARD_OUT_BYTES = 256 * 1024 * 1024
_HEARD_OUT_S = 5.0
"""A connection that is closed on a caller who is still sending is reset, and the answer may be
lost with it: what comes is dropped, within these limits."""
_HEARD_OUT_BEHIND_A_HEAD_BYTES = 1024 * 1024
"""The same behind a refused head, whose caller may send without end what is never looked at."""
_FAREWELL_S = 1.0


class Connection(asyncio.Protocol):
    """One connection. Event loop only."""

    _transport: asyncio.Transport

    def __init__(
        self,
        connections: Connections,
        service: Service,
        config: Config,  # noqa: ARG002  # uvicorn gives it to every protocol
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002  # as above
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Store; the server makes one for each."""
        self._all = connections
        self._limits = connections.limits
        self._service = service
        self._server_state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._head: Head | None = None  # that arrives
        self._exchange: Exchange | None = None  # whose body arrives, or that is being answered
        self._answering = False
        self._body: Body | None = None  # that arrives
        self._chunks: Chunks | None = None  # of that body
        self._left: int | None = 0  # of that body, or of a refused one; None: a chunked one
        self._ahead = b""  # bytes behind the request that is open, or those of a turn to come
        self._to_hear = 0  # bytes to drop before the end
        self._cut = False
        self._unasked = False  # a refused body whose caller waits to be asked, and need not send it
        self._farewell = False
        self._paused_reading = False
        self._paused_writing = False
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None  # of the step under way
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = self._loop.time()
        self._unread = 0

    # --- begin and end ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; or turn it away, if there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        refusal = self._all.enter(self)
        if refusal is None:
            self._begin_to_idle()
        elif not transport.is_closing():
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # however it ended
        """Let everything go that belongs to it."""
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
        """Whether a request is arriving or being answered, or an answer is still to be read."""
        if self._farewell:
            return False
        under_way = self._exchange is not None or self._head is not None or self._ahead != b""
        return under_way or self._transport.get_write_buffer_size() > 0

    @property
    def idled_s(self) -> float:
        """Seconds since it was made, or since its last answer ended."""
        return self._loop.time() - self._idle_since

    def close(self) -> None:
        """Close it once what was written has been read, within the time for that."""
        self._leaving = True
        self._transport.close()
        self._watch_reader()

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def end_with_answer(self) -> None:
        """Close it with its next answer."""
        if self._exchange is not None:
            self._exchange.keep_alive = False

    def refuse_head(self) -> None:
        """Refuse a request whose head has not come whole: there is no time left to wait for it."""
        if self._head is not None:
            self._refuse(ending())

    def end_exchange(self) -> None:
        """Wait no more for its body, or for its answer."""
        if self._body is not None:
            self._refuse_body(ending())
        elif self._exchange is not None:
            self._exchange.end()

    # --- times ------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, due: Callable[[], None]) -> None:
        """Give the step under way so many seconds. There is one step at a time."""
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, due)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # One timer for all the times that a connection idles: one for each would be set and cancelled
    # with every request.

    def _begin_to_idle(self) -> None:
        self._idle_since = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._limits.idle_s, self._may_have_idled)

    def _may_have_idled(self) -> None:
        """Close it if it has idled for too long; else look again when it will have."""
        self._idle_timer = None
        if self._leaving or self._exchange is not None or self._head is not None:
            return  # what ends that begins to idle, or closes it
        left_s = self._idle_since + self._limits.idle_s - self._loop.time()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._may_have_idled)
        else:
            self.close()

    # --- what arrives -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read what came, unless something goes before it."""
        if self._leaving:
            self._hear_out(len(data))
        elif self._answering or self._ahead:
            self._ahead += data
            self._keep_pace()
        else:
            self._read(data)
            self._keep_pace()

    def _keep_pace(self) -> None:
        """Pause reading while much waits: a transport that resumes brings as much again."""
        much = len(self._ahead) > _AHEAD_BYTES
        if much is self._paused_reading or self._cut or self._transport.is_closing():
            return
        self._paused_reading = much
        if much:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _go_on(self) -> None:
        """Read what waits, in a turn of its own: other connections have theirs in between."""
        if self._leaving or self._answering or self._transport.is_closing():
            return
        data, self._ahead = self._ahead, b""
        if data:
            self._read(data)
        self._keep_pace()

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
            # Empty lines are no request: the connection goes on idling.
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
        """Return what comes after the rest of a refused body."""
        left = self._left or 0
        self._left = max(0, left - len(data))
        return data[left:]

    def _head_is_late(self) -> None:
        self._refuse(HeadTimeoutError(f"no request came within {self._limits.head_s:g} s"))

    def _begin(self, head: Head, rest: bytes) -> None:
        """Begin with a request: at once if all of it is here."""
        keep_alive = head.keep_alive and not self._all.draining
        exchange = self._exchange = Exchange(self, head, keep_alive=keep_alive)
        length = head.length
        if length is not None and length <= len(rest):
            exchange.body, self._ahead = rest[:length], rest[length:]
            self._open(exchange)
        else:
            self._expect(exchange, head, rest)

    def _open(self, exchange: Exchange) -> None:
        self._answering = True
        self._service.begin(exchange)

    # --- bodies that come in pieces ---------------------------------------------------------------

    def _expect(self, exchange: Exchange, head: Head, rest: bytes) -> None:
        self._left = head.length
        try:
            self._body = self._service.expect(exchange, head.length)
        except Exception as error:  # noqa: BLE001  # the service knows its own errors
            self._left = None if head.length is None else head.length - len(rest)
            if head.expects and not rest:
                self._unasked, exchange.keep_alive = True, False
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
        """Take what came of a body; return whether it is complete."""
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
            self._loop.call_soon(self._go_on)
        return self._chunks.complete

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.drop()
        self._body = self._chunks = None

    def _refuse_body(self, error: Exception, *, late: bool = False) -> None:
        """Refuse a request whose body is not here: its rest is skipped, or the connection ends."""
        self._stop_timer()
        self._drop_body()
        exchange = self._exchange
        if exchange is None:
            return
        if late or self._left is None or self._left > _SKIPPED_BYTES:
            exchange.keep_alive = False
        self._cut = isinstance(error, RefusedError) and error.cuts
        self._answering = True
        self._service.refuse(exchange, error)

    # --- answers ----------------------------------------------------------------------------------

    def common_headers(self) -> bytes:
        """Return the lines that every answer has."""
        return self._all.common_headers(self._server_state.default_headers)

    def write(self, data: bytes) -> None:
        """Write, whether the caller reads or not."""
        self._transport.write(data)

    def answered(self) -> None:
        """Go on once the caller has read most of the answer."""
        if self._transport.get_write_buffer_size() <= _UNREAD_BYTES:
            self._complete()
        else:
            self._watch_reader()
            self._loop.call_soon(self._may_be_read)  # a transport may pause only after the turn

    def _may_be_read(self) -> None:
        if not self._paused_writing:
            self._complete()

    def pause_writing(self) -> None:
        """More is unread than the transport keeps."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """Most of it was read."""
        self._paused_writing = False
        if self._answering and not self._leaving:
            self._complete()

    def _complete(self) -> None:
        """Begin with the next request, or to idle, or end the connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return  # the connection was lost
        self._answering = False
        self._stop_timer()
        exchange.was_read()
        if not exchange.keep_alive:
            self._depart()
            return
        self._begin_to_idle()
        if self._ahead:
            self._loop.call_soon(self._go_on)

    def _watch_reader(self) -> None:
        self._unread = self._transport.get_write_buffer_size()
        self._set_timer(self._limits.read_s, self._reader_is_late)

    def _reader_is_late(self) -> None:
        if self._transport.get_write_buffer_size() > self._unread - MIN_READ_BYTES:
            self.abort()
        else:
            self._watch_reader()

    # --- the last answer --------------------------------------------------------------------------

    def _depart(self) -> None:
        """End after an answer; hear its caller out first if the request was not read whole."""
        self._ahead = b""
        if self._cut:
            self._transport.pause_reading()
            self._say_farewell()
        elif self._unasked:
            self._say_farewell()
        elif self._left == 0:
            self.close()
        else:
            self._leaving = True
            self._to_hear = min(self._left or _HEARD_OUT_BYTES, _HEARD_OUT_BYTES)
            self._set_timer(_HEARD_OUT_S, self.close)

    def _hear_out(self, size: int) -> None:
        """Drop what comes after the last answer."""
        self._to_hear -= size
        if self._to_hear > 0 or self._transport.is_closing():
            return
        if self._farewell:
            self._transport.pause_reading()  # it ends soon
        else:
            self.close()

    def _refuse(self, error: RefusedError) -> None:
        """Answer what is no request with an error, and end."""
        self._head, self._ahead = None, b""
        lines, body = render(error)
        line = STATUS_LINE[error.status]
        end = b"connection: close\r\n\r\n"
        self._transport.write(b"".join((line, self.common_headers(), lines, end, body)))
        self._say_farewell()
        self._to_hear = _HEARD_OUT_BEHIND_A_HEAD_BYTES

    def _say_farewell(self) -> None:
        """Say that this was all, and stay for a moment: or the answer may be lost."""
        self._leaving = self._farewell = True
        self._to_hear = _HEARD_OUT_BYTES
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._set_timer(_FAREWELL_S, self.abort)
