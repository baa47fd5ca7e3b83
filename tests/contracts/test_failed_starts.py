"""A start that fails leaves nothing behind, but where removing it could harm another process.

That is the folder of the node with its lock, and the node's id.
"""

import json
import os
import re
import resource
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import __main__ as gateway_process
from gateway.system.files.sealed import seal
from gateway.system.node_identity import StartError
from registry_sync import bootstrap
from registry_sync.errors import SyncError
from registry_sync.settings import SyncSettings

Start = Callable[..., str]
IDENTITY = {"node_id", "node_id.copy"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start change nothing of this process."""
    monkeypatch.setattr(gateway_process, "configure_logging", lambda **_: None)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(os, "umask", lambda _: 0o022)
    monkeypatch.setattr(sys, "argv", ["gateway"])


@pytest.fixture
def gateway_fails(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a gateway that cannot; return why."""

    def start(node_dir: Path, port: int = 0, runtime_dir: Path | None = None) -> str:
        monkeypatch.setenv("GATEWAY_NODE_DIR", str(node_dir))
        monkeypatch.setenv("GATEWAY_PORT", str(port or _free()))
        if runtime_dir is not None:
            monkeypatch.setenv("GATEWAY_RUNTIME_DIR", str(runtime_dir))
        with capture_logs() as logs:
            assert gateway_process.main() == 1
        (reason,) = [one["reason"] for one in logs if one["event"] == "start.failed"]
        return str(reason)

    return start


@pytest.fixture
def control_plane_fails() -> Start:
    """Start a control plane that cannot; return why."""

    def start(
        node_dir: Path, port: int = 0, runtime_dir: Path | None = None, database: str | None = None
    ) -> str:
        settings = SyncSettings(
            node_dir=node_dir,
            runtime_dir=runtime_dir,
            operations_port=port,
            database_url=database,
            tracking_uri=f"http://127.0.0.1:{_free()}",
        )
        with pytest.raises((StartError, SyncError)) as told:
            bootstrap.run(settings, lambda: None)
        return str(told.value)

    return start


@pytest.fixture(params=["gateway_fails", "control_plane_fails"])
def fails(request: pytest.FixtureRequest) -> Start:
    """Start either plane."""
    start: Start = request.getfixturevalue(request.param)
    return start


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def files(folder: Path) -> dict[str, bytes | None]:
    """Return all that is in a folder, with its content; None: a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_taken_port_leaves_nothing(folder: Path, taken: int, fails: Start) -> None:
    assert "Address already in use" in fails(folder / "above" / "node", taken)
    assert files(folder) == {}


def test_a_taken_port_leaves_a_node_as_it_was(folder: Path, taken: int, fails: Start) -> None:
    node = folder / "node"
    node.mkdir(mode=0o700)
    (node / "node_id").write_text("half an")
    before = files(folder)
    fails(node, taken)
    assert files(folder) == before


@pytest.mark.parametrize("place", ["file/above/node", f"above/{'x' * 256}"])
def test_a_folder_that_cannot_be_made_leaves_nothing(
    folder: Path, place: str, fails: Start
) -> None:
    (folder / "file").touch()
    assert "cannot be used" in fails(folder / place)
    assert files(folder) == {"file": b""}


def test_a_file_in_the_folders_place_stays(folder: Path, fails: Start) -> None:
    (folder / "node").write_text("a file")
    assert "cannot be used" in fails(folder / "node")
    assert files(folder) == {"node": b"a file"}


@pytest.mark.parametrize(
    ("place", "reason"),
    [("file", "File exists|Not a directory"), ("x" * 100, "longer than a Unix socket's path")],
)
def test_without_a_socket_the_folder_and_its_empty_lock_stay(
    folder: Path, place: str, reason: str, fails: Start
) -> None:
    """Another start may have opened the lock: two could own the node if it were removed."""
    (folder / "file").touch()
    told = fails(folder / "node", runtime_dir=folder / place)
    left = files(folder / "node")
    assert re.search(reason, told), told
    assert list(left.values()) == [b""]
    assert left.keys() < {"gateway.lock", "registry_sync.lock"}
    assert {path.name for path in folder.iterdir()} == {"file", "node"}


def test_a_table_of_a_newer_release_leaves_the_lock_alone(
    folder: Path, gateway_fails: Start
) -> None:
    body = {"format_version": 99, "active": "of another shape"}
    (folder / "table.json").write_bytes(seal(json.dumps(body, indent=1).encode()))
    before = files(folder)
    assert "newer version" in gateway_fails(folder)
    assert files(folder) == before | {"gateway.lock": b""}


def test_a_ledger_of_a_newer_release_leaves_the_lock_and_the_id(
    folder: Path, control_plane_fails: Start
) -> None:
    """The other plane may go by that id already."""
    ledger = folder / "ledger.db"
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()
    node = folder / "node"
    assert "newer release" in control_plane_fails(node, database=f"sqlite:///{ledger}")
    left = files(node)
    assert left.keys() == {"registry_sync.lock", *IDENTITY}
    control_plane_fails(node, database=f"sqlite:///{ledger}")
    assert files(node) == left
