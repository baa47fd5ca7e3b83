"""Own environments built by a real uv, from a package index of our own on this disk."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs
from uv import find_uv_bin

from registry_sync.artifacts.environments import recipe, uv_job
from registry_sync.artifacts.environments.store import Environments
from registry_sync.artifacts.environments.uv_job import BuildLimits, inherited
from registry_sync.artifacts.file_tree import remove
from registry_sync.artifacts.store import StoredArtifact
from registry_sync.errors import EnvironmentFailedError
from tests.contracts.damage import DAMAGES, Damage
from tests.fakes.wheels import wheel, worker_needs

pytestmark = pytest.mark.integration

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
LIMITS = BuildLimits(timeout_s=120.0, disk_floor_bytes=0)
KILLS = 4


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables by which uv finds our packages and no others."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        wheel(folder, "rings", version)
    for version in ("3.9.0", "3.10.0", "99.0"):
        wheel(folder, "orjson", version)
    return {"UV_FIND_LINKS": str(folder), "UV_NO_INDEX": "1"}


def environments(
    node_dir: Path, index: Mapping[str, str], limits: BuildLimits = LIMITS, uv: str | None = None
) -> Environments:
    made = Environments(
        node_dir,
        installer=uv or find_uv_bin(),
        limits=limits,
        environ={**os.environ, **index},
    )
    made.open()
    return made


def artifact(folder: Path, requirements: str | None, python: str = HERE) -> StoredArtifact:
    """Something of the artifact store, as far as an environment goes."""
    name = hashlib.sha256(f"{requirements}{python}".encode()).hexdigest()
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    if requirements is not None:
        (path / "requirements.txt").write_text(requirements)
    return StoredArtifact(f"sha256:{name}", path, 0, {"env_python": python}, (), 0.0)


def go_on() -> None:
    """What a build is asked with while nobody wants it to end."""


def said(python: str, package: str = "rings") -> str:
    """The version of a package that the interpreter of an environment finds."""
    script = (
        f"import {package}; from importlib.metadata import version; print(version('{package}'))"
    )
    return subprocess.run(
        [python, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def entries(node_dir: Path) -> set[str]:
    return {one.name for one in (node_dir / "environments").iterdir()} - {"aside", "pythons"}


def test_each_has_what_it_requires_and_it_is_compiled(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index)
    for version in ("1.0", "2.0"):
        found = built.build(artifact(tmp_path, f"rings=={version}\n"), go_on)
        assert said(found.python) == version
        folder = Path(found.python).parents[1]
        assert list(folder.glob("lib/python*/site-packages/__pycache__/rings.*.pyc"))
        recorded = json.loads((folder / "environment.json").read_text())
        assert recorded["requirements"] == ["orjson>=3.10", f"rings=={version}"]
    assert not list((tmp_path / "node" / "environments" / "aside").iterdir())


@pytest.mark.parametrize(
    ("pin", "version"), [("", "99.0"), ("orjson==3.9.0\n", "3.9.0"), ("orjson\n", "99.0")]
)
def test_an_environment_has_the_workers_need_at_the_models_pin(
    tmp_path: Path, index: dict[str, str], pin: str, version: str
):
    built = environments(tmp_path / "node", index)
    found = built.build(artifact(tmp_path, f"rings==1.0\n{pin}"), go_on)
    assert said(found.python, "orjson") == version


def test_a_constraint_that_is_too_old_for_the_worker_is_refused_with_the_reason(
    tmp_path: Path, index: dict[str, str]
):
    built = environments(tmp_path / "node", index)
    asked = artifact(tmp_path, "rings==1.0\n-c bounds.txt\n")
    (asked.path / "bounds.txt").write_text("orjson<3.10\n")
    with pytest.raises(EnvironmentFailedError, match=r"orjson<3\.10") as caught:
        built.build(asked, go_on)
    assert "(the worker needs orjson>=3.10 in each environment)" in caught.value.reason
    assert not caught.value.transient


def test_one_without_the_workers_need_is_not_used_again(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index)
    asked = artifact(tmp_path, "rings==1.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "WORKER_NEEDS", ())
        old = built.build(asked, go_on)
    assert built.built([asked]) == {}
    assert built.build(asked, go_on) != old
    assert built.sweep([asked], older_than_s=-1) == [old.digest]


def test_nothing_that_a_model_brought_is_run(tmp_path: Path):
    wheels, ran = tmp_path / "wheels", tmp_path / "ran"
    wheels.mkdir()
    run = f"import os; open({str(ran)!r}, 'a').write('it ran')\n"
    others = {
        "rings.pth": run,
        "sitecustomize.py": run,
        "broken.py": "print 'of another Python'\n",
    }
    wheel(wheels, "rings", "1.0", **others)
    worker_needs(wheels)
    # Whatever the operator has uv do elsewhere.
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text("[pip]\ncompile-bytecode = true\nno-build = false\n")
    environ = {
        "UV_FIND_LINKS": str(wheels),
        "UV_NO_INDEX": "1",
        "UV_COMPILE_BYTECODE": "1",
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    found = environments(tmp_path / "node", environ).build(artifact(tmp_path, "rings==1.0"), go_on)
    packages = Path(found.python).parents[1] / "lib" / f"python{HERE}" / "site-packages"
    assert (packages / "rings.pth").is_file()
    assert list(packages.glob("__pycache__/rings.*.pyc"))
    assert not list(packages.glob("__pycache__/broken.*.pyc"))
    assert not ran.exists()
    subprocess.run([found.python, "-c", ""], check=True, timeout=60)
    assert ran.exists()  # whoever starts it as it is would have run it


def test_an_interpreter_in_the_place_of_the_real_one_is_not_run(tmp_path: Path):
    uv = Path(talking_uv(tmp_path, f"#!/bin/sh\ntouch {tmp_path}/ran\n", 0))
    brings = f"rm environment/bin/python; install -m 755 {tmp_path}/says environment/bin/python"
    uv.write_text(uv.read_text().replace(f"cat {tmp_path}/says", brings))
    built = environments(tmp_path / "node", {}, uv=str(uv))
    found = built.build(artifact(tmp_path, "rings==1.0"), go_on)
    assert not (tmp_path / "ran").exists()
    subprocess.run([found.python], check=True, timeout=60)
    assert (tmp_path / "ran").exists()


def test_a_source_distribution_is_never_built(tmp_path: Path):
    sources, ran = tmp_path / "sources", tmp_path / "ran"
    sources.mkdir()
    worker_needs(sources)
    script = (
        f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='rings')\n".encode()
    )
    with tarfile.open(sources / "rings-1.0.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("rings-1.0/setup.py")
        entry.size = len(script)
        archive.addfile(entry, io.BytesIO(script))
    environ = {"UV_FIND_LINKS": str(sources), "UV_NO_INDEX": "1", "UV_NO_BUILD": "false"}
    built = environments(tmp_path / "node", environ)
    with pytest.raises(EnvironmentFailedError, match="no usable wheels") as caught:
        built.build(artifact(tmp_path, "rings==1.0"), go_on)
    assert not caught.value.transient
    assert not ran.exists()


def test_a_compiler_that_hangs_costs_time_but_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(uv_job, "_COMPILE_TIMEOUT_S", 0.2)
    uv = Path(talking_uv(tmp_path, "", 0))
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    uv.write_text(uv.read_text().replace(sys.executable, str(hanging)))
    built = environments(tmp_path / "node", {}, uv=str(uv))
    assert built.build(artifact(tmp_path, "rings==1.0"), go_on).digest


def test_equal_requirements_are_built_once_however_many_ask(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index)
    asked = [
        artifact(tmp_path, text) for text in ("rings==1.0", "Rings == 1.0  # why", "rings==1.0\n")
    ]
    with ThreadPoolExecutor(3) as pool:
        found = {one.digest for one in pool.map(lambda one: built.build(one, go_on), asked)}
    assert entries(tmp_path / "node") == found
    assert len(found) == 1
    assert set(built.built(asked)) == {one.digest for one in asked}


def test_requirements_that_cannot_be_met_are_refused_with_uvs_words(
    tmp_path: Path, index: dict[str, str]
):
    built = environments(tmp_path / "node", index)
    with pytest.raises(
        EnvironmentFailedError, match=r"there is no version of rings==3\.0"
    ) as caught:
        built.build(artifact(tmp_path, "rings==3.0"), go_on)
    assert not caught.value.transient
    assert entries(tmp_path / "node") == set()


def test_an_index_that_does_not_answer_is_tried_again(tmp_path: Path):
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    built = environments(tmp_path / "node", nowhere)
    with pytest.raises(EnvironmentFailedError, match="Connection refused") as caught:
        built.build(artifact(tmp_path, "rings==1.0"), go_on)
    assert caught.value.transient


@pytest.mark.parametrize(
    ("requirements", "python", "reason"),
    [
        (None, HERE, "has no requirements.txt"),
        ("rings==1.0", "3.9.2", "unsupported"),
        ("-e .", HERE, "no environment is built from the line '-e .'"),
    ],
)
def test_what_cannot_be_built_from_never_reaches_the_installer(
    tmp_path: Path, index: dict[str, str], requirements: str | None, python: str, reason: str
):
    built = environments(tmp_path / "node", index, uv="/no/such/uv")
    with pytest.raises(EnvironmentFailedError, match=reason) as caught:
        built.build(artifact(tmp_path, requirements, python), go_on)
    assert not caught.value.transient


def hanging_uv(folder: Path) -> str:
    """An installer that says a lot, starts a child, and never ends."""
    script = folder / "uv"
    script.write_text(
        "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x\nsleep 1000 &\n"
        f"echo $$ $! > {folder}/part; mv {folder}/part {folder}/pids\nwait\n"
    )
    script.chmod(0o755)
    return str(script)


def talking_uv(folder: Path, says: str, status: int) -> str:
    """An installer that makes what looks like an environment, and notes what it was given."""
    script = folder / "uv"
    script.write_text(
        f"#!/bin/sh\nenv >> {folder}/environ\ncat requirements.txt >> {folder}/requirements\n"
        "for last; do :; done\n"
        '[ "$2" != venv ] || { mkdir -p "$last/bin"; ln -s '
        f"{sys.executable} $last/bin/python; exit 0; }}\ncat {folder}/says\nexit {status}\n"
    )
    script.chmod(0o755)
    (folder / "says").write_text(says)
    return str(script)


PRIVATE = "-i https://me:hunter2@pypi.example.org/simple\nrings==1.0\n"


def test_uv_is_given_what_finds_packages_and_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_SECRET_ACCESS_KEY", "REGISTRY_SYNC_DATABASE_URL", "UV_PUBLISH_TOKEN"):
        monkeypatch.setenv(name, "a secret")
    given = {"UV_INDEX_OURS_PASSWORD": "index", "https_proxy": "http://proxy", "LC_ALL": "C.UTF-8"}
    built = environments(tmp_path / "node", given, uv=talking_uv(tmp_path, "", 0))
    built.build(artifact(tmp_path, PRIVATE), go_on)
    found = dict(
        line.split("=", 1)
        for line in (tmp_path / "environ").read_text().splitlines()
        if "=" in line
    )
    assert given.items() <= found.items()
    assert "a secret" not in found.values()
    of_its_own = {"UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "NO_COLOR"}
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {*found} - of_its_own - of_the_shell == {*inherited({**os.environ, **given})}


def test_the_password_of_an_index_stays_with_the_build(tmp_path: Path):
    built = environments(tmp_path / "node", {}, uv=talking_uv(tmp_path, "", 0))
    built.build(artifact(tmp_path, PRIVATE), go_on)
    assert "me:hunter2@" in (tmp_path / "requirements").read_text()
    kept = [one for one in (tmp_path / "node").rglob("*") if one.is_file()]
    assert any(one.name == "environment.json" for one in kept)
    assert not [one for one in kept if b"hunter2" in one.read_bytes()]


SAID = "error: https://me:hunter2@pypi.example.org/simple/rings/\n"


@pytest.mark.parametrize("after", ["", " " * (8192 - len(SAID.partition("hunter")[2]) - 4)])
def test_a_reason_has_no_password_even_where_what_was_said_is_cut(tmp_path: Path, after: str):
    says = f"{'x' * 5000} {SAID}{after}403\n"  # all that is kept of it begins with 2@pypi
    built = environments(tmp_path / "node", {}, uv=talking_uv(tmp_path, says, 2))
    with pytest.raises(EnvironmentFailedError, match="403") as caught:
        built.build(artifact(tmp_path, PRIVATE), go_on)
    assert "2@" not in caught.value.reason
    assert ("error: https://pypi.example.org/simple/rings/" in caught.value.reason) is (not after)


def started_by_hanging_uv(folder: Path) -> list[psutil.Process]:
    """That installer and its child, if they have started; each known by pid and start time."""
    pids = folder / "pids"
    return [psutil.Process(int(pid)) for pid in pids.read_text().split()] if pids.exists() else []


def gone(process: psutil.Process) -> bool:
    """Whether it has ended; where nobody waits for orphans, it stays a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_a_build_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, index: dict[str, str]
):
    limits = BuildLimits(timeout_s=1.5, disk_floor_bytes=0)
    built = environments(tmp_path / "node", index, limits, hanging_uv(tmp_path))
    started: list[psutil.Process] = []

    def look() -> None:
        started[:] = started or started_by_hanging_uv(tmp_path)

    with pytest.raises(EnvironmentFailedError, match=r"not built within 1\.5 s") as caught:
        built.build(artifact(tmp_path, "rings==1.0"), look)
    assert caught.value.transient
    assert len(started) == 2
    until(lambda: all(map(gone, started)))


