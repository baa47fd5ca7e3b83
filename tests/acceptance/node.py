"""One node under test: gateway and control plane as the real processes that users start."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.acceptance.processes import (
    MARK,
    Running,
    Seen,
    alive,
    assert_nothing_left,
    children,
    look_at,
    marked,
)
from tests.acceptance.scale import CONTROL_WITHOUT, POLL_INTERVAL_S, WITHOUT
from tests.acceptance.surface import Document, active_version
from tests.acceptance.waiting import eventually, until
from tests.servers import answers, clean_environ, free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
HOOKS = Path(__file__).resolve().parent / "hooks"
COMMAND_LIMIT_S = 120.0
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Node:
    """A node in ``folder``, which must be short: Unix sockets have 107 characters.

    Its own mark tells its processes from those of every other node. ``tree`` is the checkout whose
    planes run: this one, or that of another release.
    """

    def __init__(
        self,
        folder: Path,
        registry_url: str,
        *,
        gateway: Mapping[str, str] | None = None,
        control: Mapping[str, str] | None = None,
        tree: Path = REPOSITORY,
    ) -> None:
        self.folder = folder
        self._tree = tree
        self.node_dir = folder / "node"
        self.sockets = self.node_dir
        self.dumps = folder / "dumps"
        self.mark = uuid.uuid4().hex
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.gateway: Running | None = None
        self.gateway_prefix: Sequence[str] = ()
        self.control: Running | None = None
        self._gateway_settings = {
            "GATEWAY_NODE_DIR": str(self.node_dir),
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_LOAD_BUDGET_S": "90",
            "GATEWAY_REQUEST_TIMEOUT_S": "60",
            "GATEWAY_LOG_FORMAT": "json",
            "GATEWAY_LOG_LEVEL": "info",
            "ACCEPTANCE_WITHOUT": WITHOUT,
        } | dict(gateway or {})
        self._control_settings = {
            "REGISTRY_SYNC_NODE_DIR": str(self.node_dir),
            "REGISTRY_SYNC_TRACKING_URI": registry_url,
            "REGISTRY_SYNC_POLL_INTERVAL_S": POLL_INTERVAL_S,
            "REGISTRY_SYNC_OPERATIONS_PORT": "0",
            "ACCEPTANCE_WITHOUT": CONTROL_WITHOUT,
        } | dict(control or {})
        self.dumps.mkdir(parents=True)

    # --- start and end ---------------------------------------------------------------------------

    def start(self) -> "Node":
        """Start or resume the planes that are not at work; return when the gateway is ready."""
        if self.gateway is None or not self.gateway.running:
            self.start_gateway()
        if self.control is None or not self.control.running:
            self.start_control()
        else:
            self.control.resume()
        return self

    def start_gateway(self, extra: Mapping[str, str] | None = None) -> Running:
        """Start the gateway and wait until it is ready."""
        self.launch_gateway(extra)
        return self.await_gateway()

    def launch_gateway(self, extra: Mapping[str, str] | None = None) -> Running:
        """Start the gateway and wait for nothing."""
        assert self.gateway is None or not self.gateway.running, "the gateway runs already"
        self.gateway = self._start("gateway", self._gateway_settings | dict(extra or {}))
        return self.gateway

    def await_gateway(self) -> Running:
        """Wait until the gateway answers; ready is a new node only with its control plane."""
        gateway = self.gateway
        assert gateway is not None

        def live() -> bool:
            gateway.assert_running()
            return answers(f"{self.url}/health/live")

        until(live, f"the gateway is live\n{gateway.tail()}")
        return gateway

    def start_control(self, extra: Mapping[str, str] | None = None) -> Running:
        """Start the control plane; `catalogue_shows` waits for its work."""
        assert self.control is None or not self.control.running, "the control plane runs already"
        self.control = self._start("registry_sync", self._control_settings | dict(extra or {}))
        return self.control

    def stop_control(self) -> None:
        """End the control plane: the gateway goes on with what it has."""
        if self.control is not None and self.control.running:
            status = self.control.stop()
            assert status == 0, f"the control plane ended with {status}\n{self.control.tail()}"

    @contextmanager
    def control_paused(self) -> Iterator[None]:
        """Keep the control plane from looking at anything for the block, without a new start."""
        assert self.control is not None
        self.control.pause()
        try:
            yield
        finally:
            self.control.resume()

    def close(self) -> None:
        """End both planes by SIGTERM; fail if one does not end, fails, or leaves a process."""
        failures = []
        for running in (self.control, self.gateway):
            if running is None or not running.running:
                continue
            try:
                status = running.stop()
                assert status == 0, f"{running.name} ended with {status}\n{running.tail()}"
            except AssertionError as failure:
                failures.append(failure)
        assert_nothing_left(self.mark)
        if failures:
            raise failures[0]

    def logs(self) -> str:
        """The end of both logs, to show with a failure."""
        return "\n".join(each.tail() for each in (self.gateway, self.control) if each)

    def _start(self, module: str, settings: Mapping[str, str]) -> Running:
        command = [sys.executable, "-m", module]
        if module == "gateway":
            command = [*self.gateway_prefix, *command]
        return Running.start(
            module,
            command,
            environment=self._environment(settings),
            cwd=self._tree,
            log=self.folder / f"{module}.log",
        )

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        return clean_environ(
            {
                MARK: self.mark,
                "ACCEPTANCE_DUMPS": str(self.dumps),
                "PYTHONPATH": os.pathsep.join([str(HOOKS), str(self._tree)]),
                "PYTHONUNBUFFERED": "1",
            }
            | dict(settings)
        )

    # --- the operator's command ------------------------------------------------------------------

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``registry-gateway`` with these arguments, as an operator of this node would."""
        return subprocess.run(
            [sys.executable, "-m", "registry_sync", *arguments],
            env=self._environment(self._control_settings),
            cwd=self._tree,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )

    async def operations(self, method: str, route: str, **query: str) -> Any:
        """Return what the operations listener on this machine answers, which the command asks too.

        A second of a core less than a command, for what no operator is the point of.
        """
        transport = httpx.AsyncHTTPTransport(uds=str(self.sockets / "operations.sock"))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://operations", timeout=COMMAND_LIMIT_S
        ) as http:
            answer = await http.request(method, route, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    # --- processes -------------------------------------------------------------------------------

    def forkserver(self) -> Seen:
        """The forkserver, which is started at the gateway's start."""
        assert self.gateway is not None
        for pid in children(self.gateway.pid):
            seen = look_at(pid)
            if seen is not None and "forkserver" in seen.command:
                return seen
        raise AssertionError(f"no forkserver among the gateway's children\n{self.gateway.tail()}")

    def workers(self) -> list[int]:
        """The pids of all workers, of any state: forked children of a forkserver.

        Found by the environment's mark, so orphans of a killed forkserver count too.
        """
        assert self.gateway is not None
        return sorted(
            seen.pid
            for seen in marked(self.mark)
            if "forkserver" in seen.command and seen.parent != self.gateway.pid
        )

    def workers_now(self) -> list[int]:
        """As `workers`, but cheap enough to ask many times a second: the forkserver's children."""
        try:
            forkserver = self.forkserver()
        except AssertionError:
            return []
        return sorted(pid for pid in children(forkserver.pid) if alive(pid))

    def pids(self) -> list[int]:
        """Every process of this node, both planes' own among them."""
        return [seen.pid for seen in marked(self.mark)]

    def modules_of(self, pid: int) -> set[str]:
        """What the running process ``pid`` has imported, told by itself upon SIGUSR1."""
        path = self.dumps / f"{pid}.txt"
        path.unlink(missing_ok=True)
        os.kill(pid, 10)
        until(lambda: path.exists() or not alive(pid), f"{pid} writes down its modules")
        return set(path.read_text().split())

    # --- what the gateway says -------------------------------------------------------------------

    async def metric(self, client: httpx.AsyncClient, name: str, **labels: str) -> float:
        """The sum over all samples of a metric that carry these labels; 0 when there is none."""
        text = (await client.get(f"{self.url}/metrics")).text
        total = 0.0
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if sample is None or sample["name"] != name:
                continue
            found = dict(_LABEL.findall(sample["labels"] or ""))
            if labels.items() <= found.items():
                total += float(sample["value"])
        return total

    async def active(self, client: httpx.AsyncClient, name: str, alias: str, version: int) -> None:
        """Wait until an alias of a model means this version here."""

        async def look() -> bool:
            return active_version(await self.model(client, name), alias) == version

        await eventually(look, f"{name}@{alias} is version {version}", patience_s=180)

    async def passes(self, client: httpx.AsyncClient, count: int = 1) -> None:
        """Wait until the registry was listed ``count`` times more, by a control plane at work."""
        last = await self._listed_at(client)
        for _ in range(count):

            async def listed_again(before: str = last) -> str:
                now = await self._listed_at(client)
                return now if now > before else ""

            last = await eventually(listed_again, "the registry is listed once more")

    async def _listed_at(self, client: httpx.AsyncClient) -> str:
        registry = (await client.get(f"{self.url}/models")).json()["registry"]
        return str(registry["listed_at"] or "")

    async def model(self, client: httpx.AsyncClient, name: str) -> Document | None:
        """``GET /models/{name}``; None: the gateway does not know it (yet)."""
        answer = await client.get(f"{self.url}/models/{quote(name, safe='')}")
        if answer.status_code in {404, 503}:  # 503: not even a catalogue has come yet
            return None
        assert answer.status_code == 200, answer.text
        document: Document = answer.json()
        return document

    async def version(self, client: httpx.AsyncClient, name: str, version: int) -> Document:
        """``GET /models/{name}/versions/{version}``; empty: the gateway does not know it (yet)."""
        url = f"{self.url}/models/{quote(name, safe='')}/versions/{version}"
        answer = await client.get(url)
        document: Document = answer.json() if answer.status_code == 200 else {}
        return document

    async def catalogue_shows(self, client: httpx.AsyncClient, name: str, version: int) -> Document:
        """Wait until the gateway knows a version of a model."""

        async def look() -> Document | None:
            document = await self.version(client, name, version)
            return document or None

        return await eventually(look, f"the gateway knows {name}/{version}")
