"""The gateway with a standard error that is a full pipe: it works, and ends, as ever."""

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import clean_environ, free_ports

pytestmark = pytest.mark.integration
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
ANSWER_LIMIT_S = 20.0
REQUESTS = 500


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def nobody() -> Iterator[int]:
    """The write end of a pipe in which there is no room for a byte."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, bytes(size))
    os.set_blocking(write_end, True)
    yield write_end
    os.close(read_end)
    os.close(write_end)


@contextlib.contextmanager
def process(package: str, log: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", package]
    running = subprocess.Popen(
        command, env=clean_environ(settings), stdout=subprocess.DEVNULL, stderr=log
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait(STOP_LIMIT_S)


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def status(port: int, method: str, path: str) -> int | None:
    """Ask on a new connection; None: there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT_S)
    try:
        connection.request(method, path, headers={"content-type": "application/json"})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def ends(running: subprocess.Popen[bytes]) -> int:
    running.send_signal(signal.SIGTERM)
    return running.wait(STOP_LIMIT_S)


def test_the_gateway_answers(folder: Path, nobody: int) -> None:
    (port,) = free_ports(1)
    settings = {
        "GATEWAY_NODE_DIR": str(folder),
        "GATEWAY_PORT": str(port),
    }
    with process("gateway", nobody, **settings) as gateway:
        until(lambda: status(port, "GET", "/health/live") == 200)
        refused = {status(port, "POST", "/models/none/predict") for _ in range(REQUESTS)}
        assert refused == {503}, "no list of models has come yet"
        assert status(port, "GET", "/health/live") == 200
        assert ends(gateway) == 0
