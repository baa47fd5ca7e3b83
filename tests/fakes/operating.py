"""An operator at a node in memory: the listener's application, and the command."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
from typer.testing import CliRunner, Result

from gateway.system.http1.asgi import AsgiService
from gateway.system.http1.server import Server
from registry_sync.cli import app
from registry_sync.operations.app import Operations, create_app
from registry_sync.operations.tcp_listener import local_server
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.sockets import listening_at
from tests.fakes.wire import WireTransport


def operations(node: NodeInMemory, spine: Reconciler) -> Operations:
    return Operations(spine, "node", "http://registry", spine.poll)


@contextlib.asynccontextmanager
async def asking(node: NodeInMemory, spine: Reconciler) -> AsyncIterator[httpx.AsyncClient]:
    service = AsgiService(
        create_app(operations(node, spine)), max_body_bytes=2**16, body_timeout_s=10
    )
    transport = WireTransport(service, whole=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://control-plane") as client:
        yield client


async def promoted(node: NodeInMemory, spine: Reconciler, version: int) -> None:
    node.registry.point(M, A, version)
    await spine.poll()
    await node.serves(version)
    await idle(spine)


def run(folder: str | Path, *arguments: str, **environment: str) -> Result:
    """Run the command where the node's folder is this one."""
    here = {"REGISTRY_SYNC_NODE_DIR": str(folder), "COLUMNS": "200", "TERM": "dumb"}
    return CliRunner().invoke(app.app, list(arguments), env=here | environment)


@contextlib.asynccontextmanager
async def serving(server: Server, listener: socket.socket) -> AsyncIterator[None]:
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.force_exit = server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def listening(
    node: NodeInMemory, spine: Reconciler
) -> AsyncIterator[Callable[..., Awaitable[Result]]]:
    """Serve operations on a socket; give the command, run in a thread as another process would."""
    with (
        tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as folder,
        listening_at(Path(folder) / "operations.sock") as listener,
    ):
        async with serving(local_server(create_app(operations(node, spine))), listener):
            yield partial(asyncio.to_thread, run, folder)
