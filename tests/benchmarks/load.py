"""Load on one address: closed loop, keep-alive connections, from a process of its own.

With ``wrk`` where it is installed: it takes less of the machine that the servers need as well.
Else by ``python -m tests.benchmarks.load``, which prints the same figures as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import uvloop

_GRACE_S = 30.0
_WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nFIGURES {{"per_second": %f, "p50_ms": %f, "p99_ms": %f, "bad": %d}}\\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.status + e.connect + e.read + e.write + e.timeout))
end
"""


def load(port: int, path: str, body: str, connections: int, seconds: float) -> dict[str, Any]:
    """Load one address; return ``per_second``, ``p50_ms``, ``p99_ms`` and ``bad`` answers."""
    if shutil.which("wrk"):
        return _wrk(f"http://127.0.0.1:{port}{path}", body, connections, seconds)
    command = [
        *(sys.executable, "-m", "tests.benchmarks.load", str(port), path, body),
        *("--connections", str(connections), "--seconds", str(seconds)),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 2 * _GRACE_S)
    return _figures(done.stdout.decode())


def _wrk(url: str, body: str, connections: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="wrk-") as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_WRK_SCRIPT.format(body=body))
        command = [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{max(1, round(seconds))}s", "--timeout", "10s"),
            *("--script", str(script), url),
        ]
        limit_s = seconds + 2 * _GRACE_S
        done = subprocess.run(command, capture_output=True, check=True, timeout=limit_s)
    return _figures(done.stdout.decode().rpartition("FIGURES ")[2])


def _figures(text: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(text)
    return figures


class Connection(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self._request, self._until, self._latencies = request, until, latencies
        self._buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bad = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, body = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        self.bad += not head.startswith(b"HTTP/1.1 200")
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(port: int, path: str, body: bytes, connections: int, seconds: float) -> None:
    """Load one address for a while, and print what it came to."""
    request = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    latencies: list[float] = []
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda: Connection(request, started + seconds, latencies), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + _GRACE_S):
        await asyncio.gather(*(protocol.done for _, protocol in made))
    elapsed = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=100)
    print(
        json.dumps(
            {
                "per_second": len(latencies) / elapsed,
                "p50_ms": cuts[49] * 1000,
                "p99_ms": cuts[98] * 1000,
                "bad": sum(protocol.bad for _, protocol in made),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    uvloop.run(run(given.port, given.path, given.body.encode(), given.connections, given.seconds))
