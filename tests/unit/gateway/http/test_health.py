"""Readiness, and the metrics with what is measured at that moment."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.contract import Catalogue
from gateway.http.health import router
from gateway.observability.metrics import Telemetry
from gateway.serving.replica.replica import ReplicaState
from gateway.serving.residency.eviction_costs import COUNT, EvictionCosts
from tests.fakes.calls import node_of


def _client(services: Any) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(router)
    app.state.services = services
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://g")


async def test_the_metrics_show_what_is_so_now() -> None:
    resident = SimpleNamespace(
        key=SimpleNamespace(model="churn", version=1),
        replica=SimpleNamespace(state=ReplicaState.READY),
        bytes=1000,
        leases=2,
    )
    costs = EvictionCosts(lambda: 0.0)
    costs.add(COUNT, 2, 0.1)
    services: Any = SimpleNamespace(
        telemetry=Telemetry(),
        residents=SimpleNamespace(residents=lambda: [resident], eviction_costs=costs),
        connections=SimpleNamespace(open={"a": 1, "b": 1}),
        admission=SimpleNamespace(in_flight=3, in_flight_bytes=500),
        node=node_of(),
    )
    services.node.listening(1)
    async with _client(services) as client:
        answer = await client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE_LATEST)
    lines = answer.text.splitlines()
    expected = {
        'gateway_replicas{state="ready"} 1.0',
        'gateway_resident_bytes{model="churn",version="1"} 1000.0',
        'gateway_eviction_waits{setting="GATEWAY_MAX_RESIDENT"} 2.0',
        "gateway_connections 2.0",
        "gateway_leases 2.0",
        "gateway_in_flight 3.0",
        "gateway_in_flight_bytes 500.0",
        "gateway_control_plane_up 1.0",
    }
    assert expected <= set(lines)


@pytest.mark.parametrize(
    ("catalogue", "draining", "status"),
    [
        (None, False, "starting"),
        (Catalogue(epoch=1, writer="w", models=[], listed_at=None), False, "starting"),
        (Catalogue(epoch=1, writer="w", models=[], listed_at=1.0), False, "ready"),
        (Catalogue(epoch=1, writer="w", models=[], listed_at=1.0), True, "draining"),
    ],
)
async def test_a_node_is_ready_once_it_knows_what_the_registry_has(
    catalogue: Catalogue | None, draining: bool, status: str
) -> None:
    node = node_of()
    node.replace(replace(node.table, catalogue=catalogue, generation=0))
    async with _client(SimpleNamespace(node=node, draining=draining)) as client:
        answer = await client.get("/health/ready")
    assert answer.status_code == (200 if status == "ready" else 503)
    assert answer.json()["status"] == status
    assert answer.json()["registry"]["control_plane"] == "not_heard"


async def test_a_table_alone_makes_a_node_ready() -> None:
    node = node_of()
    node.replace(replace(node.table, catalogue=None, generation=7))
    async with _client(SimpleNamespace(node=node, draining=False)) as client:
        assert (await client.get("/health/ready")).status_code == 200
