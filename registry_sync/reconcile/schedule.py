"""When things are done: polls and sweeps, by the monotonic clock.

A clock on the wall may be set back by hours, and who waits for a time of day then polls no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from registry_sync.system import is_being_cancelled

_JITTER_SHARE = 0.1
_log = structlog.get_logger("registry_sync.reconcile.schedule")


class Schedule:
    """Polls and sweeps, one of each at a time. Event loop only."""

    def __init__(
        self,
        *,
        poll: Callable[[], Awaitable[None]],
        sweep: Callable[[], Awaitable[None]],
        poll_interval_s: float,
        sweep_interval_s: float,
        jitter: Callable[[], float],
    ) -> None:
        """Store. Intervals in seconds; ``jitter`` gives numbers from 0 to 1."""
        self._poll = poll
        self._sweep = sweep
        self._poll_interval_s = poll_interval_s
        self._sweep_interval_s = sweep_interval_s
        self._jitter = jitter
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start: the first poll at once, the first sweep after its interval."""
        loop = asyncio.get_running_loop()
        self._running = [
            loop.create_task(self._repeat("poll", self._poll, self._poll_interval_s, 0.0)),
            loop.create_task(
                self._repeat("sweep", self._sweep, self._sweep_interval_s, self._sweep_interval_s)
            ),
        ]

    async def _repeat(
        self, name: str, job: Callable[[], Awaitable[None]], interval_s: float, first_in_s: float
    ) -> None:
        """Run a job every ``interval_s``, for ever; what it was too slow for is left out."""
        loop = asyncio.get_running_loop()
        due = loop.time() + first_in_s
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            try:
                await job()
            except asyncio.CancelledError:
                if is_being_cancelled():
                    raise
                _log.error(f"{name}.cancelled")  # by something else: the next one comes
            except Exception:  # noqa: BLE001 - a job's fault must not end the schedule
                _log.exception(f"{name}.failed")
            jittered_s = interval_s * (1.0 + _JITTER_SHARE * (2.0 * self._jitter() - 1.0))
            while due <= loop.time():
                due += jittered_s

    async def close(self) -> None:
        """Begin no more, and end what runs."""
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
