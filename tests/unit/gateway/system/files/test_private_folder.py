"""The node's folder is its owner's alone: new or found, whatever the umask."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.system import CONTROL_PLANE, DATA_PLANE, Plane, private_socket, sole_owner
from gateway.system.files import make_private, replace_file


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.lstat().st_mode & 0o7777
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    make_private(tmp_path / "var" / "lib" / "node")
    assert modes(tmp_path) == {"var": 0o755, "var/lib": 0o755, "var/lib/node": 0o700}


def test_a_folder_that_is_there_is_tightened_and_the_log_says_so(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "node", tmp_path / "elsewhere"
    folder.mkdir(mode=0o777)
    (folder / "artifacts").mkdir(mode=0o755)
    (folder / "ledger.db").touch(0o644)
    (folder / "gateway.lock").touch(0o666)
    (folder / "holds.json").touch(0o400)
    elsewhere.touch(0o644)
    (folder / "link").symlink_to(elsewhere)

    with capture_logs() as first:
        make_private(folder)
    with capture_logs() as second:
        make_private(folder)

    assert modes(tmp_path) == {
        "node": 0o700,
        "node/artifacts": 0o700,
        "node/ledger.db": 0o600,
        "node/gateway.lock": 0o600,
        "node/holds.json": 0o400,
        "elsewhere": 0o644,
    }
    assert [(line["event"], line["paths"]) for line in first] == [("node_dir.tightened", 4)]
    assert second == []


def test_a_folder_that_is_shared_on_purpose_stays_and_the_log_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "other").touch(0o644)

    with capture_logs() as lines:
        make_private(folder)

    assert modes(tmp_path) == {"tmp": 0o1777, "tmp/other": 0o644}
    assert [line["event"] for line in lines] == ["node_dir.open_to_others"]


def test_a_folder_that_cannot_be_tightened_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    folder = tmp_path / "node"
    folder.mkdir(mode=0o770)
    monkeypatch.setattr(Path, "chmod", refuse)

    with capture_logs() as lines:
        make_private(folder)

    assert [line["event"] for line in lines] == ["node_dir.open_to_others"]


@pytest.mark.parametrize("plane", [DATA_PLANE, CONTROL_PLANE])
def test_what_a_plane_writes_at_its_start_is_its_owners_alone(tmp_path: Path, plane: Plane) -> None:
    folder = tmp_path / "node"
    with contextlib.ExitStack() as opened:
        opened.enter_context(sole_owner(folder, plane))
        opened.enter_context(private_socket(folder / "s", plane, cost=""))
        found = modes(tmp_path)
    assert found.pop("node") == 0o700
    assert set(found.values()) == {0o600}


def test_a_file_that_is_replaced_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "table.json").touch(0o644)
    for name in ("table.json", "hot.json"):
        replace_file(tmp_path / name, b"{}")
    assert modes(tmp_path) == {"table.json": 0o600, "hot.json": 0o600}
