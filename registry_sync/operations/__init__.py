"""The control plane's second listener: what its operators see and do, off the public port."""

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
