"""How a worker ends."""

import os
import socket
from multiprocessing import Pipe

import pytest

from gateway.worker import entry
from gateway.worker.process import confinement, priority
from tests.fakes.pythons import told_by

PROGRAM = """
import os, socket
from multiprocessing import Pipe
from gateway.worker import entry
from gateway.worker.process import confinement

os.setsid()
confinement.confine = lambda *_: None
before = os.getpriority(os.PRIO_PROCESS, 0)

def end_group():
    print(os.getpriority(os.PRIO_PROCESS, 0) - before, flush=True)
    os._exit(0)

confinement.end_group = end_group
ours, theirs = socket.socketpair()
ours.close()
entry.run(theirs, Pipe(duplex=False)[0])
"""


def test_a_worker_frees_its_memory_behind_what_serves() -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # Without a privilege niceness could not be raised again, and stays.
    assert int(told_by(PROGRAM)) == (min(10, 19 - nice) if os.getuid() == 0 else 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # its child only ends
def test_a_child_that_the_model_forked_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, children, ended = os.getpid(), [], []

    def fork(_channel: socket.socket) -> None:
        children.append(os.fork())

    def end_group() -> None:
        if os.getpid() != worker:
            os._exit(1)
        ended.append(worker)

    for name in ("confine", "leave_the_forkserver", "keep_from_children"):
        monkeypatch.setattr(confinement, name, lambda *_: None)
    monkeypatch.setattr(confinement, "end_group", end_group)
    monkeypatch.setattr(priority, "lower", lambda: None)
    monkeypatch.setattr(entry, "_serve", fork)
    lifeline, _held = Pipe(duplex=False)
    with socket.socket() as channel:
        entry.run(channel, lifeline)
    _, status = os.waitpid(children[0], 0)
    assert (status, ended) == (0, [worker])
