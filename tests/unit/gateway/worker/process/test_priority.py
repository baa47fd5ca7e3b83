"""Priorities of processes that lower and restore their own, with and without privileges."""

import json
import os
from typing import Any

import pytest

from tests.fakes.pythons import told_by

PROGRAM = """
import ctypes, json, os, subprocess, sys, threading, time
from gateway.worker.process import priority

os.setsid()
if {user} and os.getuid() == 0:
    os.setgid({user})
    os.setuid({user})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # its files in /proc are its own again

def seen(thread):
    return os.getpriority(os.PRIO_PROCESS, thread)

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
NOBODY = 65534
LOWEST = 19
"""Of niceness."""


def seen(user: int) -> list[list[Any]]:
    """What a process sees of its own priorities before, while lowered, and after."""
    return list(json.loads(told_by(PROGRAM.format(user=user))))


@pytest.mark.parametrize("user", [0, NOBODY], ids=["as we are", "without privileges"])
def test_every_thread_and_child_is_lowered_and_comes_back(user: int) -> None:
    (before, group_before), (*during, group), (*after, group_after) = seen(user)
    may_return = os.getuid() == user == 0
    assert during == [min(before + 10, LOWEST) if may_return else before] * 3
    assert after == [before] * 3  # two threads and a child
    assert group_after == group_before
    if group_before is not None and may_return:
        # The others may do it ten times a second, all together.
        assert group == min(group_before + 10, LOWEST)
