"""How a worker ends."""

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
    print(os.getpriority(os.PRIO_PROCESS, 0) - before, os.sched_getscheduler(0), flush=True)
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
    nicer, policy = map(int, answer.split())
    # Lower niceness where it could be taken back, else SCHED_BATCH.
    assert nicer > 0 or policy == 3, answer
