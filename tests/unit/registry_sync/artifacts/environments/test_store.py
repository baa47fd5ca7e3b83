"""An environment is built once, and found again."""

import errno
import sys
from pathlib import Path

import pytest

from registry_sync.artifacts.environments import store
from registry_sync.artifacts.environments.store import Environments
from registry_sync.artifacts.environments.uv_job import BuildLimits
from registry_sync.artifacts.file_tree import remove
from registry_sync.artifacts.store import StoredArtifact

UV = """#!/bin/sh
echo "$2" >> {calls}
for last; do :; done
[ "$2" != venv ] || {{ mkdir -p "$last/bin"; ln -s {python} "$last/bin/python"; }}
"""
"""An installer that makes what looks like an environment."""


def test_an_environment_is_answered_when_it_is_built_and_when_it_is_there(tmp_path: Path) -> None:
    uv, calls = tmp_path / "uv", tmp_path / "calls"
    uv.write_text(UV.format(calls=calls, python="/bin/true"))
    uv.chmod(0o755)
    environments = Environments(
        tmp_path / "node",
        installer=str(uv),
        limits=BuildLimits(timeout_s=60.0, disk_floor_bytes=0),
        environ={},
    )
    environments.open()
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "requirements.txt").write_text("rings==1.0\n")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    artifact = StoredArtifact("sha256:" + "a" * 64, folder, 0, {"env_python": here}, (), 0.0)
    built = environments.build(artifact, lambda: None)
    assert environments.built([artifact]) == {artifact.digest: built}
    assert environments.build(artifact, lambda: None) == built
    assert calls.read_text().split() == ["venv", "pip"]


def test_a_build_left_by_a_killed_control_plane_is_removed_though_it_still_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = Environments(
        tmp_path / "node",
        installer="/bin/true",
        limits=BuildLimits(timeout_s=60.0, disk_floor_bytes=0),
        environ={},
    )
    environments.open()
    leftover = environments._aside / "unfinished"
    leftover.mkdir()
    refusals = iter([OSError(errno.ENOTEMPTY, "not empty")] * 2)

    def remove_later(path: Path) -> None:
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        remove(path)

    monkeypatch.setattr(store, "remove", remove_later)
    environments.open()
    assert not leftover.exists()
