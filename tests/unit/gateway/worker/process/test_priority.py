"""Priorities of processes that lower and restore their own, with and without privileges."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import ctypes, json, os, subprocess, sys, threading, time
from gateway.worker.process import priority

os.setsid()
if {user} and os.getuid() == 0:
    os.setgid({user})
    os.setuid({user})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # its files in /proc are its own again

def seen(thread):
    io = ctypes.CDLL(None).syscall({ioprio_get}, 1, thread)
    nice, policy = os.getpriority(os.PRIO_PROCESS, thread), os.sched_getscheduler(thread)
    return nice, policy, io

def autogroup():
    try:
        return int(open("/proc/self/autogroup").read().split()[-1])
    except OSError:
        return None

def all_seen(child):
    return [seen(int(one)) for one in (*os.listdir("/proc/self/task"), child)]

before = [seen(0), autogroup()]
lowered = priority.lower()
while len(os.listdir("/proc/self/task")) > 1:  # the thread that tries: the kernel still sees it
    time.sleep(0.001)
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
during = [*all_seen(child.pid), autogroup()]
priority.restore(lowered)
after = [*all_seen(child.pid), autogroup()]
child.kill()
print(json.dumps([before, during, after]))
"""
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}.get(os.uname().machine)
NOBODY = 65534
LOWEST = 19
"""Of niceness."""


def seen(user: int) -> list[list[Any]]:
    """What a process sees of its own priorities before, while lowered, and after."""
    if IOPRIO_GET is None:
        pytest.skip("I/O priorities are not known on this machine")
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(user=user, ioprio_get=IOPRIO_GET)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[5],
        start_new_session=False,
        timeout=60,
    ).stdout
    return list(json.loads(answer))


@pytest.mark.parametrize("user", [0, NOBODY], ids=["as we are", "without privileges"])
def test_every_thread_and_child_is_lowered_and_comes_back(user: int) -> None:
    (before, group_before), (*during, group), (*after, group_after) = seen(user)
    lowest_io = (2 << 13) | 7
    assert len(during) == len(after) == 3  # two threads and a child
    for nice, policy, io in during:
        assert io == lowest_io
        assert nice == min(before[0] + 10, LOWEST) or policy == os.SCHED_BATCH
    assert [one[:2] for one in after] == [before[:2]] * 3
    assert lowest_io not in [io for *_, io in after]
    assert group_after == group_before
    if group_before is not None and os.getuid() == user == 0:
        # The others may do it ten times a second, all together.
        assert group == min(group_before + 10, LOWEST)


def test_without_privileges_niceness_is_left_alone() -> None:
    if os.getuid() != 0:
        pytest.skip("the test above runs without privileges")
    (before, _), (*during, _), _ = seen(NOBODY)
    assert {tuple(one[:2]) for one in during} == {(before[0], os.SCHED_BATCH)}
