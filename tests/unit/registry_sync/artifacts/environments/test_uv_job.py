"""uv ends within its limits, and its last words are the reason of a failure."""

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from registry_sync.artifacts.environments import uv_job
from registry_sync.artifacts.environments.uv_job import BuildLimits, Job
from registry_sync.errors import EnvironmentFailedError


def job(folder: Path, script: str, *, timeout_s: float = 60.0, looks: int = 1000) -> Job:
    """Return a job whose uv is a script; the test fails after so many looks at it."""
    uv = folder / "uv"
    uv.write_text(f"#!/bin/sh\n{script}\n")
    uv.chmod(0o755)
    left = iter(range(looks))

    def check() -> None:
        assert next(left, None) is not None, "uv is never given up"

    limits = BuildLimits(timeout_s=timeout_s, disk_floor_bytes=0)
    return Job(str(uv), folder, limits=limits, environ={"PATH": os.defpath}, check=check)


@pytest.fixture(autouse=True)
def _looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_job, "_LOOK_EVERY_S", 0.01)


def test_a_uv_that_says_nothing_is_given_up_after_its_time(tmp_path: Path) -> None:
    hanging = job(tmp_path, "exec sleep 1000", timeout_s=0.0, looks=20)
    with pytest.raises(EnvironmentFailedError, match="was not built within 0 s") as caught:
        hanging.install(["venv"])
    assert caught.value.transient


def test_a_build_has_all_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(uv_job, "time", SimpleNamespace(monotonic=lambda: now))
    limited = job(tmp_path, "", timeout_s=10.0)
    now = 10.0
    limited._check_limits(10.0)
    now = 10.1
    with pytest.raises(EnvironmentFailedError, match="was not built within 10 s"):
        limited._check_limits(10.0)


def test_a_uv_that_is_given_up_leaves_no_zombie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = Job._start

    def noted(*parts: Any) -> subprocess.Popen[bytes]:
        started.append(start(*parts))
        return started[-1]

    monkeypatch.setattr(Job, "_start", noted)
    with pytest.raises(EnvironmentFailedError):
        job(tmp_path, "exec sleep 1000", timeout_s=0.0, looks=20).install(["venv"])
    (process,) = started
    assert process.returncode == -signal.SIGKILL


def test_a_uv_that_closes_its_output_and_stays_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uv_job, "_END_TIMEOUT_S", 0.02)
    staying = job(tmp_path, "exec >/dev/null 2>&1; exec sleep 1000")
    with pytest.raises(EnvironmentFailedError, match="uv did not end") as caught:
        staying.install(["venv"])
    assert caught.value.transient


@pytest.mark.parametrize(
    ("said", "is_explained"), [("you require orjson>=3.10", True), ("there is no rings", False)]
)
def test_a_conflict_with_the_need_of_the_worker_is_explained(
    tmp_path: Path, said: str, is_explained: bool
) -> None:
    with pytest.raises(EnvironmentFailedError, match=said) as caught:
        job(tmp_path, f"echo '{said}'; exit 1").install(["pip", "install"])
    explanation = "(the worker needs orjson>=3.10 in each environment)"
    assert (explanation in caught.value.reason) is is_explained
    assert not caught.value.transient