def test_a_build_ends_with_the_control_plane(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index, uv=hanging_uv(tmp_path))
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise InterruptedError

    with ThreadPoolExecutor(2) as pool:
        asked = artifact(tmp_path, "rings==1.0")
        first, second = (pool.submit(built.build, asked, check) for _ in range(2))
        stop.set()
        for one in (first, second):
            with pytest.raises((InterruptedError, EnvironmentFailedError)):
                one.result(timeout=20)


def test_a_full_disk_ends_a_build(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index, BuildLimits(60.0, 2**62), hanging_uv(tmp_path))
    with pytest.raises(EnvironmentFailedError, match="less free disk space") as caught:
        built.build(artifact(tmp_path, "rings==1.0"), go_on)
    assert caught.value.transient


def test_one_whose_interpreter_has_gone_is_built_again(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index)
    asked = artifact(tmp_path, "rings==1.0")
    python = Path(built.build(asked, go_on).python)
    python.unlink()
    python.symlink_to("/no/such/python")
    assert built.built([asked]) == {}
    assert said(built.build(asked, go_on).python) == "1.0"


MARKERS = [Damage("gone", lambda path: path.unlink()), *DAMAGES]


@pytest.mark.parametrize(
    "damage",
    [one for one in MARKERS if one.name in {"gone", "a folder", "endless", "a pipe"}],
    ids=str,
)
def test_one_whose_marker_is_damaged_is_built_again_or_goes(
    tmp_path: Path, index: dict[str, str], damage: Damage
):
    built = environments(tmp_path / "node", index)
    asked = artifact(tmp_path, "rings==1.0")
    marker = Path(built.build(asked, go_on).python).parents[1] / "environment.json"
    damage.apply(marker)
    again = environments(tmp_path / "node", index)
    assert again.built([asked]) == {}
    assert said(again.build(asked, go_on).python) == "1.0"
    assert json.loads(marker.read_text())["requirements"] == ["orjson>=3.10", "rings==1.0"]
    damage.apply(marker)
    assert again.sweep([], older_than_s=-1)
    assert entries(tmp_path / "node") == set()


