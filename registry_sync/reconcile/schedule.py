"""Starts polls and sweeps, and a pass when a promotion window opens or closes.

APScheduler waits by the wall clock and ignores its jumps: a job would wait for as long as the clock
was set back. So every trigger here names a future time, which leaves no run to make up for, and a
guard compares the wall clock with the monotonic clock, and reschedules the jobs after a jump.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from registry_sync.domain import PromotionWindows, window_state
from registry_sync.system import is_being_cancelled

_JITTER_SHARE = 0.1
_GUARD_EVERY_S = 1.0
_JUMP_S = 0.1
"""More than a slewed clock gains between two checks of the guard."""
_OVERDUE = timedelta(seconds=5)
_JOB_DEFAULTS = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
"""A late job still runs, once; a run that is due while the job runs is skipped."""
_log = structlog.get_logger("registry_sync.reconcile.schedule")


class Schedule:
    """Runs polls, sweeps and looks, one of each at a time. Event loop only.

    ``look`` is called when a promotion window opens or closes. ``jitter`` returns numbers from 0 to
    1, ``clock`` epoch seconds.
    """

    def __init__(
        self,
        *,
        poll: Callable[[], Awaitable[None]],
        sweep: Callable[[], Awaitable[None]],
        look: Callable[[], None],
        windows: PromotionWindows,
        poll_interval_s: float,
        sweep_interval_s: float,
        jitter: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._poll = poll
        self._sweep = sweep
        self._look = look
        self._windows = windows
        self._poll_interval_s = poll_interval_s
        self._sweep_interval_s = sweep_interval_s
        self._jitter = jitter
        self._clock = clock
        self._scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=_JOB_DEFAULTS)
        self._running: set[asyncio.Task[None] | None] = set()

    async def run(self) -> None:
        """Run the jobs until cancelled, then end them. The first poll begins at once."""
        self._add("poll", self._poll, _Every(self._poll_interval_s, self._jitter), at_once=True)
        self._add("sweep", self._sweep, _Every(self._sweep_interval_s, self._jitter))
        if self._windows:
            self._add("look", self._look_once, _WindowChanges(self._windows))
        self._scheduler.start()
        try:
            await self._guard()
        finally:
            await self._close()

    def _add(
        self,
        name: str,
        job: Callable[[], Awaitable[None]],
        trigger: _Every | _WindowChanges,
        *,
        at_once: bool = False,
    ) -> None:
        now = self._now()
        first_at = now if at_once else trigger.get_next_fire_time(None, now)
        self._scheduler.add_job(
            self._run_job, trigger, id=name, args=(name, job), next_run_time=first_at
        )

    async def _run_job(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job once; its failure ends neither its next run nor the schedule."""
        task = asyncio.current_task()
        self._running.add(task)
        try:
            await job()
        except asyncio.CancelledError:
            if not is_being_cancelled():
                _log.error(f"{name}.cancelled")
        except Exception:  # noqa: BLE001 - the next run may succeed
            _log.exception(f"{name}.failed")
        finally:
            self._running.discard(task)

    async def _look_once(self) -> None:
        self._look()

    async def _guard(self) -> None:
        """Reschedule the jobs whenever the wall clock has jumped."""
        loop = asyncio.get_running_loop()
        ahead_s = self._clock() - loop.time()
        while True:
            await asyncio.sleep(min(_GUARD_EVERY_S, self._poll_interval_s))
            before_s, ahead_s = ahead_s, self._clock() - loop.time()
            if abs(ahead_s - before_s) > _JUMP_S:
                _log.warning("clock.jumped", seconds=round(ahead_s - before_s, 3))
                self._reschedule()
            elif self._is_overdue():
                self._scheduler.wakeup()

    def _reschedule(self) -> None:
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=job.trigger.after_jump(self._now()))

    def _is_overdue(self) -> bool:
        """Whether APScheduler has stopped waiting, as it does after a trigger's error."""
        due_at = min(job.next_run_time for job in self._scheduler.get_jobs())
        return bool(due_at < self._now() - _OVERDUE)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    async def _close(self) -> None:
        """Cancel the jobs and wait until they have ended, which APScheduler does not."""
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)  # the shutdown acts in the next iteration of the loop
        await asyncio.gather(*filter(None, self._running), return_exceptions=True)


class _Every(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires an interval after its job began last, by the monotonic clock."""

    def __init__(self, interval_s: float, jitter: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._jitter = jitter
        self._monotonic = asyncio.get_running_loop().time
        self._due_at = self._monotonic()

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        wait_s = self._interval_s * (1.0 + _JITTER_SHARE * (2.0 * self._jitter() - 1.0))
        self._due_at = self._monotonic() + wait_s
        return now + timedelta(seconds=wait_s)

    def after_jump(self, now: datetime) -> datetime:
        """Return the job's next time, by a clock that shows ``now``."""
        return now + timedelta(seconds=max(0.0, self._due_at - self._monotonic()))


class _WindowChanges(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires when a promotion window opens or closes; a jump of the clock may have done either."""

    def __init__(self, windows: PromotionWindows) -> None:
        self._windows = windows

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime | None:
        return window_state(self._windows, now.timestamp()).until

    def after_jump(self, now: datetime) -> datetime:
        """Return the job's next time, by a clock that shows ``now``."""
        return now
