"""What `make demo` and `make test` install: the package only, or everything."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.fakes.pythons import ended

ROOT = Path(__file__).parents[2]
MAKE_FILES = ("Makefile", "pyproject.toml", "constraints.txt")
BASE = ".venv/installed-base"
ALL = ".venv/installed"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what make reads: a moment older than whatever is installed there."""
    for name in MAKE_FILES:
        shutil.copy(ROOT / name, tmp_path)
        _age(tmp_path / name, 60.0)
    return tmp_path


def _age(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


def _stamp(checkout: Path, *names: str) -> None:
    for name in names:
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).touch()


def _would_run(checkout: Path, target: str) -> list[str]:
    """The lines that make would run for a target."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--dry-run", "--no-print-directory", target]
    done = ended(command, cwd=checkout, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _installs(lines: list[str]) -> list[str]:
    return [line for line in lines if "pip " in line and " install " in line]


def test_the_demonstration_installs_the_package_and_nothing_beside_it(checkout: Path) -> None:
    installs = _installs(_would_run(checkout, "demo"))
    assert len(installs) == 1
    assert installs[0].endswith("--constraint constraints.txt --editable .")


@pytest.mark.parametrize("target", ["demo", "tests"])
def test_size_and_time_are_said_first_and_the_progress_is_shown(
    checkout: Path, target: str
) -> None:
    lines = _would_run(checkout, target)
    installs = _installs(lines)
    said = " ".join(lines[: lines.index(installs[0])])
    assert "MB to download" in said
    assert "on disk" in said
    assert "minute" in said
    assert not any("--quiet" in line or "-q " in line for line in installs)


def test_the_tests_install_torch_first_and_all_that_they_need(checkout: Path) -> None:
    first, then = _installs(_would_run(checkout, "tests"))
    assert first.endswith("--constraint constraints.txt torch")
    assert "--editable '.[torch,postgresql]'" in then
    assert "dependency-groups" in then


def test_what_the_demonstration_installed_is_completed_for_the_tests(checkout: Path) -> None:
    _stamp(checkout, BASE)
    assert not _installs(_would_run(checkout, "demo"))
    assert len(_installs(_would_run(checkout, "tests"))) == 2


def test_what_the_tests_installed_is_enough_for_the_demonstration(checkout: Path) -> None:
    touched = next(line for line in _would_run(checkout, "tests") if line.startswith("touch "))
    _stamp(checkout, *touched.split()[1:])
    assert not _installs(_would_run(checkout, "demo"))
    assert not _installs(_would_run(checkout, "tests"))


def test_other_requirements_are_installed_for_either(checkout: Path) -> None:
    _stamp(checkout, BASE, ALL)
    for name in (BASE, ALL):
        _age(checkout / name, 120.0)
    assert len(_installs(_would_run(checkout, "demo"))) == 1
    assert len(_installs(_would_run(checkout, "tests"))) == 2
