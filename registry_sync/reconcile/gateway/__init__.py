"""The gateway as the control plane sees it: its client, its state, and the catalogue."""

from registry_sync.reconcile.gateway.announcer import Announcer as Announcer, SentModel as SentModel
from registry_sync.reconcile.gateway.client import GatewayClient as GatewayClient
from registry_sync.reconcile.gateway.observation import Observation as Observation
from registry_sync.reconcile.gateway.target import (
    ServingTarget as ServingTarget,
    TargetUnreachableError as TargetUnreachableError,
)
