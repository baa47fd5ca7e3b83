"""Hints of registries: who may send one, what it says, and its routes."""

from registry_sync.operations.webhooks.authentication import NotAuthenticError
from registry_sync.operations.webhooks.routes import (
    Webhook,
    WebhookSecrets,
    build_webhooks,
    create_webhooks_app,
)

__all__ = [
    "NotAuthenticError",
    "Webhook",
    "WebhookSecrets",
    "build_webhooks",
    "create_webhooks_app",
]
