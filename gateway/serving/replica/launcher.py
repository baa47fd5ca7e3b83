"""Starting workers: forks of a server that has everything imported, or a model's own interpreter.

Nothing here touches the event loop: starting a worker blocks (a fork the first time for seconds,
while the forkserver imports) and is done on a thread that lives as long as its launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, set_spawning_popen
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.errors import LoadError
from gateway.serving.replica import process_session
from gateway.system import release_all
from gateway.worker import __runner__, entry
from gateway.worker.process import confinement

PRELOAD_MODULE = "gateway.worker.process.preload"
_TRIES = 4
_PAUSE_S = 0.2
_FORKSERVER_PATIENCE_S = 90.0
"""Many times what the forkserver needs for its imports, on a slow machine too."""
_STOP_PATIENCE_S = 3.0
_MEMORY = Path("/dev/shm")  # noqa: S108  # only a folder that others cannot read is made in it


@dataclass
class WorkerProcess:
    """One started child and all that the parent holds of it.

    Attributes:
        pid: Leader of its own session and process group.
        channel: The parent's end of the socket pair, non-blocking.
        exited: A pidfd: readable when the process has ended, whoever its parent is. A forkserver's
            children are not ours, and the pipe that ``multiprocessing`` calls their sentinel ends
            with the forkserver, not with them.
        lifeline: Write end of a pipe that nobody writes to. When it closes, at the latest with
            this process, the kernel kills the worker's process group.
        output: Read end of the pipe that is the worker's standard output and error.
        release: Lets go of what the way of starting it holds besides, once the worker was killed.
    """

    pid: int
    channel: socket.socket
    exited: int
    lifeline: Connection
    output: Connection
    release: Callable[[], None] = field(repr=False)

    def kill(self) -> None:
        """End the worker, its process group and its session, now. Harmless if it has ended."""
        with contextlib.suppress(OSError):  # no descriptor is free: `close` looks once more
            process_session.end(self.pid, self.exited)

    def close(self) -> None:
        """End what is left of the session, and release every descriptor.

        Closing the lifeline ends the group too. With three descriptors free, the rest is found.
        """
        release_all(
            self.channel.close,
            self.lifeline.close,
            self.output.close,
            partial(process_session.end, self.pid, self.exited),
            partial(os.close, self.exited),
            self.release,
        )


class _Ends(NamedTuple):
    """Both ends of what connects a worker: ours, and those that it inherits."""

    channel: socket.socket
    lifeline: Connection
    output: Connection
    worker: socket.socket
    alive: Connection
    spoken: Connection

    @classmethod
    def made(cls, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> _Ends:
        """Make them; each is closed with its stack."""
        channel, worker = socket.socketpair()
        ours.callback(channel.close)
        theirs.callback(worker.close)
        channel.setblocking(False)
        alive, lifeline = multiprocessing.Pipe(duplex=False)
        ours.callback(lifeline.close)
        theirs.callback(alive.close)
        output, spoken = multiprocessing.Pipe(duplex=False)
        ours.callback(output.close)
        theirs.callback(spoken.close)
        return cls(channel, lifeline, output, worker, alive, spoken)


class Launcher(Protocol):
    """Starts workers."""

    async def launch(self, interpreter: str | None) -> WorkerProcess:
        """Start a worker that waits for LOAD.

        Args:
            interpreter: The model's own Python; None: ours.

        Raises:
            LoadError: It could not be started.
        """
        ...


class Launchers:
    """Both ways to start a worker, behind one door."""

    def __init__(self, shared: ForkserverLauncher, own: ExecLauncher) -> None:
        """Store the launcher of our interpreter, and that of models' own ones."""
        self._shared = shared
        self._own = own

    async def launch(self, interpreter: str | None) -> WorkerProcess:
        """Start a worker; see `Launcher`."""
        if interpreter is None:
            return await self._shared.launch()
        return await self._own.launch(interpreter)


