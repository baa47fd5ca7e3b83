"""What a poll of a big registry costs: calls, bytes and seconds, on a real MLflow server.

``python -m tests.benchmarks.polling [--models N] [--versions N] [--json]``. An ordinary poll asks
for the models; one that shows a change costs one call more; a thorough poll asks for all versions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from registry_sync.domain.aspired import Aspired
from registry_sync.sources.mlflow_registry import connect_mlflow
from tests.acceptance.lying_registry import LyingRegistry
from tests.servers import mlflow_server

ROUNDS = 5
_CREATORS = 8
_PROGRESS_EVERY = 100


def main() -> int:
    """Fill a registry, measure and report; return 1 if an ordinary poll made over two calls."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=5, help="of each model")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument("--seconds", help=argparse.SUPPRESS)  # the other benchmark's
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        mlflow_server(Path(folder)) as server,
    ):
        _fill(server.url, given.models, given.versions)
        door = LyingRegistry(server.url)
        try:
            rows = _measure(server.url, door)
        finally:
            door.close()
    print(json.dumps(rows) if given.json else _table(rows, given.models, given.versions))
    return int(next(row["calls"] for row in rows if row["poll"] == "ordinary") > 2)


def _fill(url: str, models: int, versions: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(url)

    def create(number: int) -> None:
        name = f"model-{number:04}"
        client.create_registered_model(name, tags={"team": "risk"})
        for version in range(1, versions + 1):
            source = f"s3://models/{name}/{version}"
            client.create_model_version(name, source=source, await_creation_for=0)
        client.set_registered_model_alias(name, "champion", "1")

    with ThreadPoolExecutor(_CREATORS) as pool:
        for done, _ in enumerate(pool.map(create, range(models)), start=1):
            if done % _PROGRESS_EVERY == 0:
                print(f"registered {done} models of {models}", file=sys.stderr)


def _measure(url: str, door: LyingRegistry) -> list[dict[str, Any]]:
    from mlflow import MlflowClient

    registry = connect_mlflow(door.url, os.environ)
    client = MlflowClient(url)
    before = registry.aspired()
    turn = iter(range(1, 1000))

    def move_one() -> None:
        client.set_registered_model_alias("model-0000", "champion", str(1 + next(turn) % 2))

    return [
        _row("ordinary", door, lambda: registry.aspired(before)),
        _row("one alias moved", door, lambda: registry.aspired(before), prepare=move_one),
        _row("one model, by a hint", door, lambda: registry.model("model-0000")),
        _row("thorough", door, registry.aspired),
    ]


def _row(
    poll: str,
    door: LyingRegistry,
    ask: Callable[[], Aspired | object],
    prepare: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    seconds, searches = [], list[list[tuple[str, int]]]()
    for _ in range(ROUNDS):
        prepare()
        door.searches.clear()
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
        searches.append(list(door.searches))
    return {
        "poll": poll,
        "calls": max(map(len, searches)),
        "bytes": max(sum(size for _, size in made) for made in searches),
        "seconds": round(statistics.median(seconds), 4),
    }


def _table(rows: Iterable[dict[str, Any]], models: int, versions: int) -> str:
    lines = [f"A registry of {models} models with {versions} versions each; medians of {ROUNDS}."]
    lines.append(f"{'poll':<22}{'calls':>6}{'kB':>9}{'seconds':>9}")
    for row in rows:
        size = row["bytes"] / 1000
        lines.append(f"{row['poll']:<22}{row['calls']:>6}{size:>9.0f}{row['seconds']:>9.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
