"""What the routes work with, attached to the application by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from fastapi import Request

from gateway.observability import Telemetry
from gateway.rollout import Rollout
from gateway.routing import Node
from gateway.serving import Admission, Dispatcher, ResidentSet
from gateway.system.http1 import Connections

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass
class Services:
    """Everything that a route may use. ``draining``: the gateway is about to stop."""

    node: Node
    residents: ResidentSet
    dispatcher: Dispatcher
    rollout: Rollout
    telemetry: Telemetry
    admission: Admission
    connections: Connections
    draining: bool = False


def attach(app: FastAPI, services: Services) -> None:
    """Make the services reachable from the application's requests."""
    app.state.services = services


def services_of(request: Request) -> Services:
    """Return what `attach` has attached."""
    return cast("Services", request.app.state.services)