class ForkserverLauncher:
    """Workers under our own interpreter, forked from a server that has the libraries imported."""

    def __init__(self, preload: str = PRELOAD_MODULE) -> None:
        """Store what to import before the first fork."""
        self._preload = preload
        self._context: ForkServerContext | None = None
        # Children are started from one thread that outlives them all.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    async def warm(self) -> None:
        """Start the forkserver; it goes on importing after this returns."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ensure)

    async def launch(self) -> WorkerProcess:
        """Fork a worker.

        Raises:
            LoadError: The forkserver could not be reached, or restarted, in several tries.
        """
        loop = asyncio.get_running_loop()
        started = loop.run_in_executor(self._thread, self._launch)
        watchdog = loop.create_task(self._end_what_hangs(_FORKSERVER_PATIENCE_S))
        started.add_done_callback(lambda _: watchdog.cancel())
        return await _or_discard(started)

    async def _end_what_hangs(self, patience_s: float) -> None:
        """End one forkserver after the other, until cancelled.

        One that hangs would hang the launching thread, and every later load with it. Once it is
        killed, the thread's read ends and its next try starts another, which may hang as well:
        OpenBLAS asks again and again for memory that a limit denies.
        """
        while True:
            await asyncio.sleep(patience_s)
            self.kill_forkserver()

    def kill_forkserver(self) -> None:
        """End the forkserver at once. Workers live on, and the next launch starts another."""
        if (pid := self.forkserver_pid) is not None:
            with contextlib.suppress(OSError):  # the watchdog is to go on
                os.kill(pid, signal.SIGKILL)

    @property
    def forkserver_pid(self) -> int | None:
        """The forkserver's process id; None before the first start."""
        pid: int | None = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001  # the standard library names it nowhere else
        return pid

    def private_bytes(self) -> int:
        """Return what the forkserver itself holds (anonymous pages); 0 if it is not there."""
        if (pid := self.forkserver_pid) is None:
            return 0
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        lines = (line.split() for line in rollup.splitlines())
        return next((int(parts[1]) * 1024 for parts in lines if parts[0] == "Anonymous:"), 0)

    async def close(self) -> None:
        """End the forkserver and the launching thread. Workers must have ended before."""
        loop = asyncio.get_running_loop()
        watchdog = loop.create_task(self._end_what_hangs(_STOP_PATIENCE_S))
        await loop.run_in_executor(self._thread, self._stop)
        watchdog.cancel()
        self._thread.shutdown(wait=True)

    # --- on the launcher's thread -----------------------------------------------------------------

    def _ensure(self) -> ForkServerContext:
        if self._context is None:
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload([self._preload])
            _have_place_for_sockets()
        multiprocessing.forkserver.ensure_running()
        return self._context

    def _launch(self) -> WorkerProcess:
        last: Exception | None = None
        for _ in range(_TRIES):
            try:
                return self._fork(self._ensure())
            except (OSError, EOFError) as error:
                # The forkserver died, before or while we talked to it: the next try restarts it,
                # once the kernel has made the old one waitable.
                last = error
                time.sleep(_PAUSE_S)
        raise LoadError("worker_not_started", f"no worker could be started: {last!r}") from last

    def _fork(self, context: ForkServerContext) -> WorkerProcess:
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            ends = _Ends.made(ours, theirs)
            child = context.Process(
                target=entry.run, args=(ends.worker, ends.alive, ends.spoken), name="model worker"
            )
            # Not by its `start`: multiprocessing would join it at exit, and the owner ends it.
            started = _Fork(child)
            ours.callback(started.close)
            # Should this fail, the end of the lifeline ends the child.
            exited = os.pidfd_open(started.pid)
            ours.pop_all()
        return WorkerProcess(
            started.pid, ends.channel, exited, ends.lifeline, ends.output, started.close
        )

    def _stop(self) -> None:
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]  # noqa: SLF001  # the standard library offers no other end


