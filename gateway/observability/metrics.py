"""All metrics of the gateway.

Label values come from the route table only, so requests cannot add series. The series of a model
that is no longer listed are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from gateway.system import in_slices

_LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16, 32,
)  # fmt: skip
_LOAD_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)

_NAMESPACE = "gateway"

AnyMetric = Counter | Gauge | Histogram
NO_MODEL = "-"
"""The label of requests without a known model or version."""


@dataclass(frozen=True, slots=True)
class VersionSeries:
    """The series of one version, looked up once: the hot path only adds."""

    requests: Counter
    latency: Histogram


class Telemetry:
    """Metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # unused
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace=_NAMESPACE, registry=self.registry)
        gauge = partial(Gauge, namespace=_NAMESPACE, registry=self.registry)
        histogram = partial(Histogram, namespace=_NAMESPACE, registry=self.registry)
        by_version, by_alias = ("model", "version"), ("model", "alias")
        self.requests = counter(
            "requests", "Prediction requests that were answered with a prediction.", by_version
        )
        self.errors = counter(
            "errors", "Prediction requests that were answered with an error.", (*by_version, "code")
        )
        self.latency = histogram(
            "request_seconds",
            "Seconds from a request's last body byte to its answer.",
            by_version,
            buckets=_LATENCY_BUCKETS_S,
        )
        self.loads = counter("loads", "Workers that became ready.", by_version)
        self.load_failures = counter(
            "load_failures", "Workers that did not become ready.", (*by_version, "failure")
        )
        self.load_seconds = histogram(
            "load_seconds",
            "Seconds to start a worker, check, load and warm.",
            by_version,
            buckets=_LOAD_BUCKETS_S,
        )
        self.evictions = counter("evictions", "Workers that made room.", by_version)
        self.eviction_waits = gauge(
            "eviction_waits",
            "Requests that waited within ten minutes for evicted models, by the limit's setting.",
            ("setting",),
        )
        self.deaths = counter(
            "worker_deaths", "Ready workers that ended without being asked to.", by_version
        )
        self.swaps = counter("swaps", "Aliases that were pointed at another version.", by_alias)
        self.rollbacks = counter("rollbacks", "Automatic rollbacks.", by_alias)
        self.resident_bytes = gauge(
            "resident_bytes",
            "Private memory of a version's worker, as it measured itself.",
            by_version,
        )
        self.workers = gauge("replicas", "Workers of any state.", ("state",))
        self.connections = gauge("connections", "Open connections of callers.")
        self.leases = gauge("leases", "Leases on workers, of all versions.")
        self.in_flight = gauge("in_flight", "Prediction requests in flight.")
        self.in_flight_bytes = gauge("in_flight_bytes", "Bytes of requests and answers.")
        self.generation = gauge("route_generation", "Generation of the route table.")
        self.control_plane_up = gauge(
            "control_plane_up",
            "1 while the control plane is heard, 0 when it has been silent for 15 s.",
        )
        self._series: dict[tuple[str, int], VersionSeries] = {}

    def series(self, model: str, version: int) -> VersionSeries:
        """Return the series of a version that the route table knows."""
        series = self._series.get((model, version))
        if series is None:
            labels = (model, str(version))
            series = VersionSeries(self.requests.labels(*labels), self.latency.labels(*labels))
            self._series[model, version] = series
        return series

    def forget_alias(self, model: str, alias: str) -> None:
        """Remove the series of an alias that was removed."""
        for metric in (self.swaps, self.rollbacks):
            metric.remove_by_labels({"model": model, "alias": alias})

    async def forget_all_but(self, known: Callable[[str, int | None], bool]) -> None:
        """Remove the series of models (version None) and versions that are no longer known.

        Runs in slices, and calls ``known`` for each series. All series are checked, since a request
        in flight may count for a version after its removal.
        """
        async for metric, labels in in_slices(self._series_by_model()):
            model = labels["model"]
            version = int(labels["version"]) if "version" in labels and model != NO_MODEL else None
            if model != NO_MODEL and not known(model, version):
                metric.remove(*labels.values())
                if version is not None:
                    self._series.pop((model, version), None)

    def _series_by_model(self) -> Iterator[tuple[AnyMetric, dict[str, str]]]:
        for metric in self.metrics():
            for labels, _ in series_of(metric):
                if "model" in labels:
                    yield metric, labels

    def metrics(self) -> list[AnyMetric]:
        """Return every metric, in the order of their registration."""
        return [one for one in vars(self).values() if isinstance(one, AnyMetric)]


def series_of(metric: AnyMetric) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield the labels and series of a metric; one without labels is its own series.

    prometheus_client has no public access to single series.
    """
    names = metric._labelnames  # noqa: SLF001 - see above
    if not names:
        yield {}, metric
        return
    for values, series in tuple(metric._metrics.items()):  # noqa: SLF001 - see above
        yield dict(zip(names, values, strict=True)), series
