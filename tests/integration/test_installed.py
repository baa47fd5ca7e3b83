"""The package as pip installs it elsewhere than in a virtual environment, and as a zip archive.

Its dependencies lie beside it. A package called ``migrations`` of somebody else does, too.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import zipapp
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.waiting import until
from tests.fakes.pythons import ended
from tests.models.catalogue import IrisPipeline
from tests.servers import Seaweed, clean_environ, free_ports

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
BASE = Path(getattr(sys, "_base_executable", sys.executable))
"""An interpreter without our packages: that of the virtual environment's Python."""
DEPENDENCIES = sysconfig.get_path("purelib")
HEAD = "0008"
LIMIT_S = 120.0
BUCKET = "installed"


@dataclass(frozen=True)
class Installed:
    """One way to have the package: how `registry-gateway` is called, and with which variables."""

    command: list[str]
    environ: dict[str, str]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return ended([*self.command, *arguments], env=self.environ | environ, timeout_s=LIMIT_S)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("gateway", "registry_sync"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(built)]
    done = ended([*pip, *options, str(tree)], timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    (found,) = built.iterdir()
    return found


def pip_install(wheel: Path, environ: dict[str, str], *options: str) -> None:
    pip = [str(BASE), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = ended([*pip, "--no-deps", *options, str(wheel)], env=environ, timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr


def foreign_migrations(folder: Path) -> None:
    """Put a package of somebody else beside ours."""
    (folder / "migrations" / "versions").mkdir(parents=True)
    for name in ("__init__.py", "env.py"):
        (folder / "migrations" / name).write_text("raise SystemExit('not ours')\n")


@pytest.fixture(params=["target", "user", "zipapp"])
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Installed:
    place = tmp_path / "place"
    environ = clean_environ({"PYTHONPATH": DEPENDENCIES, "PYTHONNOUSERSITE": ""})
    module = ["-m", "registry_sync"]
    if request.param == "user":
        environ["PYTHONUSERBASE"] = str(place)
        pip_install(wheel, environ, "--user", "--break-system-packages")
        (site,) = place.glob("lib/python*/site-packages")
        foreign_migrations(site)
        return Installed([str(BASE), *module], environ)
    pip_install(wheel, environ, "--target", str(place))
    if request.param == "target":
        foreign_migrations(place)
        environ["PYTHONPATH"] = os.pathsep.join([str(place), DEPENDENCIES])
        return Installed([str(BASE), *module], environ)
    archive = tmp_path / "zipped" / "registry-gateway.pyz"
    archive.parent.mkdir()
    zipapp.create_archive(place, archive, main="registry_sync.cli:main")
    foreign_migrations(archive.parent)
    return Installed([str(BASE), str(archive)], environ)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="rg-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def bucket(s3: Seaweed) -> str:
    return s3.make_bucket(BUCKET)


@contextlib.contextmanager
def running(
    installed: Installed, folder: Path, **environ: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a node in a folder with foreign migrations; yield its process and its log."""
    foreign_migrations(folder)
    log = folder / "log"
    with log.open("wb") as out:
        up = subprocess.Popen(
            [*installed.command, "up"],
            env=installed.environ | environ,
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    try:
        yield up, log
    finally:
        up.terminate()
        status = up.wait(LIMIT_S)
    assert status == 0, log.read_text()


def test_a_node_migrates_and_serves_wherever_it_is_installed(
    installed: Installed, tmp_path: Path, short_folder: Path, bucket: str, s3: Seaweed
) -> None:
    root = f"s3://{bucket}/{uuid4().hex}"
    model = IrisPipeline()
    model.save(tmp_path / "model")
    published = installed.run("publish", str(tmp_path / "model"), f"{root}/iris", **s3.environ)
    assert published.returncode == 0, published.stderr
    (port,) = free_ports(1)
    environ = {
        "GATEWAY_PORT": str(port),
        "REGISTRY_SYNC_OPERATIONS_PORT": "0",
        "REGISTRY_SYNC_TRACKING_URI": root,
        **s3.environ,
    }
    body = model.payload()
    with running(installed, short_folder, **environ) as (up, log):
        url = f"http://127.0.0.1:{port}/models/iris/predict"

        def answers() -> bool:
            assert up.poll() is None, log.read_text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.post(url, json=body).is_success
            return False

        until(answers, "the model answers", patience_s=LIMIT_S)
        ledger = short_folder / ".registry-gateway" / "ledger.db"
        with contextlib.closing(sqlite3.connect(ledger)) as connection:
            assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(HEAD,)]
        told = json.loads(_status(installed, short_folder, environ))
        assert told["models"][0]["name"] == "iris"
    said = log.read_text()
    assert "not ours" not in said
    assert "Traceback" not in said


def _status(installed: Installed, node: Path, environ: dict[str, str]) -> str:
    folder = {"REGISTRY_SYNC_NODE_DIR": str(node / ".registry-gateway")}
    done = installed.run("status", "--json", **environ, **folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
