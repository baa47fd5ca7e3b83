"""How a worker ends."""

import os
import subprocess
import sys
from pathlib import Path

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
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(__file__).parents[4],
    ).stdout
    # Without a privilege niceness could not be raised again, and stays.
    assert int(answer) == (10 if os.getuid() == 0 else 0)
