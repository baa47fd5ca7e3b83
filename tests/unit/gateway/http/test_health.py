"""The metrics are shown with what is measured at that moment."""

from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.http.health import router
from gateway.observability.metrics import Telemetry
from gateway.serving.replica.replica import ReplicaState
from tests.fakes.calls import node_of


async def test_the_metrics_show_what_is_so_now() -> None:
    resident = SimpleNamespace(
        key=SimpleNamespace(model="churn", version=1),
        replica=SimpleNamespace(state=ReplicaState.READY),
        bytes=1000,
        leases=2,
    )
    services: Any = SimpleNamespace(
        telemetry=Telemetry(),
        residents=SimpleNamespace(residents=lambda: [resident]),
        connections=SimpleNamespace(open={"a": 1, "b": 1}),
        admission=SimpleNamespace(in_flight=3, in_flight_bytes=500),
        node=node_of(),
    )
    app = FastAPI()
    app.include_router(router)
    app.state.services = services
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        answer = await client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE_LATEST)
    lines = answer.text.splitlines()
    expected = {
        'gateway_replicas{state="ready"} 1.0',
        'gateway_resident_bytes{model="churn",version="1"} 1000.0',
        "gateway_connections 2.0",
        "gateway_leases 2.0",
        "gateway_in_flight 3.0",
        "gateway_in_flight_bytes 500.0",
        "gateway_control_plane_up 1.0",
    }
    assert expected <= set(lines)
