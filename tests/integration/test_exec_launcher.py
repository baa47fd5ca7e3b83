"""The launcher of models' own interpreters, with one that has what the worker needs and no more."""

import asyncio
import contextlib
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from gateway.errors import LoadError
from gateway.serving.replica.launcher import ExecLauncher
from gateway.serving.replica.replica import Replica, ReplicaLimits, ReplicaState
from gateway.worker.protocol.messages import Load, encode_header
from tests.fakes.pythons import foreign_python
from tests.integration.worker_process import predict_header, store, wait_until_ended
from tests.models.catalogue import TorchModel

PATIENCE_S = 60.0
LIMITS = ReplicaLimits(
    8, 1000, load_timeout_s=PATIENCE_S, warm_up_timeout_s=PATIENCE_S, stuck_grace_s=1.0
)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(foreign_python(tmp_path_factory.mktemp("foreign")))


@pytest.fixture
async def launcher():
    launcher = ExecLauncher(os.environ)
    yield launcher
    await asyncio.wait_for(launcher.close(), PATIENCE_S)


@pytest.fixture
async def worker(launcher, interpreter):
    """A worker that has said HELLO, so that it is bound to us."""
    worker = await asyncio.wait_for(launcher.launch(interpreter), PATIENCE_S)
    await asyncio.to_thread(select.select, [worker.channel], [], [], PATIENCE_S)
    yield worker
    worker.kill()
    await ended(worker)
    worker.close()


async def ended(worker):
    """Wait for the worker's end, by its pidfd."""

    def wait():
        return bool(select.select([worker.exited], [], [], PATIENCE_S)[0])

    return await asyncio.to_thread(wait)


def descriptors(pid: int) -> list[str]:
    """What the descriptors of a process are, beyond the standard three."""
    links = [one for one in Path(f"/proc/{pid}/fd").iterdir() if int(one.name) > 2]
    return [str(link.readlink()).partition(":")[0] for link in links]


async def test_a_worker_runs_isolated_and_leads_its_own_group(worker, interpreter):
    process = psutil.Process(worker.pid)
    assert process.cmdline()[:2] == [interpreter, "-I"]
    assert os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid
    assert process.environ()["OMP_NUM_THREADS"] == "1"


async def test_it_inherits_no_descriptor_but_its_two(worker):
    inherited = [kind for kind in descriptors(worker.pid) if kind in {"socket", "pipe"}]
    assert sorted(inherited) == ["pipe", "socket"]


async def test_it_ends_when_its_lifeline_does(worker):
    worker.lifeline.close()
    assert await ended(worker)


async def test_a_killed_worker_leaves_no_zombie(launcher, interpreter):
    worker = await launcher.launch(interpreter)
    worker.kill()
    worker.close()  # before it can have ended
    wait_until_ended(worker.pid)
    async with asyncio.timeout(PATIENCE_S):
        while psutil.pid_exists(worker.pid):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)


async def test_an_interpreter_that_is_not_there_is_an_error_that_says_so(launcher):
    with pytest.raises(
        LoadError, match=r"environment_missing: .*/no/such/python cannot be started"
    ):
        await launcher.launch("/no/such/python")


async def test_a_process_that_cannot_be_watched_is_ended(launcher, interpreter, monkeypatch):
    before = set(psutil.Process().children())

    def refuse(_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        with pytest.raises(LoadError, match=r"worker_not_started: .*Too many open files"):
            await launcher.launch(interpreter)
    async with asyncio.timeout(PATIENCE_S):
        while set(psutil.Process().children()) - before:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)


async def test_a_shortage_of_descriptors_is_no_missing_environment(launcher, interpreter):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 1, hard))
    try:
        with pytest.raises(LoadError, match=r"worker_not_started: .*Too many open files"):
            await launcher.launch(interpreter)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_replica_learns_of_the_end_and_why_it_did_not_come_up(launcher, interpreter):
    stopped: list[Replica] = []
    replica = Replica("m/1", launcher, LIMITS, stopped.append)
    load = Load("m", 1, "sha256:0", "/nowhere", "/nowhere", {}, interpreter=interpreter)
    with pytest.raises(LoadError, match="manifest cannot be read"):
        await replica.start(load)
    await replica.wait_stopped()
    assert replica.state is ReplicaState.STOPPED
    assert stopped == [replica]


def gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


@pytest.mark.skipif(not gpu(), reason="there is no GPU on this machine")
@pytest.mark.parametrize(
    ("serialization_format", "on_gpu"),
    [("pickle", True), ("pt2", False)],  # the latter was exported for the processor
)
async def test_a_torch_model_computes_on_the_gpu_and_says_what_it_holds(
    launcher, tmp_path, serialization_format, on_gpu
):
    model = TorchModel(0, serialization_format)
    order = replace(store(model, tmp_path), interpreter=sys.executable, cuda_devices="all")
    replica = Replica("m/1", launcher, LIMITS, lambda _: None)
    loaded = await replica.start(order)
    assert (loaded.gpu_bytes > 0) == on_gpu
    body = json.dumps(model.payload(3)).encode()
    header = encode_header(predict_header())
    reply = await replica.submit(
        header, body, timeout_s=PATIENCE_S, limit_s=PATIENCE_S, on_done=lambda: None
    )
    answers = json.loads(reply.body)["predictions"]
    np.testing.assert_allclose(answers, model.expected(model.payload(3)), rtol=1e-3, atol=1e-4)
    replica.kill("the test is over")
    await replica.wait_stopped()


async def test_a_torch_model_runs_started_by_exec_without_a_gpu_too(launcher, tmp_path):
    model = TorchModel(0, "pickle")  # quicker to import
    order = replace(store(model, tmp_path), interpreter=sys.executable, cuda_devices="")
    replica = Replica("m/1", launcher, LIMITS, lambda _: None)
    loaded = await replica.start(order)
    assert (loaded.call_path, loaded.gpu_bytes) == ("fast", 0)
    replica.kill("the test is over")
    await replica.wait_stopped()


GATEWAY = """
import asyncio, os, signal, sys, time
from gateway.serving.replica.launcher import ExecLauncher

async def main():
    worker = await ExecLauncher(os.environ).launch(sys.argv[1])
    print(worker.pid, flush=True)
    if sys.argv[2] == "greeted":
        while True:
            try:
                worker.channel.recv(1); break
            except BlockingIOError:
                await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["at once", "greeted"])
def test_it_dies_with_a_gateway_that_is_killed(interpreter, when):
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, interpreter, when],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as gateway:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        assert gateway.wait(PATIENCE_S) == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        wait_until_ended(pid)
