"""Threads for the blocking work of the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_FETCHES = 6
_COMPARISONS = 10  # the most activations under way: each has a thread at once
_REGISTRY_CALLS = 2
_BUILDS = 3
_NICER_BY = 10
"""As for a worker that loads: a tenth of the share of a process that uses the same core."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoppedError(Exception):
    """Raised inside a fetch to abort it: the control plane stops, or the fetch is cancelled."""


class _Pool:
    """A bounded pool; a call runs ``work`` in it."""

    def __init__(self, threads: int, name: str, begin: Callable[[], None] | None = None) -> None:
        self.executor = ThreadPoolExecutor(threads, name, begin)

    async def __call__(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: work(*args, **kwargs))

    @property
    def threads(self) -> list[threading.Thread]:
        """Its threads so far."""
        return list(self.executor._threads)  # noqa: SLF001 - the pool has no wait with a timeout


class Threads:
    """Five bounded pools, so that slow work never delays other work. `close` ends them.

    Threads that move bytes have a lower priority than the gateway and its workers.

    Attributes:
        comparing: For the verification before an activation.
        building: For builds of environments, which may take many minutes.
        ledger: A single thread.
    """

    def __init__(self) -> None:
        self.fetching = _Pool(_FETCHES, "fetch", _lower_priority)
        self.comparing = _Pool(_COMPARISONS, "compare", _lower_priority)
        self.registry = _Pool(_REGISTRY_CALLS, "registry")
        self.building = _Pool(_BUILDS, "build", _lower_priority)
        self.ledger = _Pool(1, "ledger")
        self._abandoned: list[_Pool] = []
        self._stopping = threading.Event()

    def abandon_ledger_thread(self, at_last: Callable[[], None]) -> None:
        """Use a new thread for the ledger, because the present one is blocked.

        ``at_last`` is called in the old thread if it ever continues.
        """
        self.ledger.executor.submit(at_last)
        self.ledger.executor.shutdown(wait=False)
        self._abandoned.append(self.ledger)
        self.ledger = _Pool(1, "ledger")

    def abandoned_ledger_threads(self) -> int:
        """Return how many abandoned threads have not ended."""
        self._abandoned = [
            pool for pool in self._abandoned if any(one.is_alive() for one in pool.threads)
        ]
        return len(self._abandoned)

    def check_stopping(self, _done: int = 0, _total: int | None = None) -> None:
        """Abort the calling fetch if the control plane stops; fits ``on_progress``.

        Raises:
            StoppedError: The control plane stops.
        """
        if self._stopping.is_set():
            raise StoppedError

    def stop(self) -> None:
        """Abort running fetches; their threads end at the next bytes."""
        self._stopping.set()

    def close(self, *, timeout_s: float) -> bool:
        """Refuse new work and wait for running work; return whether every thread ended in time."""
        self.stop()
        own = (self.fetching, self.comparing, self.registry, self.building, self.ledger)
        pools = (*own, *self._abandoned)
        for pool in pools:
            pool.executor.shutdown(wait=False, cancel_futures=pool in own)
        give_up_at = time.monotonic() + timeout_s
        for thread in (one for pool in pools for one in pool.threads):
            thread.join(max(0.0, give_up_at - time.monotonic()))
        return not any(thread.is_alive() for pool in pools for thread in pool.threads)


def _lower_priority() -> None:
    """Lower the priority of this thread, and of processes that it starts, for good."""
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, nice + _NICER_BY)  # of this thread, on Linux
