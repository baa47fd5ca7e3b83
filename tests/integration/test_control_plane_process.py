"""The control plane as a process: it starts without neighbours, owns its node, and ends at once."""

import contextlib
import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.node import HOOKS
from tests.acceptance.scale import CONTROL_WITHOUT
from tests.fakes.pythons import ended
from tests.servers import clean_environ, free_ports

README = Path(__file__).resolve().parents[2] / "README.md"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
RELOAD_SECRET = "of CI"
SPARE_FILES = 8
MOST_LOG_BYTES = 256 * 1024
"""A hundredth of what the same seconds took where every line was written."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        yield Path(made)


def environ(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of the control plane and the command, with what neither needs hidden."""
    hidden = {"PYTHONPATH": str(HOOKS), "ACCEPTANCE_WITHOUT": CONTROL_WITHOUT}
    return clean_environ(hidden | dict(settings))


@contextlib.contextmanager
def control_plane(folder: Path, registry: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "REGISTRY_SYNC_NODE_DIR": str(folder),
        "REGISTRY_SYNC_TRACKING_URI": registry,
        "REGISTRY_SYNC_OPERATIONS_PORT": "0",
    } | more
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "registry_sync", "control-plane"],
            env=environ(settings),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(STOP_LIMIT_S)


def said(folder: Path) -> str:
    return (folder / "log").read_text()


def until_it_says(folder: Path, what: str) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    while what not in said(folder):
        assert time.monotonic() < give_up_at, said(folder)
        time.sleep(0.05)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    here = environ({"REGISTRY_SYNC_NODE_DIR": str(folder)})
    command = [sys.executable, "-m", "registry_sync", *arguments]
    return ended(command, env=here, timeout_s=START_LIMIT_S)


def test_it_starts_without_neighbours_and_ends_at_a_signal(folder: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with control_plane(folder, nobody) as process:
        until_it_says(folder, "listing.failed")
        status = command(folder, "status")
        assert status.returncode == 0, status.stderr
        assert "does not answer" in status.stdout.replace("\n", " ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_LIMIT_S) == 0, said(folder)
    assert not (folder / "operations.sock").exists()
    assert command(folder, "status").returncode == 3
    events = [json.loads(line)["event"] for line in said(folder).splitlines()]  # libraries' too
    assert events[:2] == ["node_dir.tightened", "control_plane.started"]  # the log lies in it
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", event) for event in events), events


def test_it_ends_while_the_registry_keeps_it_waiting(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        with control_plane(folder, f"http://{host}:{port}") as process:
            silent.settimeout(START_LIMIT_S)
            held, _ = silent.accept()
            with held:
                process.send_signal(signal.SIGINT)
                assert process.wait(STOP_LIMIT_S) == 0, said(folder)


def test_a_shortage_of_descriptors_fills_no_log_and_is_over_when_it_is(folder: Path) -> None:
    nobody, port = f"http://127.0.0.1:{free_ports(1)[0]}", free_ports(1)[0]
    with control_plane(folder, nobody, REGISTRY_SYNC_OPERATIONS_PORT=str(port)) as process:
        until_it_says(folder, "listing.failed")
        fewest = len(list(Path(f"/proc/{process.pid}/fd").iterdir())) + SPARE_FILES
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (fewest, hard))
        with contextlib.ExitStack() as silent:
            for _ in range(2 * SPARE_FILES):
                silent.enter_context(socket.create_connection(("127.0.0.1", port)))
            until_it_says(folder, "log.repeated")
        assert len(said(folder)) < MOST_LOG_BYTES
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        status = command(folder, "status")
        assert status.returncode == 0, status.stderr


@dataclass(frozen=True)
class Waiting:
    """A control plane that finds no registry, and takes reloads at ``url``."""

    folder: Path
    url: str


@pytest.fixture(scope="module")
def waiting() -> Iterator[Waiting]:
    """One for the tests that do it no harm."""
    nobody, url = (f"http://127.0.0.1:{each}" for each in free_ports(2))
    settings = {
        "REGISTRY_SYNC_OPERATIONS_PORT": url.rpartition(":")[2],
        "REGISTRY_SYNC_RELOAD_SECRET": RELOAD_SECRET,
    }
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        folder = Path(made)
        with control_plane(folder, nobody, **settings):
            until_it_says(folder, "listing.failed")
            yield Waiting(folder, url)


def readmes_reload(url: str) -> str:
    """What the README tells CI to run."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    (block,) = (one for one in blocks if "/webhooks/reload" in one)
    assert "http://node:8081" in block
    return block.replace("http://node:8081", url)


# It runs the README's own lines, which a machine with nothing but Python cannot. Signatures and
# statuses of this route are tested without a shell, with the other webhooks.
@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "openssl"))), reason="needs curl and openssl"
)
@pytest.mark.parametrize(("secret", "status"), [(RELOAD_SECRET, 0), ("a guess", 22)])
def test_ci_reloads_as_the_readme_says(waiting: Waiting, secret: str, status: int) -> None:
    before = len(said(waiting.folder))
    command = ["bash", "-euc", readmes_reload(waiting.url)]
    done = ended(command, env=clean_environ({"SECRET": secret}), timeout_s=START_LIMIT_S)
    assert done.returncode == status, done.stderr
    if status:
        until_it_says(waiting.folder, "webhook.refused")
    else:
        assert "webhook.refused" not in said(waiting.folder)[before:]


def test_a_second_one_on_the_same_node_is_refused_with_a_sentence(waiting: Waiting) -> None:
    second = command(waiting.folder, "control-plane")
    assert second.returncode == 1
    assert "another control plane runs on" in second.stderr.replace("\n", " ")
    assert "Traceback" not in second.stderr
