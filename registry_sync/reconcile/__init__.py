"""The loop: what is aspired and what is observed, compared, and the steps that are due."""

from registry_sync.reconcile.build import ControlPlane, build
from registry_sync.reconcile.context import Limits, Policy, RoomLimits
from registry_sync.reconcile.gateway import GatewayClient
from registry_sync.reconcile.operators import Operators
from registry_sync.reconcile.schedule import Schedule
from registry_sync.reconcile.steps import Failure, Ingestion
from registry_sync.reconcile.view import NodeView, with_pauses

__all__ = [
    "ControlPlane",
    "Failure",
    "GatewayClient",
    "Ingestion",
    "Limits",
    "NodeView",
    "Operators",
    "Policy",
    "RoomLimits",
    "Schedule",
    "build",
    "with_pauses",
]
