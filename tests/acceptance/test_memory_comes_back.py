"""A big model is loaded and unloaded again and again: nothing of it is left anywhere."""

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
import numpy as np

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.processes import proportional_bytes
from tests.acceptance.registry import Registry
from tests.acceptance.scale import CYCLES, CYCLES_BEFORE, SOAK, WITH_TORCH
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.heavy import Forest

MIB = 1024 * 1024
MODELS = [Forest(trees=4, first=first) for first in range(3)]
"""Of 57 MB each. Three take turns in room for two: every call loads one and unloads another."""
ROOM = 2
IMPORTED_LAST = "torch._export.passes.collect_tracepoints_pass"
POOLED_THREADS = 4
"""Pools of threads fill up when work happens to overlap."""
GATEWAY_MORE_BYTES = 4 * MIB
NODE_MORE_BYTES = 24 * MIB
"""Less than half of one model, over all cycles."""
MACHINE_MORE_BYTES = 100 * MIB
"""Less than two of the models; the machine does other things too."""


@dataclass(frozen=True)
class Held:
    """What there is of everything that could be left behind.

    Attributes:
        gateway_bytes: Private memory of the gateway's process.
        node_bytes: Memory of all of the node's processes, shared pages counted once.
        machine_bytes: What the machine could not give to others: page cache not counted.
        shared_bytes: In ``/dev/shm``.
        processes: Of the node.
        threads: Of the gateway, the forkserver and the control plane.
        descriptors: Theirs too.
        files: In the node's folder and in what its processes take for temporary ones.
    """

    gateway_bytes: int
    node_bytes: int
    machine_bytes: int
    shared_bytes: int
    processes: int
    threads: int
    descriptors: int
    files: int

    @classmethod
    def by(cls, node: Node) -> "Held":
        assert node.gateway is not None
        assert node.control is not None
        lasting = [node.gateway.pid, node.forkserver().pid, node.control.pid]
        return cls(
            gateway_bytes=_private_bytes(node.gateway.pid),
            node_bytes=proportional_bytes(node.pids()),
            machine_bytes=_memory("MemTotal:") - _memory("MemAvailable:"),
            shared_bytes=_used("/dev/shm"),
            processes=len(node.pids()),
            threads=_entries(lasting, "task"),
            descriptors=_entries(lasting, "fd"),
            files=sum(1 for _ in _files(node.folder)),
        )

    def report(self, before: "Held") -> str:
        """What has become more or less."""
        lines = []
        for each in fields(self):
            then, now = getattr(before, each.name), getattr(self, each.name)
            unit, per = (" MiB", MIB) if each.name.endswith("bytes") else ("", 1)
            lines.append(f"{each.name}: {then / per:.6g}{unit} before, {now / per:.6g}{unit} after")
        return "\n".join(lines)


async def test_what_is_loaded_and_unloaded_leaves_nothing_behind(
    make_node: NodeMaker, registry: Registry, tmp_path: Path
) -> None:
    place = registry.name("place")
    registry.forget_name(place)
    registry.client.create_experiment(place, artifact_location=(tmp_path / "place").as_uri())
    names = [registry.name(f"big{number}") for number in range(len(MODELS))]
    for name, model in zip(names, MODELS, strict=True):
        registry.client.create_registered_model(name, tags={"gateway.load": "on_demand"})
        await asyncio.to_thread(registry.publish, name, model, place)
    node = make_node(
        gateway={"GATEWAY_MAX_RESIDENT": str(ROOM), "GATEWAY_PROBE_INTERVAL_S": "1"} | WITH_TORCH,
    )
    temporary = node.folder / "tmp"
    temporary.mkdir()
    for start in (node.start_gateway, node.start_control):
        start({"TMPDIR": str(temporary)})
    async with client(2) as http:
        for name in names:
            await node.catalogue_shows(http, name, 1)
        await _cycles(http, node, names, CYCLES_BEFORE)
        before = await _settled(node)
        loads = await _cycles(http, node, names, CYCLES)
        after = await _settled(node)
    report = f"{loads} loads and unloads\n{after.report(before)}"
    print(report)
    assert after.gateway_bytes - before.gateway_bytes < GATEWAY_MORE_BYTES, report
    assert after.node_bytes - before.node_bytes < NODE_MORE_BYTES, report
    for counted in ("processes", "descriptors", "files"):
        assert getattr(after, counted) <= getattr(before, counted), f"{counted}\n{report}"
    assert after.threads <= before.threads + POOLED_THREADS, report
    if SOAK:  # else other tests run beside this one
        assert after.shared_bytes <= before.shared_bytes, report
        assert after.machine_bytes - before.machine_bytes < MACHINE_MORE_BYTES, report


async def _cycles(http: httpx.AsyncClient, node: Node, names: list[str], count: int) -> int:
    """Call the models in turn until this many more loads are counted; return how many.

    Each call loads a model and unloads the one that was used before the last, unless that one is
    spared because it was loaded moments ago: then a call finds its model there.
    """
    body = MODELS[0].payload(1)
    expected = [model.expected(body) for model in MODELS]
    loads_before = await node.metric(http, "gateway_loads_total")
    loads = 0.0
    for _ in range(count):
        for turn, name in enumerate(names):
            answer = await ask(http, node.url, Call(name, 0, "1"), body)
            assert answer.ok, answer
            assert np.allclose(answer.predictions, expected[turn]), answer
        loads = await node.metric(http, "gateway_loads_total") - loads_before
        if loads >= count:
            return int(loads)
    raise AssertionError(f"{count} rounds, and only {loads:g} loads")


async def _settled(node: Node) -> Held:
    """What is held, once the last one that was unloaded has ended and nothing shrinks any more."""
    forkserver = node.forkserver().pid

    async def complete() -> bool:
        modules = await asyncio.to_thread(node.modules_of, forkserver)
        return IMPORTED_LAST in modules

    await eventually(complete, "the forkserver has imported all that it will")
    last: list[Held] = []

    async def still() -> Held | None:
        held = await asyncio.to_thread(Held.by, node)
        done = (
            len(node.workers_now()) == ROOM
            and bool(last)
            and last[-1].processes == held.processes
            and last[-1].node_bytes - held.node_bytes < MIB
        )
        last.append(held)
        return held if done else None

    return await eventually(still, "the node is as it will stay", look_every_s=1.0)


def _private_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Private_"))


def _memory(what: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def _used(mount: str) -> int:
    usage = os.statvfs(mount)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def _entries(pids: Iterable[int], what: str) -> int:
    return sum(1 for pid in pids for _ in Path(f"/proc/{pid}/{what}").iterdir())


def _files(folder: Path) -> Iterator[Path]:
    """Every file and folder that stays; what vanishes meanwhile does not."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                (Path(parent) / name).lstat()
                yield Path(parent) / name
