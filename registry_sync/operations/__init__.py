"""The control plane's second listener: what its operators see and do, off the public port."""

from registry_sync.operations.app import Operations, create_app
from registry_sync.operations.listeners import (
    ListenerLimits,
    local_server,
    tcp_server,
    tcp_socket,
)
from registry_sync.operations.webhooks import Webhook, WebhookSecrets, build_webhooks

__all__ = [
    "ListenerLimits",
    "Operations",
    "Webhook",
    "WebhookSecrets",
    "build_webhooks",
    "create_app",
    "local_server",
    "tcp_server",
    "tcp_socket",
]
