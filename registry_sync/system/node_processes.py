"""Runs both processes of a node as one: starts them, starts them again, and ends them together.

All of it runs on the event loop of the process that starts them. The processes write to its
standard error, and end with it even if it is killed: see `gateway.system.processes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from gateway.system.processes import bound_command, importable

_FAILED, _WRONG_SETTING = 1, 2
_UP_AFTER_S = 10.0
"""Time after which a process has started, whatever ends it later."""
_LASTED_S = 60.0
"""A process that has run for this long is started again without a long pause."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_MOST_DOUBLINGS = 8
_SIGNALS_UNTIL_KILL = 3
_DRAIN_S, _STOP_MARGIN_S = 30.0, 15.0
_NOT_STARTED = 71
"""The exit status of an operating system error, by ``sysexits.h``."""
_log = structlog.get_logger("up")


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A process of the node: its name in the log, and the module that Python runs.

    ``refusals`` are the exit statuses with which it refuses its start, so that the node cannot run.
    """

    name: str
    module: str
    refusals: frozenset[int]


_PLANES = (
    NodeProcess("gateway", "gateway", frozenset({_FAILED, _WRONG_SETTING})),
    # Without it the gateway serves on, so that only a person's mistake ends the node.
    NodeProcess("control plane", "registry_sync", frozenset({_WRONG_SETTING})),
)


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended: its exit status (negative: a signal) and the seconds it ran."""

    status: int
    ran_s: float

    def __str__(self) -> str:
        """Return the end as it is logged."""
        if self.status >= 0:
            return f"exit status {self.status}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-self.status).name
        return f"signal {-self.status}"


def pause_before_restart(short_runs: int) -> float:
    """Return the seconds until an ended process is started again.

    ``short_runs`` is how many of its runs in a row were short, the latest included.
    """
    doublings = min(max(0, short_runs - 1), _MOST_DOUBLINGS)
    return min(math.ldexp(_FIRST_PAUSE_S, doublings), _LONGEST_PAUSE_S)


def _stop_limit_s(environ: Mapping[str, str]) -> float:
    """Return the seconds after which a process that was told to end is killed."""
    try:
        drain_s = float(environ.get("GATEWAY_DRAIN_TIMEOUT_S", ""))
    except ValueError:  # not set, or refused by the gateway
        drain_s = _DRAIN_S
    return drain_s + _STOP_MARGIN_S


class NodeProcesses:
    """The processes of a node, each started with the variables ``environ``."""

    def __init__(self, environ: Mapping[str, str], which: Sequence[NodeProcess] = _PLANES) -> None:
        self._environ = environ
        self._which = which
        self._running: dict[NodeProcess, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signals = 0
        self._signal = signal.SIGTERM

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a process refuses to start; return its status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        async with asyncio.TaskGroup() as tasks:
            kept = [tasks.create_task(self._keep(one)) for one in self._which]
        return max(one.result() for one in kept)

    def stop(self) -> None:
        """End the processes: in order, at once if called again, and killed if called thrice.

        They are killed, too, if they take longer than the gateway's drain may.
        """
        self._signals += 1
        self._stopping.set()
        if self._signals == 1:
            _log.info("node.stopping", again="at once")
            asyncio.get_running_loop().call_later(_stop_limit_s(self._environ), self._kill)
        if self._signals >= _SIGNALS_UNTIL_KILL:
            self._signal = signal.SIGKILL
        self._send()

    def _kill(self) -> None:
        self._signal = signal.SIGKILL
        self._send()

    def _send(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self._signal)

    async def _keep(self, which: NodeProcess) -> int:
        """Keep a process running until all stop; return 0, or the status of its refusal."""
        was_up, short_runs = False, 0
        while not self._stopping.is_set():
            end = await self._run_once(which)
            if self._stopping.is_set():
                break
            was_up = was_up or end.ran_s >= _UP_AFTER_S
            short_runs = short_runs + 1 if end.ran_s < _LASTED_S else 0
            if end.status in which.refusals and not was_up:
                _log.error("process.refused", process=which.name, end=str(end))
                self.stop()
                return end.status
            pause_s = pause_before_restart(short_runs)
            _log.error("process.ended", process=which.name, end=str(end), restart_in_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
        return 0

    async def _run_once(self, which: NodeProcess) -> End:
        """Run a process to its end."""
        began = time.monotonic()
        with contextlib.ExitStack() as held:
            try:
                process = await self._start(which, held)
            except OSError as error:  # neither memory nor descriptors: a later start may succeed
                _log.error("process.start_failed", process=which.name, reason=error.strerror)
                return End(_NOT_STARTED, 0.0)
            self._running[which] = process
            held.callback(self._running.pop, which)
            if self._stopping.is_set():  # the signal came while the process was started
                self._send()
            return End(await process.wait(), time.monotonic() - began)

    async def _start(
        self, which: NodeProcess, held: contextlib.ExitStack
    ) -> asyncio.subprocess.Process:
        """Start a process that ends at the latest when ``held`` is closed.

        Raises:
            OSError: The system lacks what a process needs.
        """
        alive, lifeline = os.pipe()
        held.callback(os.close, lifeline)
        try:
            return await asyncio.create_subprocess_exec(
                *bound_command(alive, [sys.executable, "-P", "-m", which.module]),
                stdin=subprocess.DEVNULL,
                pass_fds=(alive,),
                process_group=0,  # Ctrl-C reaches this process alone, which ends both in order
                env=importable(self._environ),
            )
        finally:
            os.close(alive)
