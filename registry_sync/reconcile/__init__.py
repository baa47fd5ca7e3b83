"""Compares the listing with the gateway's state, and starts the steps that are due."""

from registry_sync.reconcile.build import ControlPlane as ControlPlane, build as build
from registry_sync.reconcile.context import (
    Limits as Limits,
    Policy as Policy,
    RoomLimits as RoomLimits,
)
from registry_sync.reconcile.gateway import GatewayClient as GatewayClient
from registry_sync.reconcile.operators import Operators as Operators
from registry_sync.reconcile.schedule import Schedule as Schedule
from registry_sync.reconcile.steps import Ingestion as Ingestion
from registry_sync.reconcile.view import NodeView as NodeView, with_pauses as with_pauses