@pytest.mark.parametrize("name", ["environments", "environments/aside"])
def test_a_file_in_a_folders_place_is_set_aside(tmp_path: Path, index: dict[str, str], name: str):
    path = tmp_path / "node" / name
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    built = environments(tmp_path / "node", index)
    assert said(built.build(artifact(tmp_path, "rings==1.0"), go_on).python) == "1.0"
    assert path.with_name(f"{path.name}.damaged-1").read_text() == "in the way"


def test_bytes_that_are_gone_are_no_fault_of_the_version(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index)
    asked = artifact(tmp_path, "rings==1.0")
    remove(asked.path)
    with pytest.raises(EnvironmentFailedError, match="no longer here") as caught:
        built.build(asked, go_on)
    assert caught.value.transient


def test_the_sweep_takes_what_no_artifact_means_and_is_old(tmp_path: Path, index: dict[str, str]):
    built = environments(tmp_path / "node", index)
    kept, gone = (artifact(tmp_path, f"rings=={v}") for v in ("1.0", "2.0"))
    digests = [built.build(one, go_on).digest for one in (kept, gone)]
    assert built.sweep([kept], older_than_s=3600) == []
    assert built.sweep([kept], older_than_s=0) == [digests[1]]
    assert entries(tmp_path / "node") == {digests[0]}
    assert not list((tmp_path / "node" / "environments" / "aside").iterdir())


