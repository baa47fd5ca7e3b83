"""A listener's server, which answers every caller before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial

from gateway.system.http1.connection import Connection
from gateway.system.http1.connections import Connections
from gateway.system.http1.exchange import Service

_BACKLOG = 2048
_CHECK_EVERY_S = 0.05
_LAST_REQUEST_S = 0.5
"""Idle time before a draining server closes a connection: a request may be on its way."""
_LAST_ANSWER_S = 1.0


class Server:
    """Serves callers; at its end, it first completes the accepted requests. Event loop only."""

    def __init__(
        self, service: Service, connections: Connections, *, drain_timeout_s: float
    ) -> None:
        """Prepare to serve.

        Args:
            service: Serves the requests.
            connections: Bounds the connections.
            drain_timeout_s: The longest wait for accepted requests at the end.
        """
        self._service = service
        self._connections = connections
        self._drain_timeout_s = drain_timeout_s
        self._stopping = asyncio.Event()
        self._at_once = False

    def stop(self, *, at_once: bool = False) -> None:
        """Begin to drain; ``at_once``: refuse the requests that are not answered yet."""
        self._at_once = self._at_once or at_once
        self._stopping.set()

    async def serve(self, listener: socket.socket) -> None:
        """Serve the connections of a socket until `stop`, and drain them."""
        server = await asyncio.get_running_loop().create_server(
            partial(Connection, self._connections, self._service), sock=listener, backlog=_BACKLOG
        )
        await self._stopping.wait()
        await self._drain(server, listener)

    async def _drain(self, server: asyncio.Server, listener: socket.socket) -> None:
        """Let each answer end its connection, and refuse late requests.

        When the drain times out, the remaining requests are refused.
        """
        self._connections.drain()
        await self._until_quiet()
        server.close()
        listener.close()
        await asyncio.sleep(_CHECK_EVERY_S)  # the last accepted requests are read and refused
        if not self._at_once and not self._connections.owing:
            await self._within(_LAST_ANSWER_S, lambda: not self._connections.busy)  # late refusals
        self._connections.end_exchanges()
        self._service.end()
        await self._within(_LAST_ANSWER_S, lambda: not self._connections.open)
        self._connections.abort()
        await asyncio.sleep(0)  # cancelled tasks end

    async def _until_quiet(self) -> None:
        """Wait until no connection is busy, the drain times out or it is to end at once.

        Connections that have idled for a moment are closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        quiet_at = loop.time() + min(_LAST_REQUEST_S, self._drain_timeout_s)
        give_up_at = loop.time() + self._drain_timeout_s

        def quiet() -> bool:
            if self._at_once:
                return True
            if loop.time() < quiet_at:
                return False
            self._connections.close_idle(_LAST_REQUEST_S)
            return not self._connections.owing

        await self._within(give_up_at - loop.time(), quiet)

    async def _within(self, seconds: float, done: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done():  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(_CHECK_EVERY_S)
