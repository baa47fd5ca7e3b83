"""Starts workers: forks of a preloaded forkserver, or processes of a model's own interpreter.

Starting a worker blocks, the first time for seconds while the forkserver imports. So it is done on
a thread that lives as long as its launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
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
from gateway.system.processes import script_command
from gateway.worker import __runner__, entry
from gateway.worker.process import confinement

PRELOAD_MODULE = "gateway.worker.process.preload"
_TRIES = 4
_PAUSE_S = 0.2
_FORKSERVER_TIMEOUT_S = 90.0
"""Many times what the forkserver needs for its imports on a slow machine."""
_STOP_TIMEOUT_S = 3.0
_UNKNOWN_STATUS = 255
"""The status that multiprocessing returns if the forkserver has died."""
_NO_INTERPRETER = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC}
_MEMORY = Path("/dev/shm")  # noqa: S108  # only private folders are made in it


@dataclass
class WorkerProcess:
    """A started worker, and the resources that the parent holds for it.

    Attributes:
        pid: It leads its own session and process group.
        channel: The parent's end of the socket pair, non-blocking.
        exited: A pidfd, readable once the process has ended. ``multiprocessing``'s sentinel would
            not do: it ends with the forkserver.
        lifeline: The write end of a pipe without data. When it closes, at the latest with this
            process, the kernel kills the worker's process group.
        output: The read end of the worker's standard output and error.
        exit_status: Returns the exit status of an ended process (minus its signal), or None as
            long as it is not known. Does not block.
        release: Releases the launcher's other resources, once the worker was killed.
    """

    pid: int
    channel: socket.socket
    exited: int
    lifeline: Connection
    output: Connection
    exit_status: Callable[[], int | None] = field(repr=False)
    release: Callable[[], None] = field(repr=False)

    def kill(self) -> None:
        """End the worker, its process group and its session at once. Idempotent."""
        with contextlib.suppress(OSError):  # no descriptor is free: `close` tries again
            process_session.end(self.pid, self.exited)

    def close(self) -> None:
        """End the rest of the session, and release every descriptor.

        The closed descriptors come first: ending the session needs free ones.
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
    """Both ends of a worker's channel and pipes: the parent's, and those that it inherits."""

    channel: socket.socket
    lifeline: Connection
    output: Connection
    worker: socket.socket
    inherited_lifeline: Connection
    inherited_output: Connection

    @classmethod
    def made(cls, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> _Ends:
        """Open all ends; each stack closes its own."""
        channel, worker = socket.socketpair()
        ours.callback(channel.close)
        theirs.callback(worker.close)
        channel.setblocking(False)
        inherited_lifeline, lifeline = multiprocessing.Pipe(duplex=False)
        ours.callback(lifeline.close)
        theirs.callback(inherited_lifeline.close)
        output, inherited_output = multiprocessing.Pipe(duplex=False)
        ours.callback(output.close)
        theirs.callback(inherited_output.close)
        return cls(channel, lifeline, output, worker, inherited_lifeline, inherited_output)


class Launcher(Protocol):
    """Starts workers."""

    async def launch(self, interpreter: str | None) -> WorkerProcess:
        """Start a worker that waits for LOAD, under a model's own Python if there is one.

        Raises:
            LoadError: The worker could not be started.
        """
        ...


class Launchers:
    """Starts workers under the gateway's interpreter and under models' own ones."""

    def __init__(self, shared: ForkserverLauncher, own: ExecLauncher) -> None:
        self._shared = shared
        self._own = own

    async def launch(self, interpreter: str | None) -> WorkerProcess:
        """Start a worker; see `Launcher`."""
        if interpreter is None:
            return await self._shared.launch()
        return await self._own.launch(interpreter)


class ForkserverLauncher:
    """Forks workers from a server that imports the module ``preload`` before the first fork."""

    def __init__(self, preload: str = PRELOAD_MODULE) -> None:
        self._preload = preload
        self._context: ForkServerContext | None = None
        self._measured: tuple[int | None, int] = (None, 0)  # the forkserver, and its own bytes
        # One thread starts all workers, and outlives them.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")

    async def warm(self) -> None:
        """Start the forkserver, which goes on importing afterwards."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ensure)

    async def launch(self) -> WorkerProcess:
        """Fork a worker.

        Raises:
            LoadError: The forkserver could not be reached or restarted in several tries.
        """
        loop = asyncio.get_running_loop()
        started = loop.run_in_executor(self._thread, self._launch)
        watchdog = loop.create_task(self._end_hanging_forkservers(_FORKSERVER_TIMEOUT_S))
        started.add_done_callback(lambda _: watchdog.cancel())
        return await _or_discard(started)

    async def _end_hanging_forkservers(self, timeout_s: float) -> None:
        """End a forkserver whenever the time-out has passed, until cancelled.

        A forkserver that hangs would block the launching thread, and every later load. Once it is
        killed, the thread's next try starts another, which may hang as well: OpenBLAS repeats
        requests for memory that a limit denies.
        """
        while True:
            await asyncio.sleep(timeout_s)
            self.kill_forkserver()

    def kill_forkserver(self) -> None:
        """End the forkserver at once. Workers live on, and the next launch starts another."""
        if (pid := self.forkserver_pid) is not None:
            with contextlib.suppress(OSError):  # the watchdog goes on
                os.kill(pid, signal.SIGKILL)

    @property
    def forkserver_pid(self) -> int | None:
        """The forkserver's process id, or None before its start."""
        pid: int | None = getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001  # no public name
        return pid

    def private_bytes(self) -> int:
        """Return the forkserver's own bytes, or 0 until its first fork.

        The kernel walks all its pages for them, some 10 ms, so they are measured once: after its
        first fork it allocates nothing more.
        """
        pid, own_bytes = self._measured
        return own_bytes if pid == self.forkserver_pid else 0

    async def close(self) -> None:
        """End the forkserver and the launching thread. Workers must have ended before."""
        loop = asyncio.get_running_loop()
        watchdog = loop.create_task(self._end_hanging_forkservers(_STOP_TIMEOUT_S))
        await loop.run_in_executor(self._thread, self._stop)
        watchdog.cancel()
        self._thread.shutdown(wait=True)

    # --- on the launcher's thread -----------------------------------------------------------------

    def _ensure(self) -> ForkServerContext:
        if self._context is None:
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload([self._preload])
            _find_socket_folder()
        multiprocessing.forkserver.ensure_running()
        return self._context

    def _launch(self) -> WorkerProcess:
        last: Exception | None = None
        for _ in range(_TRIES):
            try:
                return self._fork(self._ensure())
            except (OSError, EOFError) as error:
                # The forkserver died. The next try restarts it, once the kernel has made the old
                # one waitable.
                last = error
                time.sleep(_PAUSE_S)
        raise LoadError("worker_not_started", f"no worker could be started: {last!r}") from last

    def _fork(self, context: ForkServerContext) -> WorkerProcess:
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            ends = _Ends.made(ours, theirs)
            child = context.Process(
                target=entry.run,
                args=(ends.worker, ends.inherited_lifeline, ends.inherited_output),
                name="model worker",
            )
            # Not `child.start()`: multiprocessing would join it at exit.
            started = _Fork(child)
            ours.callback(started.close)
            # If this fails, closing the lifeline ends the child.
            exited = os.pidfd_open(started.pid)
            ours.pop_all()
        if (forkserver_pid := self.forkserver_pid) != self._measured[0]:
            self._measured = (forkserver_pid, _anonymous_bytes(forkserver_pid))
        return WorkerProcess(
            *(started.pid, ends.channel, exited, ends.lifeline, ends.output),
            exit_status=started.known_status,
            release=started.close,
        )

    def _stop(self) -> None:
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]  # noqa: SLF001  # no public name


