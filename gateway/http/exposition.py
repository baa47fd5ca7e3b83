"""Metrics in Prometheus' text format, written in slices: there may be tens of thousands of samples.

What one series tells is read at once; between two of them, others have a turn, and may count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.slices import in_slices
from gateway.telemetry import AnyMetric, series_of


class _Families(Collector):
    """Families that are there already, for `generate_latest`, which wants to collect them."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


async def exposition(metrics: Iterable[AnyMetric]) -> bytes:
    """Return what `generate_latest` does of the same metrics."""
    parts = []
    for metric in metrics:
        (family,) = metric.describe()
        head = generate_latest(_Families(family))
        parts.append(head)
        parts += [
            generate_latest(_Families(one))[len(head) :] async for one in in_slices(_series(metric))
        ]
    return b"".join(parts)


def _series(metric: AnyMetric) -> Iterator[Metric]:
    """Give each series as a family of its own, under the labels that it has."""
    for labels, series in series_of(metric):
        (family,) = series.collect()
        family.samples = [one._replace(labels=labels | one.labels) for one in family.samples]
        yield family
