"""The public application as a whole, where no model is asked."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.http.app import create_public_app
from gateway.observability.metrics import Telemetry
from gateway.serving.admission import Admission
from gateway.settings import GatewaySettings
from tests.fakes.wire import PATIENCE_S, WireTransport, connect
from tests.unit.gateway.http.predict.test_app import FakeDispatcher


@pytest.fixture
def app():
    services: Any = SimpleNamespace(
        dispatcher=FakeDispatcher(),
        telemetry=Telemetry(),
        admission=Admission(max_in_flight=3, max_in_flight_bytes=100_000),
    )
    return create_public_app(services, GatewaySettings())


@pytest.fixture
async def client(app):
    async with httpx.AsyncClient(
        transport=WireTransport(app, whole=False), base_url="http://g"
    ) as client:
        yield client


async def test_every_answer_has_the_callers_request_id_or_a_new_one(client):
    answer = await client.get("/health/live", headers={"x-request-id": "abc-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "abc-1")
    answer = await client.get("/nowhere")
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != ""


@pytest.mark.parametrize("path", ["/models/", "/docs/", "/health/live/"])
async def test_redirects_do_not_repeat_the_callers_host(client, path):
    answer = await client.get(path, headers={"host": "elsewhere.example"})
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")
    assert "elsewhere" not in f"{answer.headers} {answer.text}"


async def test_a_head_has_no_body(app):
    wire = connect(app)
    wire.send(b"HEAD /nowhere HTTP/1.1\r\nhost: g\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        await wire.news.wait()
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert b"content-length: 0" not in head
    assert body == b""
    wire.close()
