"""The metrics of the control plane."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

METRICS = CollectorRegistry()
registry_calls = Counter(
    "registry_sync_registry_calls",
    "Calls to the registry's API, by the name of the call.",
    ["call"],
    registry=METRICS,
)
"""Labels are the names of a few calls in the sources."""
store_bytes = Gauge(
    "registry_sync_artifact_store_bytes",
    "Bytes of the artifacts on this node, without those that are being fetched.",
    registry=METRICS,
)
store_budget_bytes = Gauge(
    "registry_sync_artifact_store_budget_bytes",
    "Most bytes of artifacts that this node keeps; 0: as many as the disk takes.",
    registry=METRICS,
)
