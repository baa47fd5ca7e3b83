"""The control plane's metrics, all in one place."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

REGISTRY = CollectorRegistry()
registry_calls = Counter(
    "registry_sync_registry_calls",
    "Calls to the registry's API, by the name of the call.",
    ["call"],
    registry=REGISTRY,
)
"""``call`` is one of a few names in the sources."""
