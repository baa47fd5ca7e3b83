"""A listener's server, which answers every caller before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from gateway.system.http1.asgi import Receive, Scope, Send
from gateway.system.http1.connection import Connection
from gateway.system.http1.connections import Connections
from gateway.system.http1.exchange import Service

_CHECK_EVERY_S = 0.05
_LAST_REQUEST_S = 0.5
"""Idle time before a draining server closes a connection: a request may be on its way."""
_LAST_ANSWER_S = 1.0


class Server(uvicorn.Server):
    """Serves callers; at its end, it first completes the accepted requests. Event loop only.

    uvicorn listens and waits. The protocol is ours, and so are the end and the signals, since a
    process has several servers. ``drain_timeout_s`` bounds the wait for accepted requests.
    """

    def __init__(
        self, service: Service, connections: Connections, *, drain_timeout_s: float
    ) -> None:
        super().__init__(
            uvicorn.Config(
                _not_called,
                http=self._connection,  # type: ignore[arg-type]  # it is called, like a class
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
            )
        )
        self._service = service
        self._connections = connections
        self._drain_timeout_s = drain_timeout_s

    def stop(self, *, at_once: bool = False) -> None:
        """Begin to drain; with ``at_once``, refuse the requests that are not answered yet."""
        self.force_exit = self.force_exit or at_once
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield

    def _connection(self, **_: object) -> Connection:
        return Connection(self._connections, self._service)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let each answer end its connection, and refuse late requests.

        When the drain times out, the remaining requests are refused.
        """
        self._connections.drain()
        await self._until_idle()
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(_CHECK_EVERY_S)  # the last accepted requests are read and refused
        if not self.force_exit and not self._connections.owing:
            await self._within(_LAST_ANSWER_S, lambda: not self._connections.busy)  # late refusals
        self._connections.end_exchanges()
        self._service.end()
        await self._within(_LAST_ANSWER_S, lambda: not self._connections.open)
        self._connections.abort()
        await asyncio.sleep(0)  # cancelled tasks end

    async def _until_idle(self) -> None:
        """Wait until no connection is busy, the drain times out or the end is to come at once.

        Connections that have idled for a moment are closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        quiet_at = loop.time() + min(_LAST_REQUEST_S, self._drain_timeout_s)
        give_up_at = loop.time() + self._drain_timeout_s

        def quiet() -> bool:
            if self.force_exit:
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


async def _not_called(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Satisfy uvicorn, which wants an application: `Connection` calls the service instead."""
