"""The objects that routes use, attached to the application."""

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
    """The objects that routes use. ``draining``: the gateway shuts down."""

    node: Node
    residents: ResidentSet
    dispatcher: Dispatcher
    rollout: Rollout
    telemetry: Telemetry
    admission: Admission
    connections: Connections
    draining: bool = False


def attach(app: FastAPI, services: Services) -> None:
    """Attach the services to an application."""
    app.state.services = services


def services_of(request: Request) -> Services:
    """Return the services of a request's application."""
    return cast("Services", request.app.state.services)
