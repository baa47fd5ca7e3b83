"""The threads of the control plane: blocking work is done here, never on the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from registry_sync.system.background_priority import step_behind

_FETCHES = 6
_COMPARISONS = 10  # as many as there are activations under way at most: none waits for a thread
_REGISTRY_CALLS = 2
_BUILDS = 3

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoppedError(Exception):
    """The control plane ends, or nobody waits any more: raised inside a fetch to abort it."""


class Threads:
    """Five bounded pools, so that a slow one never holds up another. `close` ends them.

    Where bytes move, work is done at a lower priority than what serves on the same cores.
    """

    def __init__(self) -> None:
        """Make the pools; threads start with the first work."""
        self._fetching = ThreadPoolExecutor(_FETCHES, "fetch", step_behind)
        self._comparing = ThreadPoolExecutor(_COMPARISONS, "compare", step_behind)
        self._registry = ThreadPoolExecutor(_REGISTRY_CALLS, "registry")
        self._building = ThreadPoolExecutor(_BUILDS, "build", step_behind)
        self._ledger = ThreadPoolExecutor(1, "ledger")
        self._left: list[ThreadPoolExecutor] = []
        self._stopping = threading.Event()

    async def fetching(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do ``work`` where bytes move and are hashed."""
        return await _in(self._fetching, work, *args, **kwargs)

    async def comparing(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do ``work`` where bytes that are about to serve are fetched and hashed once more."""
        return await _in(self._comparing, work, *args, **kwargs)

    async def registry(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do ``work`` where the registry is asked."""
        return await _in(self._registry, work, *args, **kwargs)

    async def building(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do ``work`` where environments are built, which may take many minutes."""
        return await _in(self._building, work, *args, **kwargs)

    async def ledger(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do ``work`` where the ledger is read and written: one thing at a time, in order."""
        return await _in(self._ledger, work, *args, **kwargs)

    def leave_ledger(self, at_last: Callable[[], None]) -> None:
        """Use a new thread for the ledger: this one stands in something that does not end.

        Args:
            at_last: What it is to do when that ends after all.
        """
        self._ledger.submit(at_last)
        self._ledger.shutdown(wait=False)
        self._left.append(self._ledger)
        self._ledger = ThreadPoolExecutor(1, "ledger")

    def left_by_ledger(self) -> int:
        """Return how many threads were left, and have not ended."""
        self._left = [pool for pool in self._left if any(one.is_alive() for one in _threads(pool))]
        return len(self._left)

    def check_stopping(self, _done: int = 0, _total: int | None = None) -> None:
        """Abort the calling fetch if the control plane ends; fits as ``on_progress``.

        Raises:
            StoppedError: It ends.
        """
        if self._stopping.is_set():
            raise StoppedError

    def stop(self) -> None:
        """Abort the fetches that run; their threads end at the next bytes."""
        self._stopping.set()

    def close(self, *, patience_s: float) -> bool:
        """Take no more work and wait for what runs; whether every thread has ended in time."""
        self.stop()
        pools = (
            self._fetching,
            self._comparing,
            self._registry,
            self._building,
            self._ledger,
            *self._left,
        )
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=pool not in self._left)
        give_up_at = time.monotonic() + patience_s
        for pool in pools:
            for thread in _threads(pool):
                thread.join(max(0.0, give_up_at - time.monotonic()))
        return not any(thread.is_alive() for pool in pools for thread in _threads(pool))


def _threads(pool: ThreadPoolExecutor) -> list[threading.Thread]:
    return list(pool._threads)  # noqa: SLF001 - the pool has no timed wait


async def _in(
    pool: ThreadPoolExecutor, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, lambda: work(*args, **kwargs))
