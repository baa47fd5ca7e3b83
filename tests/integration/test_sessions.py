"""Processes that a session leader leaves behind, in groups of their own: real ones."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.serving.replica import process_session
from gateway.serving.replica.launcher import WorkerProcess
from tests.integration.worker_process import wait_until_ended

SLEEP = "import time; time.sleep(600)"
LEADER = f"""
import subprocess, sys
for options in ({{}}, {{"process_group": 0}}, {{"start_new_session": True}}):
    print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}], **options).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def leader() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A session leader, and its children: in its group, in their own, in a session of their own."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    children = [int(process.stdout.readline()) for _ in range(3)]
    yield process, children
    for pid in children[2:]:
        os.kill(pid, 9)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("reaped", [True, False])
def test_the_whole_session_ends_whether_its_leader_is_there_or_not(
    leader: tuple[subprocess.Popen[str], list[int]], reaped: bool
) -> None:
    process, children = leader
    pidfd = os.pidfd_open(process.pid)
    if reaped:
        process.kill()
        process.wait()
    began = time.thread_time()
    process_session.end(process.pid, pidfd)
    took = time.thread_time() - began
    os.close(pidfd)
    for pid in children[:2]:
        wait_until_ended(pid)
    assert os.getsid(children[2]) == children[2]  # the one in a session of its own lives
    os.kill(children[2], 0)
    assert took < 0.1


def test_a_process_that_has_the_id_of_a_leader_who_is_gone_is_left_alone(
    leader: tuple[subprocess.Popen[str], list[int]],
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    pidfd = os.pidfd_open(gone.pid)
    gone.wait()
    process, children = leader
    process_session.end(process.pid, pidfd)
    os.close(pidfd)
    assert process.poll() is None
    assert [os.getsid(pid) for pid in children[:2]] == [process.pid] * 2
    process.kill()
    own = os.pidfd_open(process.pid)
    process_session.end(process.pid, own)
    os.close(own)


@contextlib.contextmanager
def no_descriptor_is_free() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 1, hard),
    )
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)


def test_a_worker_ends_and_is_released_without_a_free_descriptor(
    leader: tuple[subprocess.Popen[str], list[int]],
) -> None:
    """Its group at once; what is in groups of its own with the descriptors that it gives back."""
    process, children = leader
    channel, peer = socket.socketpair()
    (alive, lifeline), (output, spoken) = (multiprocessing.Pipe(duplex=False) for _ in range(2))
    worker = WorkerProcess(
        *(process.pid, channel, os.pidfd_open(process.pid), lifeline, output),
        exit_status=process.poll,
        release=lambda: None,
    )
    ours = (channel.fileno(), lifeline.fileno(), output.fileno(), worker.exited)
    with no_descriptor_is_free():
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        worker.kill()
        wait_for(process.pid)
        worker.close()
    wait_until_ended(children[0])
    wait_until_ended(children[1])
    for descriptor in ours:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    for end in (peer, alive, spoken):
        end.close()


def wait_for(pid: int) -> None:
    """Wait until a child has ended, without a descriptor; its exit status stays."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
