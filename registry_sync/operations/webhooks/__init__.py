"""Webhooks: authentication of senders, bodies of deliveries, and routes."""

from registry_sync.operations.webhooks.authentication import NotAuthenticError as NotAuthenticError
from registry_sync.operations.webhooks.routes import (
    Webhook as Webhook,
    WebhookSecrets as WebhookSecrets,
    build_webhooks as build_webhooks,
    create_webhooks_app as create_webhooks_app,
)
