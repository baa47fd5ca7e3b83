"""What everything that builds environments does: in memory, and with a real uv, without network."""

import os
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from registry_sync.artifacts.environments.store import BuildsEnvironments, Environments
from registry_sync.artifacts.environments.uv_job import BuildLimits
from registry_sync.artifacts.store import StoredArtifact
from registry_sync.errors import EnvironmentFailedError
from tests.fakes.environments import FakeEnvironments
from tests.fakes.wheels import worker_needs

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def real(folder: Path) -> Environments:
    wheels = folder.with_name("wheels")
    wheels.mkdir()
    worker_needs(wheels)
    environ = {**os.environ, "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels)}
    limits = BuildLimits(timeout_s=60.0, disk_floor_bytes=0)
    made = Environments(folder, installer=find_uv_bin(), limits=limits, environ=environ)
    made.open()
    return made


@pytest.fixture(params=["in memory", "uv"])
def environments(request: pytest.FixtureRequest, tmp_path: Path) -> BuildsEnvironments:
    return FakeEnvironments() if request.param == "in memory" else real(tmp_path / "node")


@pytest.fixture
def artifact(tmp_path: Path) -> StoredArtifact:
    """One that requires nothing, which can be had without an index."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "requirements.txt").write_text("# nothing\n")
    return StoredArtifact("sha256:" + "a" * 64, folder, 0, {"env_python": HERE}, (), 0.0)


def go_on() -> None:
    """Let it be built."""


def test_what_is_built_is_there_and_is_the_same_again(
    environments: BuildsEnvironments, artifact: StoredArtifact
) -> None:
    assert environments.built([artifact]) == {}
    found = environments.build(artifact, go_on)
    assert environments.built([artifact]) == {artifact.digest: found}
    assert environments.build(artifact, go_on) == found


def test_it_stays_while_its_artifact_does(
    environments: BuildsEnvironments, artifact: StoredArtifact
) -> None:
    found = environments.build(artifact, go_on)
    assert environments.sweep([artifact], older_than_s=-1) == []
    assert environments.sweep([], older_than_s=-1) == [found.digest]
    assert environments.built([artifact]) == {}
    assert environments.sweep([], older_than_s=-1) == []


def test_a_build_that_is_given_up_leaves_nothing(
    environments: BuildsEnvironments, artifact: StoredArtifact
) -> None:
    def stop() -> None:
        raise EnvironmentFailedError("the control plane ends", transient=True)

    with pytest.raises(EnvironmentFailedError, match="the control plane ends"):
        environments.build(artifact, stop)
    assert environments.built([artifact]) == {}
