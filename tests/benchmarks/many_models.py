"""What a registry of many models costs a node: from an empty folder to all active, and after that.

``python -m tests.benchmarks.many_models [--models N] [--source s3|mlflow] [--load lazy|on_demand]
[--called N] [--changes N] [--polls N]``. Seconds of the clock depend on the machine and on
what else it does; CPU seconds and bytes hardly do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from registry_sync.artifacts.manifest import Manifest
from registry_sync.operations.webhooks.authentication import RELOAD_HEADERS, sign
from tests.acceptance.node import Node
from tests.acceptance.registry import row_body
from tests.acceptance.waiting import LOOK_EVERY_S, until
from tests.models.catalogue import LinearModel
from tests.servers import MlflowServer, Seaweed, free_ports, mlflow_server, seaweedfs

ALIAS = "champion"
NEVER_S = "100000"
"""A poll interval with which only the first poll comes."""
IDLE_INTERVAL_S = "5"
CALLED, CHANGES, POLLS = 20, 30, 4
PATIENCE_S = 7200.0
NODES = "/var/tmp"
"""Where nodes keep their files: on a disk where /tmp is memory, of which no byte is counted."""
_SECRET = "not much of a secret"
_ACTIVATED = ('"activation.completed"', '"activate.complete"')
_FORMER_SETTINGS = {"REGISTRY_SYNC_SETTLE_S": "0"}
"""Events and settings of other checkouts may have the names from before the first release."""
_WRITERS = 8
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Costs:
    """What one run cost; None: it was not measured.

    Attributes:
        models: How many the registry has.
        seconds: From the start of the control plane until every alias is active.
        control_cpu_s: Of the control plane, children included, until then.
        gateway_cpu_s: Of the gateway's own process.
        workers_cpu_s: Of everything that the gateway has started.
        gateway_megabytes: What the gateway has written to its disk: table and catalogue.
        poll_cpu_s: Of the control plane, for one poll that finds nothing new.
        active_change_cpu_s: Of the control plane, for one active alias that moves, by a hint: the
            version is fetched, verified, staged, activated and recorded.
        active_change_gateway_cpu_s: Of the gateway's own process, for the same.
        active_change_kilobytes: What the gateway writes, for the same.
        uncalled_change_cpu_s: Of the control plane, for one alias that moves, by a hint, of a model
            that is `on_demand` and was never called: no version is fetched.
        uncalled_change_gateway_cpu_s: Of the gateway's own process, for the same.
        uncalled_change_kilobytes: What the gateway writes, for the same.
    """

    models: int
    source: str
    load: str
    seconds: float | None = None
    control_cpu_s: float | None = None
    gateway_cpu_s: float | None = None
    workers_cpu_s: float | None = None
    gateway_megabytes: float | None = None
    poll_cpu_s: float | None = None
    active_change_cpu_s: float | None = None
    active_change_gateway_cpu_s: float | None = None
    active_change_kilobytes: float | None = None
    uncalled_change_cpu_s: float | None = None
    uncalled_change_gateway_cpu_s: float | None = None
    uncalled_change_kilobytes: float | None = None


def name_of(number: int) -> str:
    """Return a model's name."""
    return f"k{number:04}"


def spread(models: int) -> list[int]:
    """Return the numbers of all models, neighbours far from each other."""
    return [turn * 7919 % models for turn in range(models)]


# --- registries -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Servers:
    """Servers that run already."""

    mlflow: MlflowServer
    storage: Seaweed


class Bucket:
    """A registry that is a prefix of a bucket."""

    def __init__(
        self, server: Seaweed, files: Mapping[str, bytes], numbers: Collection[int]
    ) -> None:
        """Publish the same files as every version of these models, each with bytes of its own."""
        self.name = server.make_bucket(f"many-{uuid.uuid4().hex}")
        self.url = f"s3://{self.name}/models"
        self.environ: Mapping[str, str] = server.environ
        self._client = server.client()
        self._files = files
        self._versions: set[tuple[int, int]] = set()
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(lambda number: self.point(number, 1), numbers))

    def publish(self, number: int, version: int) -> None:
        """Publish a version, if it is not there yet."""
        if (number, version) in self._versions:
            return
        own = _of_its_own(self._files, number, version)
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in own.items()}
        for path, content in own.items():
            self._put(number, f"{version}/{path}", content)
        self._put(number, f"{version}.manifest", Manifest.of(digests).text().encode())
        self._versions.add((number, version))

    def point(self, number: int, version: int) -> None:
        """Move the alias of a model."""
        self.publish(number, version)
        self._put(number, "aliases.json", json.dumps({ALIAS: version}).encode())

    def _put(self, number: int, path: str, content: bytes) -> None:
        key = f"models/{name_of(number)}/{path}"
        self._client.put_object(Bucket=self.name, Key=key, Body=content)


