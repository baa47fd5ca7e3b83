"""When things are done: APScheduler jobs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

_JITTER_SHARE = 0.1
_log = structlog.get_logger("registry_sync.schedule")


class Schedule:
    """Polls and sweeps, one of each at a time. Event loop only.

    APScheduler cancels coroutine jobs without waiting for them, so they run as tasks of our own,
    which `close` awaits.
    """

    def __init__(
        self,
        *,
        poll: Callable[[], Awaitable[None]],
        sweep: Callable[[], Awaitable[None]],
        poll_interval_s: float,
        sweep_interval_s: float,
    ) -> None:
        """Store. Intervals in seconds."""
        self._poll = poll
        self._sweep = sweep
        self._poll_interval_s = poll_interval_s
        self._sweep_interval_s = sweep_interval_s
        self._scheduler: Any = None
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Start: the first poll at once, the first sweep after its interval."""
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._add("poll", self._poll_now, self._poll_interval_s, at_once=True)
        self._add("sweep", self._sweep_now, self._sweep_interval_s, at_once=False)
        self._scheduler.start()

    def _add(
        self,
        name: str,
        job: Callable[[], Coroutine[Any, Any, None]],
        interval_s: float,
        *,
        at_once: bool,
    ) -> None:
        options = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(
            job,
            "interval",
            seconds=interval_s,
            jitter=interval_s * _JITTER_SHARE,
            id=name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
            **options,
        )

    async def _poll_now(self) -> None:
        self._begin("poll", self._poll)

    async def _sweep_now(self) -> None:
        self._begin("sweep", self._sweep)

    def _begin(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Start a job as a task, unless it runs."""
        if name not in self._running:
            task = asyncio.get_running_loop().create_task(self._guard(name, job))
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))

    async def _guard(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception:  # noqa: BLE001 - a job's fault must not end the schedule
            _log.exception(f"{name}.failed")

    async def close(self) -> None:
        """Schedule no more, and end what runs."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
