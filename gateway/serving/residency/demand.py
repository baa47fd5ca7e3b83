"""The demand for replicas of one version: callers, each waiting for a lease, and stages."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.contract import ArtifactRef
from gateway.serving.residency.replica_pool import Lease


@dataclass(slots=True, eq=False)
class Demand:
    """A version that callers or stages wait for, until it is ready or has failed.

    Attributes:
        since: Monotonic seconds when the first waiter joined.
        staged_at: Monotonic seconds when the last stage joined; it waits for room as callers do.
        paused_until: No replica starts before, since the last one failed or died.
        replicas: The number of replicas that are needed; callers need one.
        evicted_by: The setting whose limit evicted the version lately, or None.
        waiters: Callers, oldest first.
        stages: Each is done when all replicas are ready.
    """

    key: ArtifactRef
    since: float
    staged_at: float = 0.0
    paused_until: float = 0.0
    replicas: int = 1
    evicted_by: str | None = None
    waiters: deque[asyncio.Future[Lease]] = field(default_factory=deque)
    stages: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_awaited(self) -> bool:
        """Whether a caller or a stage still waits."""
        waits: tuple[asyncio.Future[Any], ...] = (*self.waiters, *self.stages)
        return any(not wait.done() for wait in waits)

    def serve(self, take: Callable[[], Lease]) -> None:
        """Give every caller a lease."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(take())

    def end_stages(self, error: Exception | None) -> None:
        """End the wait of every stage; callers go on waiting."""
        for stage in self.stages:
            if not stage.done():
                stage.set_exception(error) if error else stage.set_result(None)
        self.stages.clear()
        self.replicas = 1

    def refuse_callers(self, error: Exception) -> None:
        """Refuse every caller; stages go on waiting."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def leave(self, waiter: asyncio.Future[Lease]) -> None:
        """Remove a caller; release a lease that it got in the same step."""
        with contextlib.suppress(ValueError):
            self.waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().release()