HANGING_BUILDER = """
import sys
from pathlib import Path
from tests.integration.test_environments import artifact, environments, go_on

node, folder, uv = sys.argv[1:]
environments(Path(node), {}, uv=uv).build(artifact(Path(folder), "rings==1.0"), go_on)
"""


def test_the_installer_ends_with_a_control_plane_that_is_killed(tmp_path: Path):
    root = Path(__file__).parents[2]
    node = tmp_path / "node"
    command = [
        sys.executable,
        "-c",
        HANGING_BUILDER,
        str(node),
        str(tmp_path),
        hanging_uv(tmp_path),
    ]
    with subprocess.Popen(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    ) as builder:
        until((tmp_path / "pids").exists)
        started = started_by_hanging_uv(tmp_path)
        assert len(started) == 2
        assert not any(map(gone, started))
        builder.send_signal(signal.SIGKILL)
    until(lambda: all(map(gone, started)))
    environments(node, {})
    assert not list((node / "environments" / "aside").iterdir())


def test_what_a_killed_build_left_is_removed_or_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left = tmp_path / "node" / "environments" / "aside" / "left"
    left.mkdir(parents=True)
    (left / "read-only").mkdir(mode=0o500)
    refusals = iter([True])

    def refuse_once(path: Path) -> None:
        if next(refusals, False):
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        remove(path)

    monkeypatch.setattr("registry_sync.artifacts.environments.store.remove", refuse_once)
    environments(tmp_path / "node", {})  # as while the installer is still ending
    assert not left.exists()
    left.mkdir()
    refusals = iter(lambda: True, False)
    monkeypatch.setattr("registry_sync.artifacts.environments.store._REMOVAL_TIMEOUT_S", 0.2)
    with capture_logs() as logs:
        environments(tmp_path / "node", {})  # it is in nobody's way
    assert [one["event"] for one in logs] == ["leftover.kept"]
    assert "Directory not empty" in logs[0]["reason"]


