"""Clients of many kinds at both listeners: an offered upgrade is ignored, and no body is lost.

The bytes of clients that are not written in Python are replayed: see ``clients/README.md``.
"""

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from gateway.http.predict.app import Predictions
from gateway.observability.metrics import Telemetry
from gateway.serving.admission import Admission
from gateway.system.http1.asgi import AsgiService
from gateway.system.http1.connections import ConnectionLimits, Connections
from gateway.system.http1.server import Server
from registry_sync.operations.listeners import tcp_server
from registry_sync.operations.webhooks.routes import WebhookSecrets, build_webhooks
from tests.fakes.wire import PATIENCE_S
from tests.unit.gateway.http.predict.test_app import FakeDispatcher, elsewhere

pytestmark = pytest.mark.integration

CAPTURED = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent / "clients").glob("*.http"))
}
BODY = b'{"features": {"x": 1.5}}'
PREDICT = "/models/m/versions/1/predict"
WEBHOOK = "/webhooks/s3"
TOKEN = "the token of S3"
OFFER = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
}
LIMITS = ConnectionLimits(most=20, idle_s=60, head_s=60, read_s=60)
NEXT = b"GET /next HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.stop(at_once=True)
            await task


@contextlib.asynccontextmanager
async def predicting() -> AsyncIterator[tuple[int, FakeDispatcher]]:
    """Serve predictions; give the port, and what was asked."""
    asked: Any = FakeDispatcher()
    following = AsgiService(elsewhere, max_body_bytes=1000, body_timeout_s=60)
    admission = Admission(max_in_flight=10, max_in_flight_bytes=1000)
    service = Predictions(following, asked, Telemetry(), admission)
    server = Server(service, Connections(LIMITS), drain_timeout_s=1)
    async with serving(server) as port:
        yield port, asked


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[str | None]]]:
    """Serve webhooks; give the port, and what was hinted at."""
    hinted: list[str | None] = []
    webhooks = build_webhooks(
        WebhookSecrets(s3=TOKEN), hint=hinted.append, tracking_uri="", clock=lambda: 0.0
    )
    operators: Any = None
    async with serving(tcp_server(webhooks=webhooks, operators=operators, token="")) as port:
        yield port, hinted


async def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes, and return what the listener says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
        await writer.wait_closed()


def statuses(said: bytes) -> list[int]:
    return [int(one[:3]) for one in said.split(b"HTTP/1.1 ")[1:]]


def test_the_captures_are_found() -> None:
    assert {name.partition("-")[0] for name in CAPTURED} == {"java", "go", "node", "curl"}


@pytest.mark.parametrize("name", CAPTURED)
async def test_a_prediction_keeps_its_body(name: str) -> None:
    async with predicting() as (port, asked):
        said = await exchange(port, CAPTURED[name] + NEXT)
    assert statuses(said) == [200, 299], said
    assert [call.body for call in asked.calls] == [BODY]


@pytest.mark.parametrize("name", CAPTURED)
async def test_a_webhook_keeps_its_body(name: str) -> None:
    authorization = f"HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    sent = CAPTURED[name].replace(PREDICT.encode(), WEBHOOK.encode())
    async with listening() as (port, _):
        said = await exchange(port, sent.replace(b"HTTP/1.1\r\n", authorization, 1) + NEXT)
    assert statuses(said) == [202, 403], said


def by_http_client(port: int, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("POST", path, BODY, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def by_requests(port: int, path: str, headers: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    return requests.post(url, BODY, headers=headers, timeout=PATIENCE_S).status_code


def by_requests_in_chunks(port: int, path: str, headers: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    pieces = iter([BODY[:5], BODY[5:]])
    return requests.post(url, pieces, headers=headers, timeout=PATIENCE_S).status_code


def by_httpx(port: int, path: str, headers: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    return httpx.post(url, content=BODY, headers=headers, timeout=PATIENCE_S).status_code


def by_aiohttp(port: int, path: str, headers: dict[str, str]) -> int:
    async def post() -> int:
        timeout = aiohttp.ClientTimeout(PATIENCE_S)
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session,
            session.post(path, data=BODY, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status

    return asyncio.run(post())


@pytest.mark.parametrize("offer", [{}, OFFER, {"Expect": "100-continue"}], ids=["", "h2c", "100"])
@pytest.mark.parametrize(
    "client", [by_http_client, by_requests, by_requests_in_chunks, by_httpx, by_aiohttp]
)
async def test_clients_of_python_are_served(client: Any, offer: dict[str, str]) -> None:
    json = {"Content-Type": "application/json"}
    async with predicting() as (port, asked):
        assert await asyncio.to_thread(client, port, PREDICT, json | offer) == 200
    assert [call.body for call in asked.calls] == [BODY]
    shown = {"Authorization": f"Bearer {TOKEN}"}
    async with listening() as (port, _):
        assert await asyncio.to_thread(client, port, WEBHOOK, json | shown | offer) == 202
