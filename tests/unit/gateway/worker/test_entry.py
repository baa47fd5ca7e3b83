"""How a worker ends."""

import os

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