def test_a_uv_that_is_not_there_is_tried_again(tmp_path: Path):
    built = environments(tmp_path / "node", {}, uv="/no/such/uv")
    with pytest.raises(EnvironmentFailedError, match="/no/such/uv cannot be started") as caught:
        built.build(artifact(tmp_path, "rings==1.0"), go_on)
    assert caught.value.transient


BUILDER = """
import os, sys, time
from pathlib import Path
from tests.integration.test_environments import artifact, environments, go_on

node, folder, wheels = map(Path, sys.argv[1:])
built = environments(node, {"UV_FIND_LINKS": str(wheels), "UV_NO_INDEX": "1"})
asked = artifact(folder, "rings==1.0")
print("open", flush=True)
for _ in range(1000):
    found = built.build(asked, go_on)
    time.sleep(0.3)  # so that some of the blows fall on an environment that is whole
    built.sweep([], older_than_s=-1)
"""


def test_killed_at_any_moment_no_environment_is_half_there(tmp_path: Path, index: dict[str, str]):
    node = tmp_path / "node"
    asked = artifact(tmp_path, "rings==1.0")
    command = [sys.executable, "-c", BUILDER, str(node), str(tmp_path), index["UV_FIND_LINKS"]]
    for kill in range(KILLS):
        with subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as builder:
            assert builder.stdout is not None
            assert builder.stdout.readline()
            time.sleep(0.4 * kill)  # at any moment: another one each time
            builder.send_signal(signal.SIGKILL)
        built = environments(node, index)
        there = built.built([asked])
        assert len(entries(node)) == len(there)
        assert said(built.build(asked, go_on).python) == "1.0"
        built.sweep([], older_than_s=-1)
