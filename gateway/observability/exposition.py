"""Metrics in Prometheus' text format, written in slices: there may be tens of thousands of samples.

What one series tells is read at once; between two of them, others have a turn, and may count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from gateway.observability.metrics import AnyMetric, series_of
from gateway.system import in_slices


async def exposition(metrics: Iterable[AnyMetric]) -> bytes:
    """Return what `generate_latest` does of the same metrics."""
    parts = []
    for metric in metrics:
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        head = f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
        parts.append(head.encode())
        parts += [lines async for lines in in_slices(_series(metric))]
    return b"".join(parts)


def _series(metric: AnyMetric) -> Iterator[bytes]:
    """Give the lines of each series, under the labels that it has.

    `generate_latest` takes twenty times as long for one series: it is made for a whole registry.
    """
    for labels, series in series_of(metric):
        own = _labels(labels)
        (family,) = series.collect()
        yield "".join([_line(one, own) for one in family.samples]).encode()


def _line(sample: Sample, labels: list[str]) -> str:
    told = ",".join(sorted([*labels, *_labels(sample.labels)]))
    name = f"{sample.name}{{{told}}}" if told else sample.name
    number = floatToGoString(sample.value)  # type: ignore[no-untyped-call]  # it has no types
    return f"{name} {number}\n"


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [f'{name}="{_escaped(value)}"' for name, value in labels.items()]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
