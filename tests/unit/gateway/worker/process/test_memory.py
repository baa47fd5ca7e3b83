"""What a process says of its own memory, asked of processes that hold known amounts."""

import json
import resource

import pytest

from gateway.worker.process import memory
from tests.fakes.pythons import told_by

MIB = 1024 * 1024
PROGRAM = """
import json, os, sys
from gateway.worker.process import memory
inherited = bytearray(b"x") * (200 * 1024 * 1024)
if {forked} and os.fork():
    os.wait()
    sys.exit()
before = memory.private_bytes(), memory.peak_bytes(memory.private_bytes())
passing = bytearray(b"x") * (150 * 1024 * 1024)
passing = bytearray(b"x") * (40 * 1024 * 1024)
now = memory.private_bytes()
print(json.dumps([*before, now, memory.peak_bytes(now)]))
"""


def measured(*, forked: bool) -> list[float]:
    """Private and peak, in MiB: before, and after 150 MiB came and went and 40 stayed."""
    return [number / MIB for number in json.loads(told_by(PROGRAM.format(forked=forked)))]


def test_the_peak_is_what_was_held_at_most() -> None:
    before, peak_before, after, peak = measured(forked=False)
    assert before == pytest.approx(peak_before, abs=10)
    assert after - before == pytest.approx(40, abs=10)
    # 150 and 40 MiB were there together for a moment.
    assert peak - before == pytest.approx(190, abs=10)


def test_what_a_fork_shares_with_its_parent_is_in_neither() -> None:
    before, peak_before, after, peak = measured(forked=True)
    assert before < 20
    assert peak_before < 20
    assert after == pytest.approx(before + 40, abs=10)
    assert peak == pytest.approx(before + 190, abs=10)


BOUNDED = """
import os, sys, time
from gateway.worker.process import memory
inherited = bytearray(b"x") * (200 * 1024 * 1024)
memory.bound(100 * 1024 * 1024)
some = bytearray(80 * 1024 * 1024)
del some
try:
    bytearray(150 * 1024 * 1024)
except MemoryError:
    print("refused")
bytearray(80 * 1024 * 1024)
print("goes on")
"""


def test_a_bound_fails_what_would_go_beyond_it_and_nothing_else() -> None:
    assert told_by(BOUNDED).split("\n")[:2] == ["refused", "goes on"]


@pytest.mark.parametrize("hard_mib", [None, 1])
def test_a_bound_is_beyond_what_is_held_but_within_the_hard_limit(
    monkeypatch: pytest.MonkeyPatch, hard_mib: int | None
) -> None:
    hard = resource.RLIM_INFINITY if hard_mib is None else hard_mib * MIB
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *given: limits.append(given))
    monkeypatch.setattr(memory, "_sizes", lambda _: {"VmData": 200 * MIB})
    memory.bound(100 * MIB)
    limit = (hard_mib or 300) * MIB
    assert limits == [(resource.RLIMIT_DATA, (limit, limit))]


MEASURED_BESIDE = """
import threading, time
from gateway.worker.process import memory

def until_measured():
    for thread in threading.enumerate():
        if thread.name == "memory":
            thread.join()

MIB = 1024 * 1024
asked = []
truly = memory.private_bytes
memory.private_bytes = lambda: asked.append(1) or truly()
beside = memory.MemoryWatch(truly())
until_measured()
first = beside.latest()
until_measured()
untouched = len(asked)
held = bytearray(b"x") * (40 * MIB)
assert beside.latest() - first < 5 * MIB  # nobody waits for it
until_measured()
print(untouched, (beside.latest() - first) // MIB)
"""


def test_what_is_held_is_measured_beside_the_work_and_only_after_a_change() -> None:
    untouched, grown = map(int, told_by(MEASURED_BESIDE).split())
    assert untouched == 0
    assert grown == pytest.approx(40, abs=10)
