"""How a listener's server ends."""

import socket
from typing import Any

import pytest

from gateway.system.http1.asgi import AsgiService
from gateway.system.http1.connections import Connections
from gateway.system.http1.server import Server
from tests.fakes.wire import LIMITS


async def not_called(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize("count", [0, 2])
async def test_the_end_closes_every_listener(count: int) -> None:
    service = AsgiService(not_called, max_body_bytes=0, body_timeout_s=60)
    server = Server(service, Connections(LIMITS), drain_timeout_s=0)
    server.servers = []
    listeners = [socket.socket() for _ in range(count)]
    await server.shutdown(listeners or None)
    assert [one.fileno() for one in listeners] == [-1] * count
