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
_COMPARISONS = 10  # the most activations under way, so that none waits for a thread
_REGISTRY_CALLS = 2
_BUILDS = 3
_NICER_BY = 10
"""As a worker that loads: a tenth of the share of a neighbour that wants the same core."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoppedError(Exception):
    """Raised inside a fetch to abort it: the control plane stops, or the fetch is cancelled."""


class Threads:
    """Five bounded pools, so that slow work never delays other work. `close` ends them.

    Threads that move bytes have a lower priority than the gateway and its workers.
    """

    def __init__(self) -> None:
        self._fetching = ThreadPoolExecutor(_FETCHES, "fetch", _lower_priority)
        self._comparing = ThreadPoolExecutor(_COMPARISONS, "compare", _lower_priority)
        self._registry = ThreadPoolExecutor(_REGISTRY_CALLS, "registry")
        self._building = ThreadPoolExecutor(_BUILDS, "build", _lower_priority)
        self._ledger = ThreadPoolExecutor(1, "ledger")
        self._abandoned: list[ThreadPoolExecutor] = []
        self._stopping = threading.Event()

    async def fetching(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool for fetches."""
        return await _in(self._fetching, work, *args, **kwargs)

    async def comparing(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool for verification before an activation."""
        return await _in(self._comparing, work, *args, **kwargs)

    async def registry(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool for calls of the registry."""
        return await _in(self._registry, work, *args, **kwargs)

    async def building(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool for builds of environments, which may take many minutes."""
        return await _in(self._building, work, *args, **kwargs)

    async def ledger(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the single thread of the ledger."""
        return await _in(self._ledger, work, *args, **kwargs)

    def abandon_ledger_thread(self, at_last: Callable[[], None]) -> None:
        """Use a new thread for the ledger, because the present one is blocked.

        ``at_last`` is called in the old thread if it ever continues.
        """
        self._ledger.submit(at_last)
        self._ledger.shutdown(wait=False)
        self._abandoned.append(self._ledger)
        self._ledger = ThreadPoolExecutor(1, "ledger")

    def abandoned_ledger_threads(self) -> int:
        """Return how many abandoned threads have not ended."""
        self._abandoned = [
            pool for pool in self._abandoned if any(one.is_alive() for one in _threads(pool))
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
        pools = (
            self._fetching,
            self._comparing,
            self._registry,
            self._building,
            self._ledger,
            *self._abandoned,
        )
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=pool not in self._abandoned)
        give_up_at = time.monotonic() + timeout_s
        for pool in pools:
            for thread in _threads(pool):
                thread.join(max(0.0, give_up_at - time.monotonic()))
        return not any(thread.is_alive() for pool in pools for thread in _threads(pool))


def _lower_priority() -> None:
    """Lower the priority of this thread and of what it starts, for good."""
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, nice + _NICER_BY)  # of this thread, on Linux


def _threads(pool: ThreadPoolExecutor) -> list[threading.Thread]:
    return list(pool._threads)  # noqa: SLF001 - the pool has no wait with a timeout


async def _in(
    pool: ThreadPoolExecutor, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, lambda: work(*args, **kwargs))
