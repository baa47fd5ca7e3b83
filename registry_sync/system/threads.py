"""The threads of the control plane, which do its blocking work."""

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
_COMPARISONS = 10  # as many as there are activations under way at most: none waits for a thread
_REGISTRY_CALLS = 2
_BUILDS = 3
_NICER_BY = 10
"""As a worker that loads: a tenth of the share of a neighbour that wants the same core."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoppedError(Exception):
    """Aborts a fetch: the control plane ends, or the result is no longer needed."""


class Threads:
    """Five bounded pools, so that slow work in one delays no other. `close` ends them.

    The pools that move or build bytes run at a lower priority than the workers.
    """

    def __init__(self) -> None:
        self._fetching = ThreadPoolExecutor(_FETCHES, "fetch", _lower_priority)
        self._comparing = ThreadPoolExecutor(_COMPARISONS, "compare", _lower_priority)
        self._registry = ThreadPoolExecutor(_REGISTRY_CALLS, "registry")
        self._building = ThreadPoolExecutor(_BUILDS, "build", _lower_priority)
        self._ledger = ThreadPoolExecutor(1, "ledger")
        self._left: list[ThreadPoolExecutor] = []
        self._stopping = threading.Event()

    async def fetching(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool that fetches artifacts."""
        return await _in(self._fetching, work, *args, **kwargs)

    async def comparing(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool that verifies artifacts again before an activation."""
        return await _in(self._comparing, work, *args, **kwargs)

    async def registry(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool that calls the registry."""
        return await _in(self._registry, work, *args, **kwargs)

    async def building(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` in the pool that builds environments, which may take many minutes."""
        return await _in(self._building, work, *args, **kwargs)

    async def ledger(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``work`` on the ledger's thread, in order."""
        return await _in(self._ledger, work, *args, **kwargs)

    def leave_ledger(self, at_last: Callable[[], None]) -> None:
        """Use a new thread for the ledger, because a call on this one does not return.

        Args:
            at_last: Called on the old thread once it is free again.
        """
        self._ledger.submit(at_last)
        self._ledger.shutdown(wait=False)
        self._left.append(self._ledger)
        self._ledger = ThreadPoolExecutor(1, "ledger")

    def left_by_ledger(self) -> int:
        """Return how many abandoned threads of the ledger are alive."""
        self._left = [pool for pool in self._left if any(one.is_alive() for one in _threads(pool))]
        return len(self._left)

    def check_stopping(self, _done: int = 0, _total: int | None = None) -> None:
        """Abort the calling fetch if the control plane ends; used as ``on_progress``.

        Raises:
            StoppedError: The control plane ends.
        """
        if self._stopping.is_set():
            raise StoppedError

    def stop(self) -> None:
        """Abort the running fetches; their threads end at the next check."""
        self._stopping.set()

    def close(self, *, patience_s: float) -> bool:
        """Take no more work and wait; return True if every thread has ended in time."""
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


def _lower_priority() -> None:
    """Lower the priority of this thread and of what it starts, for good."""
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, nice + _NICER_BY)  # of this thread, on Linux


def _threads(pool: ThreadPoolExecutor) -> list[threading.Thread]:
    return list(pool._threads)  # noqa: SLF001 - the pool has no timed wait


async def _in(
    pool: ThreadPoolExecutor, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, lambda: work(*args, **kwargs))
