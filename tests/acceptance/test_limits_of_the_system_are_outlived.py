"""The system refuses a working gateway descriptors, processes or memory: all comes back.

What its event loop does in C fails by this too, such as taking a connection. Root may have as many
processes as it likes, so that this gateway runs as another user where the test is root.
"""

import http.client
import os
import re
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.failing_town import SETTINGS, Town, built
from tests.acceptance.processes import marked
from tests.acceptance.registry import Registry
from tests.acceptance.scale import SOAK
from tests.servers import MlflowServer

NOBODY = 65534
AS_ITSELF = ["setpriv", "--reuid", str(NOBODY), "--clear-groups"] if os.geteuid() == 0 else []
"""The gateway's user: limits may be set by that one."""
MAY_READ = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
"""The interpreter may lie in root's own folder."""
SPARE_BYTES = 4 * 1024 * 1024
"""Of memory, beyond what a process has: less than the stack of one thread."""
CALLERS = 8
LARGE_BODY = b"[" * ((15 if SOAK else 6) * 1024 * 1024)
PAUSE_S = 0.1


@dataclass(frozen=True)
class Kind:
    """What a process may have so much of.

    Attributes:
        option: Of the command ``prlimit``.
        shown: Its line in ``/proc/<pid>/limits``.
        taken: Returns how much a process has.
        says: What the system says in the gateway's log when there is no more.
        large_bodies: Whether somebody sends large bodies meanwhile. The forkserver alone does not
            show that memory is short: OpenBLAS asks for its own again and again, without a word.
    """

    option: str
    shown: str
    taken: Callable[[int], int]
    says: str
    large_bodies: bool = False


def _descriptors(pid: int) -> int:
    return max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()) + 1


def _bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize() + SPARE_BYTES


KINDS = {
    "descriptors": Kind("nofile", "Max open files", _descriptors, "Too many open files"),
    "processes": Kind(
        "nproc",
        "Max processes",
        lambda pid: 1,
        "can't start new thread|Resource temporarily unavailable",
    ),
    "memory": Kind(
        "as",
        "Max address space",
        _bytes,
        "can't start new thread|Cannot allocate|MemoryError|to link a library",
        large_bodies=True,
    ),
}


@dataclass
class Limit:
    """The gateway and its forkserver may have what they have, and no more."""

    town: Town
    kind: Kind
    before: str = "unlimited"
    connections: list[socket.socket] = field(default_factory=list)
    log_bytes: int = 0
    sender: threading.Thread | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        self.log_bytes = len(self._log())
        self.before = self._soft(self.town.pid)
        for pid in (self.town.pid, self.town.node.forkserver().pid):
            self._limit(pid, str(self.kind.taken(pid)))
        for _ in range(CALLERS):  # the loop is to take them
            connection = socket.create_connection(("127.0.0.1", self.town.node.port), timeout=5)
            self.connections.append(connection)
        if self.kind.large_bodies:
            self.sender = threading.Thread(target=self._send_large_bodies)
            self.sender.start()

    def end(self) -> None:
        self.over.set()
        if self.sender is not None:
            self.sender.join()
        for seen in marked(self.town.node.mark):
            if seen.pid != self._control_pid():  # what was started meanwhile has inherited it
                self._limit(seen.pid, self.before)
        for connection in self.connections:
            connection.close()

    def _send_large_bodies(self) -> None:
        path = f"/models/{self.town.names[0]}/versions/1/predict"
        while not self.over.wait(PAUSE_S):
            connection = http.client.HTTPConnection("127.0.0.1", self.town.node.port, timeout=5)
            with suppress(OSError, http.client.HTTPException):  # it costs the request at hand
                connection.request("POST", path, LARGE_BODY, {"Content-Type": "application/json"})
                connection.getresponse().read()
            connection.close()

    def _control_pid(self) -> int | None:
        return self.town.node.control.pid if self.town.node.control else None

    def _soft(self, pid: int) -> str:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (line,) = [one for one in lines if one.startswith(self.kind.shown)]
        return line.removeprefix(self.kind.shown).split()[0]

    def _limit(self, pid: int, soft: str) -> None:
        option = f"--{self.kind.option}={soft}:"
        subprocess.run([*AS_ITSELF, "prlimit", "--pid", str(pid), option], check=False)

    def happened(self) -> int:
        return len(re.findall(self.kind.says, self._log()[self.log_bytes :]))

    def _log(self) -> str:
        assert self.town.node.gateway is not None
        return self.town.node.gateway.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def town(make_module_node: NodeMaker, mlflow_registry: MlflowServer) -> Iterator[Town]:
    node = make_module_node(gateway=SETTINGS)
    if AS_ITSELF:
        node.gateway_prefix = [*AS_ITSELF, *MAY_READ]
        node.node_dir.mkdir()
        os.chown(node.node_dir, NOBODY, NOBODY)
    with built(node, Registry(mlflow_registry.url)) as town:
        yield town


@pytest.mark.parametrize("name", KINDS)
async def test_a_limit_that_is_met_costs_the_requests_at_hand(town: Town, name: str) -> None:
    await town.outlives(name, Limit(town, KINDS[name]), cuts=True)
