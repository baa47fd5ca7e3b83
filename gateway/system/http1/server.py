"""A listener's server: its connections have limits, and its end answers every caller."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn

from gateway.system.http1.asgi import Receive, Scope, Send
from gateway.system.http1.connection import Connection
from gateway.system.http1.connections import Connections
from gateway.system.http1.exchange import Service

_LOOK_EVERY_S = 0.05
_ON_THE_WAY_S = 0.5
"""How long a connection must have idled before a draining server closes it: what its caller was
just sending is answered."""
_LAST_WORDS_S = 1.0


class Server(uvicorn.Server):
    """Serves callers, and when asked to exit goes on answering until what was accepted is done.

    It leaves the signals to the process: there are several servers in one.
    """

    def __init__(
        self, service: Service, connections: Connections, *, drain_timeout_s: float
    ) -> None:
        """Store.

        Args:
            service: Serves the requests.
            connections: Holds the connections, within their limits.
            drain_timeout_s: The longest that what is under way may take at the end.
        """
        super().__init__(
            uvicorn.Config(
                _not_called,
                http=partial(Connection, connections, service),  # type: ignore[arg-type]  # is called
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
            )
        )
        self._service = service
        self._connections = connections
        self._drain_timeout_s = drain_timeout_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: every answer ends its connection, and newcomers are answered too, until the end.

        A caller who is inside when the time is over, or at a second signal, is told so.
        """
        self._connections.drain()
        await self._until_quiet()
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(_LOOK_EVERY_S)  # what was accepted last is read, and refused
        self._connections.give_up()
        if not self.force_exit and not self._connections.owing:
            await self._within(_LAST_WORDS_S, lambda: not self._connections.busy)  # late refusals
        self._connections.end_exchanges()
        self._service.end()
        await self._within(_LAST_WORDS_S, lambda: not self._connections.open)
        self._connections.abort()
        await asyncio.sleep(0)  # what was cancelled ends

    async def _until_quiet(self) -> None:
        """Wait until nothing is under way: no longer than a drain may take, nor at a second signal.

        Connections that have idled for a moment are closed meanwhile. A new one has it, too.
        """
        loop = asyncio.get_running_loop()
        quiet_at = loop.time() + min(_ON_THE_WAY_S, self._drain_timeout_s)
        give_up_at = loop.time() + self._drain_timeout_s

        def quiet() -> bool:
            if self.force_exit:
                return True
            if loop.time() < quiet_at:
                return False
            self._connections.close_idle(_ON_THE_WAY_S)
            return not self._connections.owing

        await self._within(give_up_at - loop.time(), quiet)

    async def _within(self, seconds: float, done: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done():  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(_LOOK_EVERY_S)


async def _not_called(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stand where uvicorn wants an application: `Connection` calls the service instead."""
