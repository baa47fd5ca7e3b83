"""The operations listeners: webhooks and operators over TCP, operators over the Unix socket."""

from __future__ import annotations

import contextlib
import hmac
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from starlette.types import ASGIApp

from gateway.system import StartError
from gateway.system.http1 import (
    AsgiService,
    Body,
    ConnectionLimits,
    Connections,
    Exchange,
    RefusedError,
    Server,
    Service,
)
from registry_sync.operations.webhooks import NotAuthenticError, Webhook, create_webhooks_app

_BACKLOG = 128
_WEBHOOKS = b"/webhooks/"
_BODY_TIMEOUT_S = 10.0
_DRAIN_S = 1.0
MAX_WEBHOOK_BYTES = 2**20
MAX_OPERATORS_BYTES = 2**16
TCP_LIMITS = ConnectionLimits(most=64, idle_s=10.0, head_s=10.0, read_s=30.0)
LOCAL_LIMITS = ConnectionLimits(most=32, idle_s=75.0, head_s=10.0, read_s=30.0)
"""The operators' own share, whatever comes over TCP."""
FILES_OF_WORK = 512
"""What the work takes of the open files, none of which a connection may have: some 200 of the 16
threads that bring bytes, each with a file and the connections of its parts; 130 of the connections
to storage that are kept open; 16 of calls of the registry at once, 16 to the gateway; 30 of the
ledger's connections and their files; 12 of builds; and what a process has anyway."""
_FEWEST = 4


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """How many connections each listener has, and for how long."""

    tcp: ConnectionLimits = TCP_LIMITS
    local: ConnectionLimits = LOCAL_LIMITS

    @property
    def files(self) -> int:
        """How many files the connections of both can have open, of those turned away too."""
        return 2 * (self.tcp.most + self.local.most)

    def within(self, open_files: int) -> ListenerLimits:
        """Return as many of the connections as fit beside the work, in the same proportion.

        Args:
            open_files: How many files the process may have open. Where not even the work fits, a
                few connections are left: operators see what is wrong by them.
        """
        share = min(1.0, max(0, open_files - FILES_OF_WORK) / self.files)
        tcp, local = (max(_FEWEST, int(one.most * share)) for one in (self.tcp, self.local))
        return ListenerLimits(replace(self.tcp, most=tcp), replace(self.local, most=local))


class _NotAuthenticRefusedError(RefusedError):
    """The request does not come from a caller who may make it."""

    status = 401
    code = "not_authentic"


class _TokenMissingError(_NotAuthenticRefusedError):
    """The request does not show the operators' token."""

    lines = "www-authenticate: Bearer\r\n"


class _OperatorsRefusedError(RefusedError):
    """Operators have no way in over TCP on this node."""

    status = 403
    code = "operators_refused"


class OperationsService:
    """Hands webhooks on, and everything else only with the operators' token.

    The operators' routes are closed by default: one that is added is guarded without being named.
    A request is authenticated by its head before its body is read, as far as the head tells.
    """

    def __init__(self, *, webhooks: Iterable[Webhook], operators: ASGIApp, token: str) -> None:
        """Store. ``token`` empty: operators are refused."""
        known = tuple(webhooks)
        self._by_path = {f"/webhooks/{one.name}".encode(): one for one in known}
        self._webhooks = AsgiService(
            create_webhooks_app(known),
            max_body_bytes=MAX_WEBHOOK_BYTES,
            body_timeout_s=_BODY_TIMEOUT_S,
        )
        self._operators = _operators_service(operators)
        self._token = token

    def expect(self, exchange: Exchange, length: int | None) -> Body:
        """Return what takes a body that has not come whole.

        Raises:
            RefusedError: The caller is not authentic, or the body will be too large.
        """
        return self._admitted(exchange).expect(exchange, length)

    def begin(self, exchange: Exchange) -> None:
        """Begin with a request that is here as a whole."""
        try:
            service = self._admitted(exchange)
        except RefusedError as error:
            self.refuse(exchange, error)
        else:
            service.begin(exchange)

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer with a problem; a webhook takes note of it."""
        webhook = self._webhook(exchange)
        if webhook is not None:
            webhook.complain(str(error))
        self._operators.refuse(exchange, error)

    def end(self) -> None:
        """Wait for nothing any more."""
        self._webhooks.end()
        self._operators.end()

    def _webhook(self, exchange: Exchange) -> Webhook | None:
        return self._by_path.get(exchange.url.partition(b"?")[0])

    def _admitted(self, exchange: Exchange) -> Service:
        """Return what serves a request.

        Raises:
            RefusedError: The head shows that its caller may not make it.
        """
        if not exchange.url.startswith(_WEBHOOKS):
            self._check_token(exchange.fields)
            return self._operators
        webhook = self._webhook(exchange)
        if webhook is not None and exchange.method == b"POST":
            headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in exchange.fields.items()
            }
            try:
                webhook.sender.check_head(headers)
            except NotAuthenticError as error:
                raise _NotAuthenticRefusedError(str(error)) from error
        return self._webhooks

    def _check_token(self, fields: Mapping[bytes, bytes]) -> None:
        if not self._token:
            raise _OperatorsRefusedError(
                "over TCP operators need a token, and this node has none: set "
                "REGISTRY_SYNC_OPERATIONS_TOKEN, or use `registry-gateway` on the node itself"
            )
        shown = fields.get(b"authorization", b"")
        if not hmac.compare_digest(shown, b"Bearer " + self._token.encode()):
            raise _TokenMissingError(
                "the operators' token is missing or another one: send it as "
                "`Authorization: Bearer …`"
            )


def tcp_server(
    *,
    webhooks: Iterable[Webhook],
    operators: ASGIApp,
    token: str,
    limits: ConnectionLimits = TCP_LIMITS,
) -> Server:
    """Return the server of the TCP port."""
    service = OperationsService(webhooks=webhooks, operators=operators, token=token)
    return Server(service, Connections(limits), drain_timeout_s=_DRAIN_S)


def local_server(operators: ASGIApp, limits: ConnectionLimits = LOCAL_LIMITS) -> Server:
    """Return the server of the Unix socket, whose callers are this node's own user."""
    return Server(_operators_service(operators), Connections(limits), drain_timeout_s=_DRAIN_S)


def _operators_service(operators: ASGIApp) -> AsgiService:
    return AsgiService(
        operators, max_body_bytes=MAX_OPERATORS_BYTES, body_timeout_s=_BODY_TIMEOUT_S
    )


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
