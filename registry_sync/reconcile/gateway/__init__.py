"""The gateway as the control plane sees it: its client, its state, and what it is sent."""

from registry_sync.reconcile.gateway.announcer import Announcer, SentModel
from registry_sync.reconcile.gateway.client import GatewayClient
from registry_sync.reconcile.gateway.observation import Observation
from registry_sync.reconcile.gateway.target import ServingTarget, TargetUnreachableError

__all__ = [
    "Announcer",
    "GatewayClient",
    "Observation",
    "SentModel",
    "ServingTarget",
    "TargetUnreachableError",
]
