"""`registry-gateway up`: both processes of a node as one, from its start to its end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import MARK, marked
from tests.acceptance.waiting import until
from tests.servers import clean_environ, free_ports

STOP_LIMIT_S = 60.0
REFUSED, USAGE = 1, 2


class Up:
    """A running `up`, and its log."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self.mark = str(folder)
        self.log = folder / "log"
        environ = {
            MARK: self.mark,
            "REGISTRY_SYNC_OPERATIONS_PORT": "0",
            "REGISTRY_SYNC_TRACKING_URI": f"http://127.0.0.1:{free_ports(1)[0]}",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "registry_sync", "up", "--port", "0", *arguments],
                cwd=folder,
                env=clean_environ(environ | settings),
                stdout=log,
                stderr=log,
                process_group=0,  # as a shell starts it
            )

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log so far; what is no JSON is a line's event."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
                continue
            found.append({"event": line})
        return found

    def until_it_says(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait for an event of its log; return its last line."""
        said = lambda: [one for one in self.lines() if one["event"] == event]  # noqa: E731
        until(lambda: len(said()) >= times, f"{event} in the log\n{self.log.read_text()}")
        return said()[-1]

    def ended(self) -> int:
        """Wait for its end, and for that of all that it started; return its exit status."""
        status = self.process.wait(STOP_LIMIT_S)
        until(lambda: not marked(self.mark), "all of its processes have ended")
        return status

    def pid_of(self, module: str) -> int:
        """The process of a plane."""
        (pid,) = [one.pid for one in marked(self.mark) if one.command.endswith(f"-m {module}")]
        return pid


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    made = Up(folder, "--node-dir", "node")
    yield made
    made.process.kill()
    made.process.wait()


def test_ctrl_c_ends_both_in_order(up: Up, folder: Path) -> None:
    up.until_it_says("gateway.started")
    up.until_it_says("control_plane.started")
    up.until_it_says("observation.restarted")
    os.killpg(up.process.pid, signal.SIGINT)  # as a terminal does
    assert up.ended() == 0, up.log.read_text()
    events = [one["event"] for one in up.lines()]
    assert {"node.stopping", "gateway.stopped", "control_plane.stopped"} <= set(events)
    assert "process.ended" not in events
    assert (folder / "node" / "node_id").is_file()


def test_a_process_that_is_killed_is_started_again(up: Up) -> None:
    up.until_it_says("observation.restarted")
    os.kill(up.pid_of("gateway"), signal.SIGKILL)
    line = up.until_it_says("process.ended")
    assert (line["process"], line["end"]) == ("gateway", "SIGKILL")
    up.until_it_says("gateway.started", times=2)
    up.process.terminate()
    assert up.ended() == 0


def test_both_end_with_it_even_if_it_is_killed(up: Up) -> None:
    up.until_it_says("observation.restarted")
    up.process.kill()
    assert up.ended() == -signal.SIGKILL


def test_a_process_that_refuses_its_start_ends_the_other(folder: Path) -> None:
    up = Up(folder, GATEWAY_MAX_BODY_BYTES="many")
    assert up.ended() == USAGE, up.log.read_text()
    log = up.log.read_text()
    assert "GATEWAY_MAX_BODY_BYTES: " in log
    assert up.until_it_says("process.refused")["process"] == "gateway"


def test_folders_that_differ_are_refused_before_anything_starts(folder: Path) -> None:
    up = Up(folder, GATEWAY_NODE_DIR="a", REGISTRY_SYNC_NODE_DIR="b")
    assert up.ended() == USAGE
    assert "GATEWAY_NODE_DIR and REGISTRY_SYNC_NODE_DIR must name the same" in up.log.read_text()
    assert sorted(one.name for one in folder.iterdir()) == ["log"]


def test_a_folder_of_one_plane_is_that_of_both(folder: Path) -> None:
    up = Up(folder, REGISTRY_SYNC_NODE_DIR="theirs")
    up.until_it_says("observation.restarted")
    up.process.terminate()
    assert up.ended() == 0
    assert (folder / "theirs" / "node_id").is_file()
    assert not (folder / ".registry-gateway").exists()
