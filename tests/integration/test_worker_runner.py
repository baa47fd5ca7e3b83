"""The same worker under an interpreter of its own, with ``orjson`` or with nothing installed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.worker import __runner__
from gateway.worker.protocol.messages import LoadFailed
from tests.fakes import pythons
from tests.integration.worker_process import PATIENCE_S, RunningWorker, store
from tests.models.catalogue import LinearModel


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythons.bare_python(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythons.foreign_python(tmp_path_factory.mktemp("foreign"))


@contextlib.contextmanager
def running(python: Path) -> Iterator[tuple[RunningWorker, subprocess.Popen[bytes], int]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    end, lifeline = os.pipe()
    process = subprocess.Popen(
        [python, "-I", __runner__.__file__, str(theirs.fileno()), str(end)],
        pass_fds=(theirs.fileno(), end),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    theirs.close()
    os.close(end)
    try:
        yield RunningWorker(process.pid, ours, None), process, lifeline
    finally:
        with contextlib.suppress(OSError):
            os.close(lifeline)
        ours.close()
        process.communicate(timeout=PATIENCE_S)


def test_it_greets_and_says_what_the_environment_lacks(foreign_python: Path, tmp_path: Path):
    order = store(LinearModel(1.0), tmp_path)
    with running(foreign_python) as (worker, process, _):
        hello = worker.receive()[1]
        assert hello.pid == process.pid
        worker.send(order, id_=0)
        report = worker.receive()[1]
        assert isinstance(report, LoadFailed)
        assert report.failure == "load_failed"
        assert "'mlflow', which is not installed" in report.message
        assert process.wait(PATIENCE_S) != 0


def test_without_orjson_it_ends_and_names_what_is_missing(bare_python: Path):
    with running(bare_python) as (_, process, _):
        assert process.stderr is not None
        assert "import orjson" in process.stderr.read().decode()
        assert process.wait(PATIENCE_S) != 0


def test_it_ends_with_the_gateway(foreign_python: Path):
    with running(foreign_python) as (worker, process, lifeline):
        worker.receive()
        os.close(lifeline)
        assert process.wait(PATIENCE_S) != 0


def test_only_the_worker_of_our_packages_can_be_imported(bare_python: Path):
    script = (
        "import runpy, sys\n"
        f"module = runpy.run_path({__runner__.__file__!r})\n"
        "sys.meta_path.insert(0, module['WorkerFinder'])\n"
        "import gateway.worker.serving_loop\n"
        "for name in ('gateway.settings', 'gateway.contract', 'registry_sync', 'tests', 'frames',"
        " 'numpy'):\n"
        "    try:\n"
        "        __import__(name)\n"
        "    except ImportError:\n"
        "        continue\n"
        "    raise SystemExit(name)\n"
    )
    result = subprocess.run(
        [bare_python, "-I", "-c", script], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert (result.returncode, result.stderr.decode()) == (0, "")
