"""The gateway's control socket has connections of its own, and no more than a few."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from gateway import __main__ as process
from gateway.settings import GatewaySettings
from gateway.system.http1.asgi import Receive, Scope, Send
from gateway.system.http1.connections import Connections, most_open
from gateway.system.http1.server import Server
from tests.acceptance.waiting import eventually_true
from tests.fakes.sockets import listening_at

MOST = process._CONTROL_CONNECTIONS


async def answers(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


@pytest.fixture
async def control(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Path, Server]]:
    """The path of a control socket, and its server."""
    path = tmp_path_factory.mktemp("s") / "s"
    settings = GatewaySettings(drain_timeout_s=1, idle_timeout_s=600)
    server = process._control_server(cast("Any", SimpleNamespace(control=answers)), settings)
    with listening_at(path) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield path, server
        server.stop(at_once=True)
        await task


async def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, str(path))
    return made


async def asked(path: Path) -> httpx.Response:
    """Ask on a connection of its own."""
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.get("/observe")


async def test_silent_connections_are_bounded_and_their_end_makes_room(
    control: tuple[Path, Server],
) -> None:
    path, server = control
    connections: Connections = server._connections
    assert most_open(MOST) < process._FILES_BESIDE, "they were counted beside the workers' files"
    silent = [await connected(path) for _ in range(MOST - 1)]
    try:
        await eventually_true(lambda: len(connections.open) == MOST - 1, "they are open")
        assert (await asked(path)).text == "here", "one more is served"
        silent.append(await connected(path))
        await eventually_true(lambda: len(connections.open) == MOST, "all there may be are open")
        refused = await asked(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        silent.pop().close()
        await eventually_true(lambda: len(connections.open) < MOST, "one has gone")
        assert (await asked(path)).text == "here"
    finally:
        for one in silent:
            one.close()
