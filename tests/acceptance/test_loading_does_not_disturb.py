"""Big models load, warm up, swap and unload, and steady traffic on another one hardly notices.

The same loads in a thread of the app that everybody writes first show that it could be noticed.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import REPOSITORY, Node
from tests.acceptance.registry import Registry
from tests.acceptance.scale import (
    DISTURBED_AT_MOST_S,
    DISTURBED_AT_MOST_TIMES,
    DISTURBED_QUIET_S,
    DISTURBED_ROUNDS,
    FOREST_TREES,
    LOADED_BESIDE,
    TEXT_TERMS,
    TORCH_WIDTH,
)
from tests.acceptance.steady import Steady, p99_s
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually, until
from tests.models.catalogue import BuildableModel, IrisPipeline
from tests.models.heavy import Forest, TextPipeline, WideTorchModel
from tests.servers import clean_environ, free_ports

ALIAS = "champion"
RATE = 200
AT_LEAST_S = 1.0
STEADY = IrisPipeline()
HEAVY: dict[str, tuple[BuildableModel, BuildableModel]] = {
    "forest": (Forest(FOREST_TREES, 0), Forest(FOREST_TREES, 1)),
    "text": (TextPipeline(TEXT_TERMS, 1.0), TextPipeline(TEXT_TERMS, -1.0)),
    "torch": (WideTorchModel(0, width=TORCH_WIDTH), WideTorchModel(1, width=TORCH_WIDTH)),
}
"""Two versions of each, which swap with one another."""
GATEWAY = {
    # What is not asked for any more is unloaded soon.
    "GATEWAY_ON_DEMAND_IDLE_S": "0.5",
    "GATEWAY_PROBE_INTERVAL_S": "2",
}

CONTROL = {"REGISTRY_SYNC_POLL_INTERVAL_S": "2"}
THREAD_AT_LEAST_TIMES = 20.0
LOOK_EVERY_S = 0.25
"""The test itself, and the registry's server, share the cores with what is measured."""

Window = tuple[float, float]


@dataclass
class Measured:
    """When nothing happened, and when what was loaded; by rounds."""

    steady: Steady
    quiet: list[Window] = field(default_factory=list)
    loading: dict[str, list[Window]] = field(default_factory=dict)

    async def rest(self) -> None:
        """Let the traffic run undisturbed for a while."""
        start = time.monotonic()
        await asyncio.sleep(DISTURBED_QUIET_S)  # a time that is measured, not a wait
        self.quiet.append((start, time.monotonic()))

    async def during(self, what: str, load: Coroutine[Any, Any, None]) -> None:
        start = time.monotonic()
        await load
        # So that there are enough requests to tell a percentile.
        await asyncio.sleep(max(0.0, start + AT_LEAST_S - time.monotonic()))
        self.loading.setdefault(what, []).append((start, time.monotonic()))

    def p99_before_s(self) -> float:
        """The median over the rounds."""
        return self._median(self.quiet)

    def p99_during_s(self, what: str) -> float:
        return self._median(self.loading[what])

    def p99_of_all_loads_s(self) -> float:
        """The median over the rounds, each with all that was loaded in it."""
        rounds = zip(*self.loading.values(), strict=True)
        return statistics.median(
            p99_s([one for window in windows for one in self.steady.between(*window)])
            for windows in rounds
        )

    def report(self) -> str:
        """All figures, in milliseconds."""

        def each(windows: list[Window]) -> str:
            p99s = [1000 * p99_s(self.steady.between(*window)) for window in windows]
            lasted = statistics.median(end - start for start, end in windows)
            shown = ", ".join(f"{p99:.1f}" for p99 in p99s)
            return f"{statistics.median(p99s):.1f} ms ({shown}), in {lasted:.1f} s each"

        lines = [f"before: p99 {each(self.quiet)}"]
        lines += [f"{what}: p99 {each(windows)}" for what, windows in self.loading.items()]
        return "\n".join(lines)

    def _median(self, windows: list[Window]) -> float:
        return statistics.median(p99_s(self.steady.between(*window)) for window in windows)


@dataclass
class Published:
    """A heavy model in the registry: two versions, and the next ones are made of their bytes."""

    registry: Registry
    name: str
    models: tuple[BuildableModel, BuildableModel]
    versions: int = 2

    def folder(self, version: int) -> str:
        return str(self.registry.client.get_model_version_download_uri(self.name, str(version)))

    def publish_next(self) -> int:
        """Register the bytes of the last version but one once more, and promote that."""
        self.versions = self.registry.publish_again(self.name, self.versions - 1)
        self.registry.point(self.name, ALIAS, self.versions)
        return self.versions

    def model(self, version: int) -> BuildableModel:
        return self.models[(version - 1) % 2]


