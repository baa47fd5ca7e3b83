"""One row of the iris pipeline through the gateway, against a raw ASGI app that only decodes it.

``python -m tests.benchmarks [--seconds S] [--json]``. Every contender is loaded in turn, several
times over, so that a machine that drifts drifts for all; reported are medians and their ratios.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from registry_sync.artifact_store import ArtifactStore, Pin
from registry_sync.describe import describe
from registry_sync.fetch import Fetcher, FetchLimits
from tests.models.catalogue import IrisPipeline
from tests.servers import free_ports

ROUNDS = 3
CONNECTIONS = (1, 64)
_READY_S = 60.0
_MODEL = "iris"


def main() -> int:
    """Measure and report; return 1 if any answer was not 200."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of the loads")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    given = parser.parse_args()
    model = IrisPipeline()
    body = json.dumps(model.payload(1))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        ports = dict(zip(("ceiling", "gateway"), free_ports(2), strict=True))
        stack.enter_context(_ceiling(ports["ceiling"]))
        stack.enter_context(_gateway(ports["gateway"], Path(folder), model))
        rows = _measure(ports, body, given.seconds)
    report = _report(rows)
    print(json.dumps(report, indent=1) if given.json else _table(report))
    return 1 if any(row["bad"] for row in rows) else 0


def _measure(ports: dict[str, int], body: str, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for number in range(ROUNDS + 1):
        for name, port in ports.items():
            for connections in CONNECTIONS:
                row = _load(port, body, connections, seconds if number else 1.0)
                if number:  # the first round is the warm-up
                    rows.append({"name": name, "connections": connections, **row})
    return rows


def _load(port: int, body: str, connections: int, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.load", str(port)),
            *(f"/models/{_MODEL}/predict", body),
            *("--connections", str(connections), "--seconds", str(seconds)),
        ],
        capture_output=True,
        check=True,
        timeout=seconds + 60,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _report(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def median(name: str, connections: int, what: str) -> float:
        return float(
            statistics.median(
                row[what]
                for row in rows
                if (row["name"], row["connections"]) == (name, connections)
            )
        )

    return [
        {
            "name": name,
            "connections": connections,
            **{
                what: median(name, connections, what) for what in ("per_second", "p50_ms", "p99_ms")
            },
            "ratio_to_ceiling": median(name, connections, "per_second")
            / median("ceiling", connections, "per_second"),
        }
        for connections in CONNECTIONS
        for name in ("ceiling", "gateway")
    ]


def _table(report: list[dict[str, Any]]) -> str:
    lines = [f"{'':10}{'connections':>12}{'req/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'of ceiling':>12}"]
    lines += [
        f"{row['name']:10}{row['connections']:12}{row['per_second']:10.0f}{row['p50_ms']:9.2f}"
        f"{row['p99_ms']:9.2f}{row['ratio_to_ceiling']:12.2f}"
        for row in report
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _process(*command: str, environ: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        command, env={**os.environ, **(environ or {})}, stderr=subprocess.DEVNULL
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
def _ceiling(port: int) -> Iterator[None]:
    with _process(sys.executable, "-m", "tests.benchmarks.ceiling", str(port)):
        _until(lambda: httpx.post(f"http://127.0.0.1:{port}/", content="{}").is_success)
        yield


@contextlib.contextmanager
def _gateway(port: int, node_dir: Path, model: IrisPipeline) -> Iterator[None]:
    """Run a gateway that serves one version, told so by us over the control contract."""
    digest = _store(node_dir, model)
    environ = {
        "GATEWAY_NODE_DIR": str(node_dir),
        "GATEWAY_PORT": str(port),
        "GATEWAY_LOG_LEVEL": "error",
    }
    with _process(sys.executable, "-m", "gateway", environ=environ):
        _until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/ready").is_success)
        _activate(node_dir / "gateway.sock", digest)
        yield


def _store(node_dir: Path, model: IrisPipeline) -> str:
    saved = model.save(node_dir / "saved")
    store = ArtifactStore(node_dir)
    store.open()
    fetcher = Fetcher(
        tracking_uri="", limits=FetchLimits(disk_floor_bytes=0, settle_s=0), environ={}
    )
    with store.staging() as folder:
        fetched = fetcher.fetch(str(saved), folder)
        pin = Pin(_MODEL, 1, fetched.listing, None, stamped=False)
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
            "/activate", json={**named, "alias": "champion", "if_generation": 0}
        ).raise_for_status()


def _until(condition: Any) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if condition():
                return
        time.sleep(0.05)
    raise TimeoutError("a contender did not come up")


if __name__ == "__main__":
    sys.exit(main())
