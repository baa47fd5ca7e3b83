"""A connection in memory: what a caller sends goes in, and what it would read comes out."""

import asyncio
import contextlib
from typing import Any

import httpx

from gateway.system.http1.connection import Connection
from gateway.system.http1.connections import ConnectionLimits, Connections

PATIENCE_S = 20.0
LIMITS = ConnectionLimits(most=1000, idle_s=60, head_s=60, read_s=60)


class Wire(asyncio.Transport):
    """What a connection writes to. Its caller reads all of it, unless told to stop."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.written = b""
        self.unread = 0
        self.reads = True
        self.reading = True
        self.ended = asyncio.Event()
        self.news = asyncio.Event()
        connection.connection_made(self)

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        if not self.reads:
            self.unread += len(data)
            if self.unread > 64 * 1024:
                self.connection.pause_writing()
        self.news.set()

    def read_all(self) -> None:
        """Let the caller read all that was written, now and later."""
        self.reads, paused = True, self.unread > 64 * 1024
        self.unread = 0
        if paused:
            self.connection.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self.is_closing():
            raise RuntimeError("the transport is closed")  # as uvloop's does

    def is_closing(self) -> bool:
        return self.ended.is_set()

    def close(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self.news.set()
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send as a caller."""
        if not self.is_closing():
            self.connection.data_received(data)

    async def answered(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Wait for the first answer that is no ``100 Continue``."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                head, mark, body = self.written.partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 100"):
                    head, mark, body = body.partition(b"\r\n\r\n")
                first, *lines = head.decode().split("\r\n")
                pairs = [(name, value) for name, _, value in (_.partition(": ") for _ in lines)]
                if mark and len(body) >= int(dict(pairs).get("content-length", 0)):
                    return int(first.split()[1]), pairs, body
                if self.is_closing():
                    raise EOFError(self.written)
                self.news.clear()
                await self.news.wait()


def connect(service: Any, limits: ConnectionLimits = LIMITS) -> Wire:
    """Connect a caller to a service."""
    return Wire(Connection(Connections(limits), service))


class WireTransport(httpx.AsyncBaseTransport):
    """Sends requests of httpx to a service: whole, or each head and piece of a body by itself."""

    def __init__(self, service: Any, *, whole: bool) -> None:
        self._service = service
        self._whole = whole

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wire = connect(self._service)
        sending = asyncio.ensure_future(self._send(wire, request))
        try:
            status, headers, body = await wire.answered()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            wire.close()
        return httpx.Response(status, headers=headers, content=body)

    async def _send(self, wire: Wire, request: httpx.Request) -> None:
        line = b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)
        lines = [line, *(b"%b: %b" % pair for pair in request.headers.raw)]
        head = b"\r\n".join([*lines, b"", b""])
        stream: Any = request.stream
        if "transfer-encoding" in request.headers:
            wire.send(head)
            async for piece in stream:
                await asyncio.sleep(0)
                wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            wire.send(b"0\r\n\r\n")
            return
        body = b"".join([piece async for piece in stream])
        if self._whole:
            wire.send(head + body)
            return
        half = len(body) // 2
        for piece in (head, body[:half], body[half:]):
            if piece:
                await asyncio.sleep(0)
                wire.send(piece)
