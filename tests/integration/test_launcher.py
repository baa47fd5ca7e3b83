"""The launcher with a real forkserver that hangs or is killed: loads go on, and it ends in time."""

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest

from gateway.errors import LoadError
from gateway.serving.replica import launcher as launching
from gateway.serving.replica.launcher import ForkserverLauncher

PATIENCE_S = 60.0
LIGHT = "gateway.worker.protocol.frames"  # quick to import, unlike what the product preloads


@pytest.fixture
async def launcher():
    launcher = ForkserverLauncher(preload=LIGHT)
    await launcher.warm()
    yield launcher
    await asyncio.wait_for(launcher.close(), PATIENCE_S)


async def ended(worker):
    """Wait for the worker's end, by its pidfd; release it."""

    def wait():
        return bool(select.select([worker.exited], [], [], PATIENCE_S)[0])

    over = await asyncio.to_thread(wait)
    worker.close()
    return over


async def launch(launcher):
    return await asyncio.wait_for(launcher.launch(), PATIENCE_S)


async def test_a_worker_ends_when_its_lifeline_does(launcher):
    worker = await launch(launcher)
    worker.lifeline.close()
    assert await ended(worker)


async def test_descriptors_of_a_worker_stay_open_until_it_is_released(launcher):
    worker = await launch(launcher)
    fork = worker.release.__self__
    assert os.fstat(fork.sentinel)
    worker.kill()
    assert await ended(worker)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fork.sentinel)


async def test_a_forkserver_that_was_killed_is_started_again(launcher):
    os.kill(launcher.forkserver_pid, signal.SIGKILL)
    worker = await launch(launcher)
    worker.kill()
    assert await ended(worker)


async def test_the_bytes_of_a_forkserver_count_from_its_first_fork(launcher):
    counts = [launcher.private_bytes()]
    for _ in range(2):
        worker = await launch(launcher)
        counts.append(launcher.private_bytes())
        worker.kill()
        assert await ended(worker)
    os.kill(launcher.forkserver_pid, signal.SIGKILL)
    worker = await launch(launcher)
    counts.append(launcher.private_bytes())
    worker.kill()
    assert await ended(worker)
    assert counts[0] == 0
    assert min(counts[1:]) > 2**20


async def test_a_forkserver_that_hangs_is_replaced_and_the_load_goes_on(launcher, monkeypatch):
    monkeypatch.setattr(launching, "_FORKSERVER_TIMEOUT_S", 0.5)
    hanging = launcher.forkserver_pid
    os.kill(hanging, signal.SIGSTOP)
    worker = await launch(launcher)
    assert launcher.forkserver_pid != hanging
    worker.kill()
    assert await ended(worker)


async def test_each_forkserver_that_hangs_is_ended_until_the_load_fails(launcher, monkeypatch):
    monkeypatch.setattr(launching, "_FORKSERVER_TIMEOUT_S", 0.5)
    ensure = launcher._ensure
    hanging = []

    def ensure_one_that_hangs():
        context = ensure()
        os.kill(launcher.forkserver_pid, signal.SIGSTOP)
        hanging.append(launcher.forkserver_pid)
        return context

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "_ensure", ensure_one_that_hangs)
        with pytest.raises(LoadError, match="could be started"):
            await launch(launcher)
    assert len(set(hanging)) == len(hanging) > 1
    worker = await launch(launcher)
    worker.kill()
    assert await ended(worker)


async def test_nothing_of_a_launcher_goes_on_after_its_end():
    launcher = ForkserverLauncher(preload=LIGHT)
    await launcher.warm()
    await asyncio.wait_for(launcher.close(), PATIENCE_S)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_forkserver_that_hangs_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(launching, "_STOP_TIMEOUT_S", 0.5)
    launcher = ForkserverLauncher(preload=LIGHT)
    await launcher.warm()
    os.kill(launcher.forkserver_pid or 0, signal.SIGSTOP)
    await asyncio.wait_for(launcher.close(), PATIENCE_S)


def pipes_it_may_write_to(pid):
    """Return the descriptors of a process that are write ends of pipes."""
    found = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        flags = int(
            Path(f"/proc/{pid}/fdinfo/{one.name}").read_text().split("flags:")[1].split()[0], 8
        )
        if one.readlink().name.startswith("pipe:") and flags & os.O_ACCMODE != os.O_RDONLY:
            found.add(int(one.name))
    return found


async def test_a_worker_can_write_to_no_pipe_but_its_own_output(launcher):
    """A byte on the forkserver's would end that, with every load under way."""
    workers = [await launch(launcher) for _ in range(2)]
    for worker in workers:
        await asyncio.get_running_loop().sock_recv(worker.channel, 1)  # HELLO: it is confined
        assert pipes_it_may_write_to(worker.pid) == {1, 2}
    for worker in workers:
        worker.kill()
        assert await ended(worker)
