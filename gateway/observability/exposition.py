"""Metrics in Prometheus' text format, written in slices, since there may be thousands of samples.

One series is read in one step of the loop. Between two of them, other tasks run and may count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from gateway.observability.metrics import AnyMetric, series_of
from gateway.system import in_slices


async def exposition(metrics: Iterable[AnyMetric]) -> bytes:
    """Return the same text as `generate_latest`."""
    parts = []
    for metric in metrics:
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        head = f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
        parts.append(head.encode())
        parts += [lines async for lines in in_slices(_series(metric))]
    return b"".join(parts)


def _series(metric: AnyMetric) -> Iterator[bytes]:
    """Yield the lines of each series.

    `generate_latest` is for whole registries, and takes twenty times as long for one series.
    """
    for labels, series in series_of(metric):
        own = _labels(labels)
        (family,) = series.collect()
        yield "".join([_line(one, own) for one in family.samples]).encode()


def _line(sample: Sample, labels: list[str]) -> str:
    all_labels = ",".join(sorted([*labels, *_labels(sample.labels)]))
    name = f"{sample.name}{{{all_labels}}}" if all_labels else sample.name
    number = floatToGoString(sample.value)  # type: ignore[no-untyped-call]  # it has no types
    return f"{name} {number}\n"


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [f'{name}="{_escaped(value)}"' for name, value in labels.items()]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