class _Fork(popen_forkserver.Popen):
    """A child of the forkserver; what a step opens is closed if a later one fails.

    The base class leaves the pipe open by which the child gets its orders: the child would wait for
    them for ever.
    """

    _fds: list[int]

    def _launch(self, process_obj: BaseProcess) -> None:
        orders = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process_obj.name), orders)
            reduction.dump(process_obj, orders)
        finally:
            set_spawning_popen(None)
        with contextlib.ExitStack() as opened:
            self.sentinel, data = forkserver.connect_to_new_process(self._fds)
            opened.callback(os.close, self.sentinel)
            with contextlib.ExitStack() as sent:
                sent.callback(os.close, data)
                # The child's sign that its parent lives.
                parent = os.dup(data)
                opened.callback(os.close, parent)
                _write_all(data, orders.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)
            self.finalizer = util.Finalize(self, _close_both, (parent, self.sentinel))
            opened.pop_all()


def _close_both(parent: int, sentinel: int) -> None:
    release_all(partial(os.close, parent), partial(os.close, sentinel))


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _have_place_for_sockets() -> None:
    """Let the forkserver's socket have a folder although every disk is full.

    Python takes the first folder for temporary files that takes a file with content; a socket has
    none, so that memory does.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if not os.access(_MEMORY, os.W_OK | os.X_OK):
            raise
        tempfile.tempdir = str(_MEMORY)  # a folder of our own is made in it


class ExecLauncher:
    """Workers under a model's own interpreter, which has nothing of ours but the worker package."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Store the environment variables that workers inherit."""
        self._environ = {**environ, **confinement.ENVIRONMENT}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exec-launcher")

    async def launch(self, interpreter: str) -> WorkerProcess:
        """Start a worker on ``interpreter``, the path of a Python.

        Raises:
            LoadError: It is not there, or cannot be run.
        """
        loop = asyncio.get_running_loop()
        return await _or_discard(loop.run_in_executor(self._thread, self._exec, interpreter))

    async def close(self) -> None:
        """End the launching thread. Workers must have ended before."""
        await asyncio.to_thread(self._thread.shutdown)

    def _exec(self, interpreter: str) -> WorkerProcess:
        """Start a worker. On the launcher's thread."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            try:
                ends = _Ends.made(ours, theirs)
                process, exited = self._start(interpreter, ends.worker, ends.alive, ends.spoken)
            except OSError as error:
                raise LoadError(
                    "environment_missing",
                    f"the model's own interpreter {interpreter} cannot be started "
                    f"({error.strerror}): the control plane builds its environment again",
                ) from error
            ours.pop_all()
        release = partial(_reap, process)
        return WorkerProcess(process.pid, ends.channel, exited, ends.lifeline, ends.output, release)

    def _start(
        self, interpreter: str, channel: socket.socket, lifeline: Connection, spoken: Connection
    ) -> tuple[subprocess.Popen[bytes], int]:
        """Start the process; return it and its pidfd."""
        process = subprocess.Popen(  # noqa: S603  # the control plane made this interpreter
            _command(interpreter, channel, lifeline),
            stdin=subprocess.DEVNULL,
            stdout=spoken.fileno(),
            stderr=spoken.fileno(),
            pass_fds=(channel.fileno(), lifeline.fileno()),
            start_new_session=True,
            env=self._environ,
        )
        try:
            # Nobody has waited for the child yet, so its pid is no other process's.
            return process, os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            _reap(process)
            raise


def _command(interpreter: str, channel: socket.socket, lifeline: Connection) -> list[str]:
    """Isolated, and without compiled files of our package, whose folder is not the worker's."""
    return [
        *(interpreter, "-I", "-B", __runner__.__file__),
        *(str(channel.fileno()), str(lifeline.fileno())),
    ]


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Let the kernel forget a child that has ended, or is about to: it was killed."""
    if process.poll() is None:
        threading.Thread(target=process.wait, name="reaper", daemon=True).start()


async def _or_discard(started: asyncio.Future[WorkerProcess]) -> WorkerProcess:
    """Return the started worker, or end it if the caller leaves before."""
    try:
        return await asyncio.shield(started)
    except asyncio.CancelledError:
        started.add_done_callback(_discard)
        raise


def _discard(started: asyncio.Future[WorkerProcess]) -> None:
    """End a worker whose caller left while it was being started."""
    if not started.cancelled() and started.exception() is None:
        started.result().close()
