"""The processes of the demonstration: started together, watched, and all stopped at the end.

Every server leads a session of its own, so a Ctrl-C reaches this process alone, which then stops
them in order. A server's session is killed after its leader; a gateway's workers end with it. The
kernel sends a server SIGTERM if this process is killed. Servers are started by the main thread
only, because that signal is tied to the thread that starts them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.errors import DemoError

STOP_TIMEOUT_S = 30.0
POLL_S = 0.1
_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def free_port(preferred: int) -> int:
    """Return ``preferred`` if it is free on the loopback address, else another that is."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("no free port on 127.0.0.1")


@dataclass
class Server:
    """One server: how to start it, and its process once it was started."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output goes to its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.environ),
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (a single prctl: takes no lock)
            )

    @property
    def has_ended(self) -> bool:
        """Whether it was started and has ended without `stop`."""
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """End it at once, as a crash would; it then counts as ended, not as stopped."""
        if self.process is not None:
            _signal_session(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Terminate it, wait, and kill the rest of its session."""
        if self.process is None:
            return
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        _signal_session(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)

    def tail(self) -> str:
        """Return the last lines of the log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-_TAIL_LINES:]) or "(the log is empty)"


def _signal_session(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


@dataclass
class Servers:
    """All servers of the demonstration, in the order in which they are to be stopped."""

    started: list[Server] = field(default_factory=list)

    def start(self, server: Server) -> None:
        """Start a server and take care of it from now on."""
        if server not in self.started:
            self.started.append(server)
        server.start()

    def wait_until(self, what: str, is_so: Callable[[], bool], limit_s: float) -> None:
        """Wait until a condition holds.

        Raises:
            DemoError: A server ended meanwhile, or ``limit_s`` seconds passed.
        """
        deadline = time.monotonic() + limit_s
        self.check_running()
        while not is_so():
            self.check_running()
            if time.monotonic() > deadline:
                raise DemoError(f"not within {limit_s:.0f} s: {what}")
            time.sleep(POLL_S)

    def check_running(self) -> None:
        """Check that every server runs.

        Raises:
            DemoError: A server has ended by itself.
        """
        for server in self.started:
            if server.has_ended:
                status = server.process.returncode if server.process else None
                raise DemoError(f"{server.name} has ended with status {status}")

    def stop_all(self) -> None:
        """Stop every server, with its session."""
        for server in reversed(self.started):
            server.stop()
