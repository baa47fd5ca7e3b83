"""The loop: what is aspired and what is observed, compared, and the steps that are due."""

from registry_sync.reconcile.disk_budget import RoomLimits
from registry_sync.reconcile.gateway import GatewayClient
from registry_sync.reconcile.reconciler import Limits, Reconciler, with_pauses
from registry_sync.reconcile.schedule import Schedule
from registry_sync.reconcile.steps import Failure, Intake
from registry_sync.reconcile.sweep import Sweep

__all__ = [
    "Failure",
    "GatewayClient",
    "Intake",
    "Limits",
    "Reconciler",
    "RoomLimits",
    "Schedule",
    "Sweep",
    "with_pauses",
]
