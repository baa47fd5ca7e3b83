"""Confine a worker before it runs foreign code, and end it.

A worker leads its own session and process group. Its *lifeline* is the read end of a pipe whose
write end only the gateway holds; the kernel itself kills the worker's group when that closes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

_OOM_SCORE = "500"
"""If memory runs out, the kernel kills a worker rather than the gateway, whose score is 0."""
_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = 0, 1, 2

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "LOKY_MAX_CPU_COUNT": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}
"""Variables that libraries read on import; `use_threads` raises the thread counts later.
CUDA cannot be used in a fork of a process that has touched it; see `allow_devices`."""
ALL_DEVICES = "all"

_THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib reads it at each n_jobs=-1
)
_THREAD_SETTERS = (
    ("torch", "set_num_threads"),
    ("numexpr", "set_num_threads"),
    ("pyarrow", "set_cpu_count"),
)


def confine(lifeline: Connection, output: Connection | None = None) -> None:
    """Lead a session, end with the gateway, and redirect the output.

    Ends the process at once if the gateway has already ended.
    """
    with contextlib.suppress(PermissionError):  # started by exec, it leads a group already
        os.setsid()
    _kill_when_closed(lifeline.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which then drains
    _survive_sigterm()
    _redirect_standard_streams(output)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    # A module of the model must not leave compiled files in the artifact, which is verified.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _survive_sigterm() -> None:
    """Survive SIGTERM, which a service manager sends to all processes at once.

    The gateway then drains and needs its workers. The handler does nothing; the signal is not
    ignored, since programs that the model starts would inherit that.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    # For libraries that do not repeat an interrupted call.
    signal.siginterrupt(signal.SIGTERM, False)
    os.register_at_fork(after_in_child=partial(signal.signal, signal.SIGTERM, signal.SIG_DFL))


def _kill_when_closed(lifeline: int) -> None:
    """Have the kernel kill this process group when the other end of ``lifeline`` closes.

    The kernel's SIGKILL works even while the model computes, hangs or blocks all signals, when a
    thread or a handler would not run.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):  # the other end closed before O_ASYNC was set
        end_group()


def keep_from_children(channel: socket.socket, lifeline: Connection) -> None:
    """Keep a model's children from inheriting the channel and the lifeline.

    A child that a model forks and that returns from ``predict`` would otherwise take and answer
    requests as the worker.
    """
    channel.set_inheritable(False)
    os.set_inheritable(lifeline.fileno(), False)
    os.register_at_fork(after_in_child=channel.close)


def leave_the_forkserver() -> None:
    """Close the write ends of two pipes that a fork inherits from its forkserver.

    A model may write to a wrong descriptor by mistake; one byte to one of these ends the
    forkserver, with every load under way, or its resource tracker.
    """
    forkserver = sys.modules.get("multiprocessing.forkserver")
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    for owner, name in (
        (getattr(forkserver, "_forkserver", None), "_forkserver_alive_fd"),
        (getattr(tracker, "_resource_tracker", None), "_fd"),
    ):
        if (descriptor := getattr(owner, name, None)) is not None:
            setattr(owner, name, None)  # a model that uses multiprocessing starts its own
            os.close(descriptor)


def _redirect_standard_streams(output: Connection | None) -> None:
    """Read from ``/dev/null``; write both streams to one pipe, as a model's ``print`` is logged."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STANDARD_INPUT)
    os.close(nothing)
    if output is not None:
        os.dup2(output.fileno(), _STANDARD_ERROR)
        output.close()
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)


def end_group() -> None:
    """Kill this process and its whole group at once, without exit hooks."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)


def allow_threads(threads: int) -> None:
    """Let libraries imported from now on, and children, use ``threads`` threads."""
    os.environ.update(dict.fromkeys(_THREAD_COUNTS, str(threads)))


def allow_devices(cuda_devices: str | None) -> None:
    """Let CUDA, which is not initialised yet, see these GPUs, or no GPU if None."""
    if cuda_devices == ALL_DEVICES:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    elif cuda_devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cuda_devices


def use_threads(threads: int) -> None:
    """Let the numerical libraries that are loaded use ``threads`` threads.

    The forkserver starts them with one, because a process with threads cannot be forked safely.
    An error of a library is ignored: only speed depends on it.
    """
    for module, setter in _THREAD_SETTERS:
        with contextlib.suppress(Exception):  # an odd version, or half imported
            if module in sys.modules:
                getattr(sys.modules[module], setter)(threads)
    if threads > 1:
        try:
            import threadpoolctl  # type: ignore[import-untyped,unused-ignore]  # no stubs
        except ImportError:
            return
        threadpoolctl.threadpool_limits(threads)