@pytest.mark.soak("integration/test_worker.py")
async def test_loads_are_not_felt_by_a_neighbour_and_would_be_in_a_thread(
    make_node: NodeMaker, registry: Registry, tmp_path: Path
) -> None:
    steady_name = registry.name("steady")
    heavy = await asyncio.to_thread(_publish, registry, steady_name, tmp_path)
    node = make_node(gateway=GATEWAY, control=CONTROL).start()
    gateway = await _beside_the_gateway(node, steady_name, heavy)
    node.close()
    print(f"gateway\n{gateway.report()}")
    _assert_none_failed(gateway)
    before = gateway.p99_before_s()
    at_most = max(DISTURBED_AT_MOST_TIMES * before, before + DISTURBED_AT_MOST_S)
    for what in heavy:
        assert gateway.p99_during_s(what) <= at_most, what
    textbook = await _beside_a_thread(STEADY.save(tmp_path / "steady"), heavy)
    print(f"thread of the textbook app\n{textbook.report()}")
    _assert_none_failed(textbook)
    ratio = textbook.p99_of_all_loads_s() / gateway.p99_of_all_loads_s()
    assert ratio >= THREAD_AT_LEAST_TIMES, f"only {ratio:.1f} times worse"


def _assert_none_failed(measured: Measured) -> None:
    failed = [each for each in measured.steady.asked if not each.good]
    assert not failed, f"{len(failed)} requests failed, the first: {failed[0]}"


def _publish(registry: Registry, steady: str, folder: Path) -> dict[str, Published]:
    """Register everything; the heavy ones in a folder, so that no server is in the way."""
    registry.publish(steady, STEADY)
    registry.point(steady, ALIAS, 1)
    place = registry.name("place")
    registry.forget_name(place)
    registry.client.create_experiment(place, artifact_location=(folder / "place").as_uri())
    published = {}
    for what in LOADED_BESIDE:
        name = registry.name(what)
        registry.client.create_registered_model(name, tags={"gateway.load": "on_demand"})
        for model in HEAVY[what]:
            registry.publish(name, model, place)
        registry.point(name, ALIAS, 2)
        published[what] = Published(registry, name, HEAVY[what])
    return published


# --- in processes of their own --------------------------------------------------------------------


async def _beside_the_gateway(node: Node, name: str, heavy: dict[str, Published]) -> Measured:
    async with client(4) as http:
        await node.active(http, name, ALIAS, 1)
        for each in heavy.values():  # fetched before, as they would be without the tag
            await _answered(http, node, each, 2)
        await _only_the_steady_one(node)
        with Steady(node.port, Call(name, 0).path, **_asking(), rate=RATE) as steady:
            measured = Measured(steady)
            for _ in range(DISTURBED_ROUNDS):
                await measured.rest()
                for what, each in heavy.items():
                    await measured.during(what, _once_around(http, node, each))
    return measured


async def _once_around(http: httpx.AsyncClient, node: Node, heavy: Published) -> None:
    """Load the active version, swap it with one that comes from the registry, unload both."""
    await _answered(http, node, heavy, heavy.versions)
    version = await asyncio.to_thread(heavy.publish_next)
    await _answered(http, node, heavy, version)
    await _only_the_steady_one(node)


async def _answered(http: httpx.AsyncClient, node: Node, heavy: Published, version: int) -> None:
    model = heavy.model(version)
    body = model.payload(1)
    expected = model.expected(body)

    async def right() -> bool:
        answer = await ask(http, node.url, Call(heavy.name, 0, f"@{ALIAS}"), body)
        assert answer.ok or answer.status == 503, answer
        return answer.version == version and np.allclose(answer.predictions, expected)

    what = f"{heavy.name} answers as version {version}"
    await eventually(right, what, look_every_s=LOOK_EVERY_S)


async def _only_the_steady_one(node: Node) -> None:
    async def alone() -> bool:
        return len(node.workers_now()) == 1

    await eventually(alone, "the others are unloaded", look_every_s=LOOK_EVERY_S)


# --- in a thread ----------------------------------------------------------------------------------


async def _beside_a_thread(folder: Path, heavy: dict[str, Published]) -> Measured:
    folders = [[each.folder(version) for version in (1, 2)] for each in heavy.values()]
    async with client(4) as http:
        with _textbook(folder) as port, Steady(port, "/predict", **_asking(), rate=RATE) as steady:
            measured = Measured(steady)
            url = f"http://127.0.0.1:{port}"

            for _ in range(DISTURBED_ROUNDS):
                await measured.rest()
                await measured.during("all of them", _load_in_a_thread(http, url, folders))
    return measured


async def _load_in_a_thread(http: httpx.AsyncClient, url: str, folders: list[list[str]]) -> None:
    """Of each model load one version, swap it with the other one, and unload that."""
    for versions in folders:
        for folder in versions:
            answer = await http.post(f"{url}/load", json={"folder": folder})
            assert answer.is_success, answer.text
        assert (await http.post(f"{url}/unload")).is_success


@contextlib.contextmanager
def _textbook(folder: Path) -> Iterator[int]:
    [port] = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.textbook", str(port), str(folder)],
        cwd=REPOSITORY,
        env=clean_environ({"MLFLOW_DISABLE_TELEMETRY": "true"}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "the textbook app ended"
        with contextlib.suppress(httpx.TransportError):
            body = STEADY.payload(1)
            url = f"http://127.0.0.1:{port}/predict"
            return httpx.post(url, json=body, timeout=5, verify=False).is_success
        return False

    try:
        until(answers, "the textbook app answers")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _asking() -> dict[str, str]:
    """What the steady traffic sends, and looks for in the answers of either."""
    body = STEADY.payload(1)
    wanted = json.dumps(STEADY.expected(body), separators=(",", ":"))
    return {"body": json.dumps(body), "wanted": f'"predictions":{wanted}'}
