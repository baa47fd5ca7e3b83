"""A request inside a worker, and its reply, as the parent sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class WorkerReply(NamedTuple):
    """A finished body, and the worker's measurements in seconds."""

    body: bytes
    content_type: str
    rows: int
    queued_s: float
    predict_s: float
    batch_rows: int


class PendingReply(asyncio.Future[WorkerReply]):
    """A reply to come. Cancelling it cancels the request, at no cost to other requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cancel: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self._cancel_request = cancel

    def cancel(self, msg: object = None) -> bool:
        """Cancel the reply and the request."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._cancel_request()
        return cancelled


@dataclass(slots=True)
class InFlight:
    """A request inside the worker.

    Attributes:
        began: The event loop's time of its submission.
        answer_type: The content type of its reply.
        due: The event loop's time of its next check: its time-out, then that of a stuck worker.
    """

    reply: asyncio.Future[WorkerReply]
    body_bytes: int
    on_done: Callable[[], None]
    timeout_s: float
    limit_s: float
    began: float
    due: float
    answer_type: str