class Mlflow:
    """An MLflow server whose models lie in a bucket."""

    def __init__(
        self, server: MlflowServer, bucket: Bucket, models: int, stored: Collection[int], load: str
    ) -> None:
        """Register the models straight in the server's database: calls would take long.

        The objects are the bucket's: MLflow only names them. Only stored models have any.
        """
        from mlflow import MlflowClient

        self.url = url = server.url
        self.environ: Mapping[str, str] = bucket.environ
        self._bucket, self._stored = bucket, frozenset(stored)
        store, tags = server.group.folder / "mlflow.db", {"gateway.load": load}
        self._versions: set[tuple[int, int]] = set()
        with warnings.catch_warnings(action="ignore"):  # of MLflow's, about its own tables
            self._client = MlflowClient(f"sqlite:///{store}")
            for number in range(models):
                self._client.create_registered_model(name_of(number), tags=tags)
                self.point(number, 1)
        self._client = MlflowClient(url)

    def point(self, number: int, version: int) -> None:
        """Move the alias of a model."""
        name = name_of(number)
        if (number, version) not in self._versions:
            if number in self._stored:
                self._bucket.publish(number, version)
            source = f"{self._bucket.url}/{name}/{version}"
            self._client.create_model_version(name, source=source, await_creation_for=0)
            self._versions.add((number, version))
        self._client.set_registered_model_alias(name, ALIAS, str(version))

    def forget(self, models: int) -> None:
        """Take the models out of the registry."""
        for number in range(models):
            self._client.delete_registered_model(name_of(number))


Bench = Bucket | Mlflow
"""A registry of many small models, each with one version and its alias there."""


def _of_its_own(files: Mapping[str, bytes], number: int, version: int) -> dict[str, bytes]:
    """Return files that load as the given ones do, and have another digest."""
    mark = f"\n# {name_of(number)}/{version}\n".encode()
    return {**files, "MLmodel": files["MLmodel"] + mark}


@contextmanager
def registry(
    source: str, load: str, models: int, *, called: int = 0, servers: Servers | None = None
) -> Iterator[Bench]:
    """Fill a registry with this many models, whose bytes are there for those that are fetched.

    It is on servers that run already, which have no other models; else on new ones.
    """
    stored = spread(models)[:called] if load == "on_demand" else range(models)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-")))
        folder = LinearModel().save(root / "model")
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        storage = servers.storage if servers else stack.enter_context(seaweedfs(root / "s3"))
        bucket = Bucket(storage, files, stored)
        if source == "s3":
            yield bucket
            return
        server = servers.mlflow if servers else stack.enter_context(mlflow_server(root / "mlflow"))
        filled = Mlflow(server, bucket, models, stored, load)
        stack.callback(filled.forget, models)
        yield filled


# --- what processes cost --------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, its ended children included."""
    return sum(_times(pid))


