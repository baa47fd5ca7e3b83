"""Live, ready and metrics. Once a node knows its registry, ready depends on nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.http.catalogue import registry_freshness
from gateway.http.services import OurServices, Services
from gateway.observability import exposition

router = APIRouter(tags=["health"])


@router.get("/health", include_in_schema=False)
@router.get("/ping", include_in_schema=False)
@router.get("/health/live")
async def live() -> dict[str, str]:
    """Answer while the event loop runs."""
    return {"status": "live"}


@router.get("/ready", include_in_schema=False)
@router.get("/health/ready")
async def ready(services: OurServices, response: Response) -> dict[str, Any]:
    """Answer 200 while this node takes traffic, else 503.

    It does not while it is *draining*, nor while it is *starting*: it has neither a table nor a
    catalogue of its own yet, and would answer 404 for every model.
    """
    table = services.node.table
    status = "draining" if services.draining else "ready" if table.is_known else "starting"
    response.status_code = 200 if status == "ready" else 503
    return {
        "status": status,
        "generation": table.generation,
        "registry": registry_freshness(services),
    }


@router.get("/metrics", response_class=Response)
async def metrics(services: OurServices) -> Response:
    """Return every metric in Prometheus' text format."""
    _measure(services)
    text = await exposition(services.telemetry.metrics())
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _measure(services: Services) -> None:
    """Set the gauges of states."""
    telemetry = services.telemetry
    residents = services.residents.residents()
    telemetry.workers.clear()
    states = Counter(one.replica.state.value for one in residents)
    for state, count in states.items():
        telemetry.workers.labels(state).set(count)
    telemetry.resident_bytes.clear()
    for one in residents:
        telemetry.resident_bytes.labels(one.key.model, str(one.key.version)).inc(one.bytes)
    telemetry.eviction_waits.clear()
    for cost in services.residents.eviction_costs.lately():
        telemetry.eviction_waits.labels(cost.setting).set(cost.requests)
    telemetry.connections.set(len(services.connections.open))
    telemetry.leases.set(sum(one.leases for one in residents))
    telemetry.in_flight.set(services.admission.in_flight)
    telemetry.in_flight_bytes.set(services.admission.in_flight_bytes)
    telemetry.generation.set(services.node.table.generation)
    telemetry.control_plane_up.set(registry_freshness(services)["control_plane"] == "up")
