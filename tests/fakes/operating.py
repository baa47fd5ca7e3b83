"""An operator at a node in memory: the listener's application, and the command."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner, Result

from gateway.system.http1.asgi import AsgiService
from gateway.system.http1.server import Server
from registry_sync.cli import app, waiting
from registry_sync.domain.operation_bodies import (
    DecisionAnswer,
    ExplainAnswer,
    PinAnswer,
    QuarantineAnswer,
    RetryAnswer,
    RollbackAnswer,
    SyncAnswer,
    UnpinAnswer,
)
from registry_sync.operations.app import Operations, create_app
from registry_sync.operations.listeners import local_server
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import NodeInMemory
from tests.fakes.sockets import listening_at
from tests.fakes.wire import WireTransport

_LOOKS, _LOOK_S = 100, 0.01


def operations(node: NodeInMemory) -> Operations:
    return Operations(node.view, node.operators, "node", "http://registry")


@contextlib.asynccontextmanager
async def asking(node: NodeInMemory, spine: Reconciler) -> AsyncIterator[httpx.AsyncClient]:
    service = AsgiService(create_app(operations(node)), max_body_bytes=2**16, body_timeout_s=10)
    transport = WireTransport(service, whole=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://control-plane") as client:
        yield client


async def decide(client: httpx.AsyncClient, route: str, **body: Any) -> dict[str, Any]:
    """Ask for a decision; return the answer with its outcome, as the command waits for it.

    Raises:
        AssertionError: It is refused at once.
    """
    posted = await client.post(route, json=body or None)
    assert posted.status_code == 202, posted.text
    answer = _ANSWERS[route].model_validate_json(posted.content)
    if isinstance(answer, PinAnswer) and not answer.pinned:
        answer = await _outcome(client, answer, waiting.of_bytes, str(answer.to_version))
        if answer.outcome == "accepted":
            return await decide(client, route, **body)
    elif isinstance(answer, RollbackAnswer | PinAnswer):
        answer = await _outcome(client, answer, waiting.of_hold(answer), answer.alias)
    elif isinstance(answer, RetryAnswer):
        answer = await _outcome(client, answer, waiting.of_retry(answer))
    elif isinstance(answer, SyncAnswer):
        answer = await _outcome(client, answer, waiting.of_sync)
    elif isinstance(answer, QuarantineAnswer) and answer.explained:
        judge = waiting.of_acceptance(answer) if "accept" in route else waiting.of_bytes
        answer = await _outcome(client, answer, judge, str(answer.version))
    return answer.model_dump(mode="json")


_ANSWERS: dict[str, type[DecisionAnswer]] = {
    "/rollback": RollbackAnswer,
    "/pin": PinAnswer,
    "/unpin": UnpinAnswer,
    "/retry": RetryAnswer,
    "/sync": SyncAnswer,
    "/quarantine/retry": QuarantineAnswer,
    "/quarantine/accept": QuarantineAnswer,
}


async def _outcome(
    client: httpx.AsyncClient,
    answer: DecisionAnswer,
    judge: waiting.Judge,
    selector: str | None = None,
) -> DecisionAnswer:
    query = {"model": answer.model} | ({"selector": selector} if selector else {})
    for _ in range(_LOOKS):
        shown = await client.get("/explain", params=query)
        assert shown.status_code == 200, shown.text
        found = ExplainAnswer.model_validate_json(shown.content)
        ending = judge(found)
        answer = waiting.with_ending(answer, ending, found)
        if ending.final:
            break
        await asyncio.sleep(_LOOK_S)
    return answer


async def refused(client: httpx.AsyncClient, route: str, **body: Any) -> str:
    """Ask for a decision that is refused at once; return why."""
    answer = await client.post(route, json=body)
    assert answer.status_code == 409, answer.text
    return str(answer.json()["detail"])


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
        server.stop(at_once=True)
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
        async with serving(local_server(create_app(operations(node))), listener):
            yield partial(asyncio.to_thread, run, folder)