def _times(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of a process itself, and those of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / _TICKS, children / _TICKS


def written_bytes(pid: int) -> int:
    """Return how many bytes a process has had written to a disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith("write_bytes"))


def assert_counted(pid: int, folder: str) -> None:
    """Fail if the kernel has counted no byte of a process that has written into a folder."""
    assert written_bytes(pid), (
        f"{folder} must lie on a disk: the kernel counts no byte that process {pid} writes there,"
        " as in a tmpfs; mount a disk there"
    )


# --- measuring ------------------------------------------------------------------------------------


def measure(
    bench: Bench, costs: Costs, *, called: int = 0, changes: int = 0, polls: int = 0
) -> Costs:
    """Measure a registry on a new node.

    Args:
        bench: The registry.
        costs: What is measured.
        called: How many models of an `on_demand` registry are called once, and so become active.
        changes: How many aliases are moved, of active models and again of models never called.
        polls: How many polls are counted.
    """
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="mm-", dir=NODES) as folder:
        node = Node(Path(folder), bench.url, control=_settings(bench, port))
        try:
            found = asdict(costs) | _catch_up(node, costs)
            numbers = spread(costs.models)
            if costs.load == "on_demand":
                active, uncalled = numbers[:called], numbers[called:]
            else:
                active, uncalled = numbers, []
            if changes and active:
                found |= _change(node, bench, port, active, changes, are_active=True)
            if changes and uncalled:
                found |= _change(node, bench, port, uncalled, changes, are_active=False)
            if polls:
                found |= _idle(node, polls)
        finally:
            node.close()
    return Costs(**found)


def active_within(bench: Bench, models: int, tree: Path, limit_s: float) -> tuple[int, float]:
    """Have the planes of another checkout make aliases active on a new node, within a time.

    Args:
        bench: The registry.
        models: How many it has; when all are active, the rest of the time is not waited for.
        tree: The checkout.
        limit_s: The time, in seconds from the start of the control plane.

    Returns:
        How many are active, and after how many seconds.
    """
    with tempfile.TemporaryDirectory(prefix="mm-", dir=NODES) as folder:
        control = _settings(bench, free_ports(1)[0]) | _FORMER_SETTINGS
        node = Node(Path(folder), bench.url, control=control, tree=tree)
        try:
            node.start_gateway()
            began = time.monotonic()
            process = node.start_control()
            found = 0
            while found < models and time.monotonic() - began < limit_s:
                process.assert_running()
                time.sleep(LOOK_EVERY_S)
                found = _active(process.log)
            return found, time.monotonic() - began
        finally:
            node.close()


def _settings(bench: Bench, port: int) -> dict[str, str]:
    """Return those of a control plane that lists its registry once, and then does what it hears."""
    return dict(bench.environ) | {
        "REGISTRY_SYNC_POLL_INTERVAL_S": NEVER_S,
        "REGISTRY_SYNC_OPERATIONS_PORT": str(port),
        "REGISTRY_SYNC_RELOAD_SECRET": _SECRET,
        "REGISTRY_SYNC_UPLOAD_STABLE_S": "0",
        "REGISTRY_SYNC_LOG_FORMAT": "json",
        "REGISTRY_SYNC_SIGNATURE_CHANGE": "warn",
    }


def _catch_up(node: Node, costs: Costs) -> dict[str, Any]:
    gateway = node.start_gateway()
    forkserver = node.forkserver().pid
    before = cpu_s(gateway.pid), written_bytes(gateway.pid), cpu_s(forkserver)
    began = time.monotonic()
    control = node.start_control()

    def all_active() -> bool:
        control.assert_running()
        gateway.assert_running()
        return _active(control.log) >= costs.models

    def all_listed() -> bool:
        control.assert_running()
        return len(_get(node, "/models").get("models", ())) >= costs.models

    done = all_listed if costs.load == "on_demand" else all_active
    until(done, "every alias is active", patience_s=PATIENCE_S)
    assert_counted(gateway.pid, NODES)
    return {
        "seconds": time.monotonic() - began,
        "control_cpu_s": cpu_s(control.pid),
        "gateway_cpu_s": cpu_s(gateway.pid) - before[0],
        "workers_cpu_s": cpu_s(forkserver) - before[2],
        "gateway_megabytes": (written_bytes(gateway.pid) - before[1]) / 1e6,
    }


def _active(log: Path) -> int:
    """Count the models whose alias has become active, by the control plane's log."""
    found = set()
    with log.open() as lines:
        for line in lines:
            if any(event in line for event in _ACTIVATED):
                one = json.loads(line)
                if one["alias"] == ALIAS:
                    found.add(one["model"])
    return len(found)


def _call(node: Node, number: int) -> None:
    """Have a model answer by its alias, which makes the alias active."""
    url = f"{node.url}/models/{quote(name_of(number))}/versions/@{ALIAS}/predict"
    until(lambda: httpx.post(url, json=row_body(1), timeout=120.0).is_success, "a model answers")


def _change(
    node: Node, bench: Bench, port: int, numbers: Sequence[int], changes: int, *, are_active: bool
) -> dict[str, Any]:
    """Move aliases one after the other, each told by a hint, each to a version that is new."""
    assert node.control is not None
    assert node.gateway is not None
    control, gateway = node.control.pid, node.gateway.pid
    for number in numbers if are_active else ():
        _call(node, number)
    _quiet(control)
    before = cpu_s(control), _times(gateway)[0], written_bytes(gateway)
    for turn in range(changes):
        number, version = numbers[turn % len(numbers)], 2 + turn // len(numbers)
        bench.point(number, version)
        _hint(port, name_of(number))
        means = {"aspired": version, "active": version if are_active else None}
        until(lambda of=number, to=means: _alias(node, of).items() >= to.items(), "it has moved")  # type: ignore[misc]
    _quiet(control)
    kind = "active" if are_active else "uncalled"
    return {
        f"{kind}_change_cpu_s": (cpu_s(control) - before[0]) / changes,
        f"{kind}_change_gateway_cpu_s": (_times(gateway)[0] - before[1]) / changes,
        f"{kind}_change_kilobytes": (written_bytes(gateway) - before[2]) / changes / 1e3,
    }


def _alias(node: Node, number: int) -> dict[str, Any]:
    """Return what a model's alias means here, and is to mean."""
    found: dict[str, Any] = _get(node, f"/models/{quote(name_of(number))}")["aliases"][ALIAS]
    return found


def _idle(node: Node, polls: int) -> dict[str, Any]:
    """Start the control plane anew, with polls, and count what they take."""
    node.stop_control()
    control = node.start_control({"REGISTRY_SYNC_POLL_INTERVAL_S": IDLE_INTERVAL_S})
    _await_listing(node, 2)
    began = cpu_s(control.pid)
    _await_listing(node, polls)
    return {"poll_cpu_s": (cpu_s(control.pid) - began) / polls}


def _await_listing(node: Node, count: int) -> None:
    for _ in range(count):
        last = _listed_at(node)
        until(lambda last=last: _listed_at(node) > last, "the registry is listed", patience_s=600.0)  # type: ignore[misc]


def _listed_at(node: Node) -> str:
    """Return when the registry was listed; RFC 3339 in UTC sorts by time."""
    return str(_get(node, f"/models/{name_of(0)}")["registry"]["listed_at"] or "")


def _quiet(pid: int) -> None:
    """Wait until a process does nothing for two seconds."""
    last, since = cpu_s(pid), time.monotonic()

    def rests() -> bool:
        nonlocal last, since
        now = cpu_s(pid)
        if now - last > 2 / _TICKS:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 2.0

    until(rests, "the control plane rests", patience_s=600.0)


def _get(node: Node, path: str) -> Any:
    answer = httpx.get(f"{node.url}{path}", timeout=60.0)
    return answer.json() if answer.status_code == 200 else {}


def _hint(port: int, model: str) -> None:
    body = json.dumps({"model": model}).encode()
    delivery, sent_at = uuid.uuid4().hex, str(int(time.time()))
    signature = sign(_SECRET.encode(), delivery.encode(), sent_at.encode(), body)
    headers = {
        RELOAD_HEADERS.delivery_id: delivery,
        RELOAD_HEADERS.timestamp: sent_at,
        RELOAD_HEADERS.signature: signature.decode(),
        "content-type": "application/json",
    }
    url = f"http://127.0.0.1:{port}/webhooks/reload"
    answer = httpx.post(url, content=body, headers=headers, timeout=60.0)
    assert answer.is_success, answer.text


def table(rows: list[Costs]) -> str:
    """Return the figures for people."""
    names = [name for name in Costs.__dataclass_fields__ if name not in ("source", "load")]
    lines = []
    for name in names:
        values = [getattr(row, name) for row in rows]
        shown = "".join(f"{'-' if one is None else f'{one:.4g}':>12}" for one in values)
        lines.append(f"{name:<24}{shown}")
    return "\n".join(lines)


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.many_models")
    parser.add_argument("--models", type=int, nargs="+", default=[100])
    parser.add_argument("--source", choices=("s3", "mlflow"), default="s3")
    parser.add_argument("--load", choices=("lazy", "on_demand"), default="lazy")
    parser.add_argument("--called", type=int, default=CALLED)
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--polls", type=int, default=POLLS)
    given = parser.parse_args()
    if given.load == "on_demand" and given.source == "s3":
        parser.error("a model's tags are MLflow's: use --source mlflow")
    rows = []
    for models in given.models:
        called = given.called if given.load == "on_demand" else 0
        with registry(given.source, given.load, models, called=called) as bench:
            costs = Costs(models, given.source, given.load)
            amounts = {"called": called, "changes": given.changes, "polls": given.polls}
            rows.append(measure(bench, costs, **amounts))
        print(table(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
