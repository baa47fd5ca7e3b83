"""The server of the public listener: its connections have limits, and its end answers everybody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn

from gateway.http.connections import Connection, Connections, Take
from gateway.http.predict import App

_LOOK_EVERY_S = 0.05
_ON_THE_WAY_S = 0.5
"""How long a connection must have idled before a draining gateway closes it: what its caller was
just sending is answered."""
_LAST_WORDS_S = 1.0


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves the signals to us: there are two of them in this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


class PublicServer(QuietServer):
    """Serves callers, and when asked to exit goes on answering until what was accepted is done."""

    def __init__(
        self,
        app: App,
        connections: Connections,
        *,
        drain_timeout_s: float,
        take: Take | None = None,
    ) -> None:
        """Store.

        Args:
            app: Serves what ``take`` does not.
            connections: Holds them, within their limits.
            drain_timeout_s: The longest that what is under way may take at the end.
            take: Is offered every request that comes whole first.
        """
        super().__init__(
            server_config(
                app,
                http=partial(Connection, connections, take),
                timeout_keep_alive=connections.limits.idle_s,
            )
        )
        self._connections = connections
        self._drain_timeout_s = drain_timeout_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: every answer ends its connection, and newcomers are answered too, until the end.

        Who is inside when the time is over, or at a second signal, is told so.
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
        for task in list(self.server_state.tasks):
            task.cancel()
        self._connections.end_exchanges()
        await self._within(_LAST_WORDS_S, lambda: not self._connections.open)
        self._connections.abort()
        await self._within(_LAST_WORDS_S, lambda: not self.server_state.tasks)

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
                while not done():  # noqa: ASYNC110  # sets of uvicorn's: no event tells
                    await asyncio.sleep(_LOOK_EVERY_S)


def server_config(app: object, **settings: object) -> uvicorn.Config:
    """Return what both servers of this process have in common, with ``settings`` of uvicorn's."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI callable of our own
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        **settings,  # type: ignore[arg-type]  # its own names
    )
