"""The operations listener: state and decisions for operators, and webhooks."""

from registry_sync.operations.app import Operations as Operations, create_app as create_app
from registry_sync.operations.listeners import (
    ListenerLimits as ListenerLimits,
    local_server as local_server,
    tcp_server as tcp_server,
    tcp_socket as tcp_socket,
)
from registry_sync.operations.webhooks import (
    Webhook as Webhook,
    WebhookSecrets as WebhookSecrets,
    build_webhooks as build_webhooks,
)
