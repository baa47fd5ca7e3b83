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
TCP_LIMITS = ConnectionLimits(most=64, idle_s=10.0)
LOCAL_LIMITS = ConnectionLimits(most=32, idle_s=75.0)
"""Reserved for operators, apart from TCP."""
FILES_OF_WORK = 512
"""Open files reserved for the work: 200 for the 16 threads that fetch and verify, each with a file
and the connections of its parts; 130 for idle connections to storage; 16 for the registry; 16 for
the gateway; 30 for the ledger; 12 for builds; and those of any process."""
_FEWEST = 4


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """The limits of connections, by listener."""

    tcp: ConnectionLimits = TCP_LIMITS
    local: ConnectionLimits = LOCAL_LIMITS

    @property
    def files(self) -> int:
        """Open files of both listeners' connections, refused ones included."""
        return 2 * (self.tcp.most + self.local.most)

    def within(self, open_files: int) -> ListenerLimits:
        """Return limits that leave files for the work, in the same proportion.

        A few connections always remain, so that operators can see what is wrong.
        """
        share = min(1.0, max(0, open_files - FILES_OF_WORK) / self.files)
        tcp, local = (max(_FEWEST, int(one.most * share)) for one in (self.tcp, self.local))
        return ListenerLimits(replace(self.tcp, most=tcp), replace(self.local, most=local))


class _NotAuthenticRefusedError(RefusedError):
    """The request is not authentic."""

    status = 401
    code = "not_authentic"


class _TokenMissingError(_NotAuthenticRefusedError):
    """The request lacks the operators' token."""

    lines = "www-authenticate: Bearer\r\n"


class _OperatorsRefusedError(RefusedError):
    """This node has no token, so operators are refused over TCP."""

    status = 403
    code = "operators_refused"


class OperationsService:
    """Serves webhooks, and every other route only with the operators' token.

    A new route needs the token without further code, and an empty ``token`` refuses all operators.
    A request is authenticated by its head before its body is read, as far as the head suffices.
    """

    def __init__(self, *, webhooks: Iterable[Webhook], operators: ASGIApp, token: str) -> None:
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
        """Return the reader of a body that has not arrived completely.

        Raises:
            RefusedError: The caller is not authentic, or the body will be too large.
        """
        return self._admitted(exchange).expect(exchange, length)

    def begin(self, exchange: Exchange) -> None:
        """Serve a request that has arrived completely."""
        try:
            service = self._admitted(exchange)
        except RefusedError as error:
            self.refuse(exchange, error)
        else:
            service.begin(exchange)

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Send a problem as the reply; a webhook counts it."""
        webhook = self._webhook(exchange)
        if webhook is not None:
            webhook.complain(str(error))
        self._operators.refuse(exchange, error)

    def end(self) -> None:
        """End both services."""
        self._webhooks.end()
        self._operators.end()

    def _webhook(self, exchange: Exchange) -> Webhook | None:
        return self._by_path.get(exchange.url.partition(b"?")[0])

    def _admitted(self, exchange: Exchange) -> Service:
        """Return the service of a request."""
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
                "operators need a token over TCP, and this node has no token: set "
                "REGISTRY_SYNC_OPERATIONS_TOKEN, or use `registry-gateway` on the node itself"
            )
        shown = fields.get(b"authorization", b"")
        if not hmac.compare_digest(shown, b"Bearer " + self._token.encode()):
            raise _TokenMissingError(
                "the operators' token is missing or wrong: send it as `Authorization: Bearer …`"
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
    """Return the server of the Unix socket, which only the node's user can open."""
    return Server(_operators_service(operators), Connections(limits), drain_timeout_s=_DRAIN_S)


def _operators_service(operators: ASGIApp) -> AsgiService:
    return AsgiService(
        operators, max_body_bytes=MAX_OPERATORS_BYTES, body_timeout_s=_BODY_TIMEOUT_S
    )


@contextlib.contextmanager
def tcp_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address for the block.

    Raises:
        StartError: The address cannot be bound.
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
