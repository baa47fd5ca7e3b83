"""Who waits in the resident set: callers with their leases to come, and stages."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.contract import ReplicaKey
from gateway.serving.residency.lease import Lease


@dataclass(slots=True, eq=False)
class Demand:
    """A version that somebody waits for, until it is up or cannot be.

    Attributes:
        since: Monotonic seconds when the first one began to wait.
        staged_at: When the last stage did; it looks for room no longer than callers do.
        paused_until: Its last replica failed or died; no replica starts before.
        replicas: How many workers it takes; callers need one.
        waiters: Callers, oldest first.
        stages: Done when all of the workers are ready.
    """

    key: ReplicaKey
    since: float
    staged_at: float = 0.0
    paused_until: float = 0.0
    replicas: int = 1
    waiters: deque[asyncio.Future[Lease]] = field(default_factory=deque)
    stages: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_awaited(self) -> bool:
        """Whether anybody is there to be told."""
        callers = any(not waiter.done() for waiter in self.waiters)
        return callers or any(not stage.done() for stage in self.stages)

    def serve(self, take: Callable[[], Lease]) -> None:
        """Give every caller a lease."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(take())

    def end(self, error: Exception | None) -> None:
        """End every wait with an error, or with success: every caller has its lease by then."""
        self.end_stages(error)
        if error is not None:
            self.refuse_callers(error)

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
        """Stop waiting; a lease that came in that very moment is given back."""
        with contextlib.suppress(ValueError):
            self.waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().release()