def _anonymous_bytes(pid: int | None) -> int:
    """Return the anonymous pages of a process in bytes, or 0 if the kernel does not say."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in rollup.splitlines())
    return next((int(parts[1]) * 1024 for parts in lines if parts[0] == "Anonymous:"), 0)


class _Fork(popen_forkserver.Popen):
    """A child of the forkserver. If a step fails, the descriptors of earlier steps are closed.

    The base class would leave the child's pipe open, and the child would wait for ever.
    """

    _fds: list[int]

    def known_status(self) -> int | None:
        """Return the exit status, or None if the forkserver has not reported it, or has died."""
        status: int | None = self.poll()
        return None if status == _UNKNOWN_STATUS else status

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
                # It shows the child that its parent lives.
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


def _find_socket_folder() -> None:
    """Choose a folder for the forkserver's socket even if every disk is full.

    Python looks for a folder that takes a file with content. A socket has none, so a folder in
    memory will do.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if not os.access(_MEMORY, os.W_OK | os.X_OK):
            raise
        tempfile.tempdir = str(_MEMORY)  # a private folder is made in it


class ExecLauncher:
    """Starts workers under a model's own interpreter, which imports only the worker package.

    Workers inherit the variables ``environ``.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {**environ, **confinement.ENVIRONMENT}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exec-launcher")

    async def launch(self, interpreter: str) -> WorkerProcess:
        """Start a worker under ``interpreter``, the path of a Python.

        Raises:
            LoadError: The interpreter is missing, or the system lacks what a process needs.
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
                process, exited = self._start(interpreter, ends)
            except OSError as error:
                reason = f"the model's own interpreter {interpreter} cannot be started"
                if error.errno not in _NO_INTERPRETER:
                    raise LoadError("worker_not_started", f"{reason}: {error.strerror}") from error
                raise LoadError(
                    "environment_missing",
                    f"{reason} ({error.strerror}): the control plane builds its environment again",
                ) from error
            ours.pop_all()
        return WorkerProcess(
            *(process.pid, ends.channel, exited, ends.lifeline, ends.output),
            exit_status=process.poll,
            release=partial(_reap, process),
        )

    def _start(self, interpreter: str, ends: _Ends) -> tuple[subprocess.Popen[bytes], int]:
        """Start the process; return it and its pidfd."""
        process = subprocess.Popen(  # noqa: S603  # the control plane made this interpreter
            _command(interpreter, ends.worker, ends.inherited_lifeline),
            stdin=subprocess.DEVNULL,
            stdout=ends.inherited_output.fileno(),
            stderr=ends.inherited_output.fileno(),
            pass_fds=(ends.worker.fileno(), ends.inherited_lifeline.fileno()),
            start_new_session=True,
            env=self._environ,
        )
        try:
            # The child was not waited for yet, so its pid is still its own.
            return process, os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            _reap(process)
            raise


def _command(interpreter: str, channel: socket.socket, lifeline: Connection) -> list[str]:
    """Return the command: isolated, and without writing compiled files beside our package."""
    return [
        *(interpreter, "-I", "-B", *script_command(__runner__.__file__)),
        *(str(channel.fileno()), str(lifeline.fileno())),
    ]


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Reap a killed child, in a thread if it has not ended yet."""
    if process.poll() is None:
        threading.Thread(target=process.wait, name="reaper", daemon=True).start()


async def _or_discard(started: asyncio.Future[WorkerProcess]) -> WorkerProcess:
    """Return the started worker, or end it if the caller was cancelled."""
    try:
        return await asyncio.shield(started)
    except asyncio.CancelledError:
        started.add_done_callback(_discard)
        raise


def _discard(started: asyncio.Future[WorkerProcess]) -> None:
    if not started.cancelled() and started.exception() is None:
        started.result().close()
