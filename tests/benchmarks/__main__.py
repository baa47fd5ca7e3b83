"""One row of the iris pipeline through the gateway, a raw ASGI app, and the textbook app.

``python -m tests.benchmarks [--seconds S] [--rounds N] [--json]``. Every contender is loaded in
turn, several times over, so that a machine that drifts drifts for all. Each ratio is the median of
those of the rounds; the exit status is 1 if one is not met, or if any answer was not 200.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from registry_sync.artifacts.description import describe
from registry_sync.artifacts.store import Acceptance, ArtifactStore
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from tests.benchmarks.load import load
from tests.models.catalogue import IrisPipeline
from tests.servers import free_ports

ROUNDS = 5
CONNECTIONS = (1, 64)
_READY_S = 60.0
_WARM_UP_S = 1.0
_MODEL = "iris"
_PATHS = {
    "raw ASGI": "/",
    "textbook": "/predict",
    "gateway": f"/models/{_MODEL}/predict",
}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Ratio:
    """One thing that must hold: the gateway's figure over another contender's.

    Attributes:
        bound: The least that it may be, or what it must stay below if ``is_below``.
    """

    what: str
    figure: str
    connections: int
    against: str
    bound: float
    is_below: bool = False

    def of(self, rows: Rows) -> float:
        """Return the median over the rounds."""
        found = {
            (row["name"], row["round"]): row[self.figure]
            for row in rows
            if row["connections"] == self.connections
        }
        rounds = sorted({number for _, number in found})
        ratios = [found["gateway", n] / found[self.against, n] for n in rounds]
        return float(statistics.median(ratios))

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within the bound."""
        return value < self.bound if self.is_below else value >= self.bound

    def __str__(self) -> str:
        """Say the bound."""
        return f"{'below' if self.is_below else 'at least'} {self.bound:g}"


RATIOS = (
    Ratio("req/s, 64 connections, of raw ASGI", "per_second", 64, "raw ASGI", 0.35),
    Ratio("req/s, 64 connections, of textbook", "per_second", 64, "textbook", 8),
    Ratio("p50, 1 connection, of textbook", "p50_ms", 1, "textbook", 1, is_below=True),
)


def main() -> int:
    """Measure and report; return 1 if a ratio is not met or any answer was not 200."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of the loads")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=sorted(_PATHS), help="one contender; no ratios")
    parser.add_argument("--json", action="store_true", help="print the medians for programs")
    given = parser.parse_args()
    names = [given.only] if given.only else list(_PATHS)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        body = _start(ports, Path(folder), stack)
        rows = _measure(ports, body, given.seconds, given.rounds)
    ratios = [] if given.only else [(ratio, ratio.of(rows)) for ratio in RATIOS]
    medians = _medians(rows, names)
    print(json.dumps({"medians": medians}) if given.json else _table(medians, ratios))
    met = all(ratio.holds(value) for ratio, value in ratios)
    return 0 if met and not any(row["bad"] for row in rows) else 1


def _start(ports: dict[str, int], folder: Path, stack: contextlib.ExitStack) -> str:
    """Start the contenders; see that those with a model answer right; return the body to send."""
    model = IrisPipeline()
    saved = model.save(folder / "saved")
    payload = model.payload(1)
    if "raw ASGI" in ports:
        stack.enter_context(_module("tests.benchmarks.ceiling", str(ports["raw ASGI"])))
    if "textbook" in ports:
        port = ports["textbook"]
        stack.enter_context(_module("tests.benchmarks.textbook", str(port), str(saved)))
    if "gateway" in ports:
        stack.enter_context(_gateway(ports["gateway"], folder, saved))
    for name, port in ports.items():
        url = f"http://127.0.0.1:{port}{_PATHS[name]}"
        _until(partial(_answers, url, payload))
        if name != "raw ASGI":
            answer = httpx.post(url, json=payload).json()["predictions"]
            assert answer == model.expected(payload), (name, answer)
    return json.dumps(payload)


def _answers(url: str, payload: dict[str, Any]) -> bool:
    return httpx.post(url, json=payload).is_success


def _measure(ports: dict[str, int], body: str, seconds: float, rounds: int) -> Rows:
    rows: Rows = []
    for number in range(rounds + 1):
        for connections in CONNECTIONS:
            for name, port in ports.items():
                time_s = seconds if number else _WARM_UP_S
                row = load(port, _PATHS[name], body, connections, time_s)
                if number:  # the first round is the warm-up
                    rows.append({"name": name, "connections": connections, "round": number, **row})
    return rows


def _medians(rows: Rows, names: list[str]) -> Rows:
    medians = []
    for connections in CONNECTIONS:
        for name in names:
            wanted = [r for r in rows if (r["name"], r["connections"]) == (name, connections)]
            figures = {
                figure: statistics.median(row[figure] for row in wanted)
                for figure in ("per_second", "p50_ms", "p99_ms")
            }
            medians.append({"name": name, "connections": connections, **figures})
    return medians


def _table(medians: Rows, ratios: list[tuple[Ratio, float]]) -> str:
    """Return the medians and the ratios for people."""
    lines = [f"{'':10}{'connections':>12}{'req/s':>10}{'p50 ms':>9}{'p99 ms':>9}"]
    for row in medians:
        named = f"{row['name']:10}{row['connections']:12}"
        figures = f"{row['per_second']:10.0f}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}"
        lines.append(named + figures)
    for ratio, value in ratios:
        met = "met" if ratio.holds(value) else "NOT MET"
        lines.append(f"{ratio.what:38}{value:8.2f}   {ratio}: {met}")
    return "\n".join(lines)


# --- contenders -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _module(module: str, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **(environ or {})},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _gateway(port: int, node_dir: Path, saved: Path) -> Iterator[None]:
    """Run a gateway that serves one version, told so by us over the control contract."""
    digest = _store(node_dir, saved)
    environ = {
        "GATEWAY_NODE_DIR": str(node_dir),
        "GATEWAY_PORT": str(port),
        "GATEWAY_LOG_LEVEL": "error",
    }
    with _module("gateway", environ=environ):
        _until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/live").is_success)
        _activate(node_dir / "gateway.sock", digest)
        yield


def _store(node_dir: Path, saved: Path) -> str:
    store = ArtifactStore(node_dir)
    store.open()
    fetcher = Fetcher(
        tracking_uri="", limits=FetchLimits(disk_floor_bytes=0, stable_after_s=0), environ={}
    )
    with store.incoming() as folder:
        fetched = fetcher.fetch(str(saved), folder)
        pin = Acceptance(_MODEL, 1, fetched.listing, None, stamped=False)
        return store.add(fetched, describe(fetched), pin).digest


def _activate(socket: Path, digest: str) -> None:
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://gateway", timeout=40) as control:
        version = {"version": 1, "state": "available", "digest": digest}
        models = [{"name": _MODEL, "versions": [version], "aliases": {"champion": 1}}]
        catalogue = {"writer": "bench", "epoch": 1, "models": models}
        control.put("/catalogue", json=catalogue).raise_for_status()
        named = {"model": _MODEL, "version": 1, "digest": digest, "stage_id": "bench"}
        control.post("/stage", json=named).raise_for_status()
        after = 0
        while not (state := control.get("/observe", params={"after": after}).json())["events"]:
            after = state["seq"]
        control.post(
            "/activate", json={**named, "alias": "champion", "if_active": {}}
        ).raise_for_status()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if condition():
                return
        time.sleep(0.05)
    raise TimeoutError("a contender did not come up")


if __name__ == "__main__":
    sys.exit(main())
