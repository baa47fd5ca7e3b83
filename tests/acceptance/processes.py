"""Processes of one node, seen from outside: found by a mark in their environment, through /proc.

Everything that a gateway or control plane starts inherits the mark, also after its parent died.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.waiting import until

MARK = "ACCEPTANCE_NODE"
LOG_TAIL_LINES = 60
STOP_PATIENCE_S = 45.0


@dataclass(frozen=True)
class Seen:
    """One living process (no zombie: that one holds no memory and runs no code)."""

    pid: int
    parent: int
    command: str
    started: int


def look_at(pid: int) -> Seen | None:
    """Read one process; None: there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in {b"Z", b"X"}:
        return None
    return Seen(pid, int(fields[1]), command, int(fields[19]))


def alive(pid: int) -> bool:
    """Tell whether ``pid`` is a process that runs."""
    return look_at(pid) is not None


def marked(mark: str) -> list[Seen]:
    """Every living process that inherited ``mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                seen = look_at(int(entry.name))
                if seen is not None:
                    found.append(seen)
    return found


def children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                listing = (task / "children").read_text()
                found.extend(int(child) for child in listing.split())
    return found


def proportional_bytes(pids: Iterable[int]) -> int:
    """The memory of these processes together, shared pages counted once: the sum of their PSS."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def other_threads(pid: int) -> list[str]:
    """The names of a process's threads but its main one, sorted."""
    names = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name == str(pid):
                continue
            with suppress(OSError):
                names.append((task / "comm").read_text().strip())
    return sorted(names)


class Running:
    """One process of ours with its log. Started at construction by `start`, ended by `stop`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        log: Path,
    ) -> "Running":
        """Start ``command``; what it writes is appended to ``log``."""
        with log.open("ab") as out:
            out.write(f"--- start {name}: {' '.join(command)}\n".encode())
            out.flush()
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the log, for a failure's message."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"--- {self.name}, end of its log\n" + "\n".join(text)

    def assert_running(self) -> None:
        status = self.process.poll()
        assert status is None, f"{self.name} ended with {status}\n{self.tail()}"

    def kill(self) -> None:
        """``kill -9``, and wait until the process is gone."""
        if self.running:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_PATIENCE_S)

    def pause(self) -> None:
        """SIGSTOP: nothing of the process goes on until it is resumed or stopped."""
        if self.running:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, which is harmless to a process that was not paused."""
        if self.running:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; the exit status. A process that does not end in time fails the test."""
        if self.running:
            self.process.terminate()
            self.resume()
            try:
                self.process.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                message = f"{self.name} did not end within {STOP_PATIENCE_S:g} s of SIGTERM"
                raise AssertionError(f"{message}\n{self.tail()}") from None
        return self.process.returncode


def assert_nothing_left(mark: str, *, patience_s: float = 20.0) -> None:
    """Fail if a process with ``mark`` outlives its node, after ending it by its pid."""
    give_up_at = time.monotonic() + patience_s
    left = marked(mark)
    while left and time.monotonic() < give_up_at:
        time.sleep(0.05)
        left = marked(mark)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    if left:
        until(lambda: not marked(mark), "the left-over processes end after SIGKILL")
    assert not left, f"outlived their node: {left}"
