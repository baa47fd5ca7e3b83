"""What a killed gateway left behind, in sessions of its own, ends when the node starts again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.serving.replica import leftovers
from gateway.serving.replica.leftovers import MARK, Life, end_leftovers
from tests.acceptance.waiting import until
from tests.integration.worker_process import wait_until_ended
from tests.servers import clean_environ, free_ports

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
Start = Callable[[str], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start sleeping processes with a mark, each in a session of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def one(mark: str) -> int:
        environ = clean_environ({MARK: mark})
        started.append(subprocess.Popen(SLEEP, env=environ, start_new_session=True))
        return started[-1].pid

    yield one
    for process in started:
        process.kill()
        process.wait()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_only_what_an_earlier_life_of_the_same_node_left_is_ended(start: Start) -> None:
    own = Life.own("node", "now")
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    earlier = Life("node", "before", gone.pid, leftovers._started(os.getpid()) or 0)
    gone.wait()
    left = [start(earlier.as_mark()) for _ in range(3)]
    others = [
        start(mark)
        for mark in (
            own.as_mark(),
            replace(earlier, boot_id="now").as_mark(),
            replace(earlier, node_id="other").as_mark(),
            # Its gateway lives: this process stands for it.
            Life.own("node", "before").as_mark(),
            "node before 1",
            "node before x y",
            "",
        )
    ]
    assert end_leftovers(own) == len(left)
    for pid in left:
        wait_until_ended(pid)
    assert all(map(is_alive, others))
    assert end_leftovers(own) == 0


def test_a_process_that_took_the_id_of_another_is_left_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found by its id; by the time it is to be ended that is somebody else's."""
    own = Life.own("node", "now")
    found = start("")
    looked = iter([True])
    monkeypatch.setattr(
        leftovers, "_is_left", lambda life, pid: pid == found and next(looked, False)
    )
    assert end_leftovers(own) == 0
    assert is_alive(found)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start gateways on one node, and wait until each has its forkserver."""
    port = free_ports(1)[0]
    started: list[subprocess.Popen[bytes]] = []
    environ = clean_environ(
        {
            "GATEWAY_NODE_DIR": str(tmp_path),
            "GATEWAY_PORT": str(port),
            "GATEWAY_LOG_FORMAT": "json",
            "ACCEPTANCE_WITHOUT": "torch",
        }
    )

    def one() -> subprocess.Popen[bytes]:
        log = (tmp_path / "log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway"], env=environ, stderr=log, stdout=log
        )
        log.close()
        started.append(process)
        until(lambda: answers(port), "it answers")
        return process

    yield one
    for process in started:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_a_gateway_ends_at_its_start_what_its_last_life_left(
    gateway: Callable[[], subprocess.Popen[bytes]], start: Start, tmp_path: Path
) -> None:
    first = gateway()
    forkserver = until(lambda: forkserver_of(first.pid), "it has a forkserver")
    mark = mark_of(forkserver)
    assert mark
    left = start(mark)  # as a model's own child would have it
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = gateway()
    wait_until_ended(left)
    wait_until_ended(forkserver)
    assert re.search(r'"leftovers\.stopped"', (tmp_path / "log").read_text())
    assert mark_of(until(lambda: forkserver_of(second.pid), "it has a forkserver")) != mark


def forkserver_of(pid: int) -> int:
    children = psutil.Process(pid).children()
    return next((one.pid for one in children if "forkserver" in "".join(one.cmdline())), 0)


def mark_of(pid: int) -> str:
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((one.partition("=")[2] for one in environ if one.startswith(f"{MARK}=")), "")
