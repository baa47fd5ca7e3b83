"""The objects that routes use, attached to the application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from gateway.observability import Telemetry
from gateway.rollout import Rollout
from gateway.routing import Node
from gateway.serving import Admission, Dispatcher, ResidentSet
from gateway.system.http1 import Connections


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


async def _services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


OurServices = Annotated[Services, Depends(_services_of)]
"""A route's parameter: the services in the state of its application."""
