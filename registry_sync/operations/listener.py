"""The operations listener on a TCP port: webhooks for all, the rest for who shows the token."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from registry_sync.node_dir import StartError
from registry_sync.operations.problems import problem

_BACKLOG = 128
_WEBHOOKS = "/webhooks/"
HEAD_TIMEOUT_S = 10.0


class TcpApp:
    """Hands webhooks on as they are, and everything else only with the operators' token.

    The operators' routes are closed by default: one that is added is guarded without being named.
    """

    def __init__(self, *, webhooks: ASGIApp, operators: ASGIApp, token: str) -> None:
        """Store. ``token`` empty: operators are refused."""
        self._webhooks = webhooks
        self._operators = operators
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not spoken here")
        if scope["path"].startswith(_WEBHOOKS):
            app = self._webhooks
        else:
            app = self._refusal(Headers(scope=scope)) or self._operators
        await app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ASGIApp | None:
        if not self._token:
            return problem(
                403,
                "operators_refused",
                "Forbidden",
                "over TCP operators need a token, and this node has none: set "
                "REGISTRY_SYNC_OPERATIONS_TOKEN, or use `registry-gateway` on the node itself",
            )
        shown = headers.get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(shown, b"Bearer " + self._token.encode()):
            return problem(
                401,
                "not_authentic",
                "Unauthorized",
                "the operators' token is missing or another one: send it as "
                "`Authorization: Bearer …`",
                {"WWW-Authenticate": "Bearer"},
            )
        return None


class PromptProtocol(H11Protocol):
    """HTTP/1.1 of which every request must begin and have its head whole within a time.

    uvicorn itself waits for ever, and so a few silent connections would keep everybody else out.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def on_response_complete(self) -> None:
        """Wait for the next one, if there is one."""
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._close_unless_asked)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _close_unless_asked(self) -> None:
        """Close, unless a request is being answered: the wait begins anew when it has been."""
        if getattr(self.cycle, "response_complete", True):  # no cycle before the first head
            self.transport.close()


@contextlib.contextmanager
def tcp_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address for the block.

    Raises:
        StartError: It cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise StartError(
                f"cannot listen on {host}:{port}: {error.strerror}; set "
                "REGISTRY_SYNC_OPERATIONS_HOST or REGISTRY_SYNC_OPERATIONS_PORT (0: no listener)"
            ) from error
        listener.setblocking(False)
        yield listener
