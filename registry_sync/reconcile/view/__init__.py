"""Inputs of plans, descriptions for the gateway, and the node as operators see it."""

from registry_sync.reconcile.view.description import Descriptions as Descriptions
from registry_sync.reconcile.view.node_view import NodeView as NodeView
from registry_sync.reconcile.view.pauses import with_pauses as with_pauses
from registry_sync.reconcile.view.signature_cache import Signatures as Signatures
from registry_sync.reconcile.view.snapshots import Snapshots as Snapshots
