"""One prediction request on its way from the HTTP layer to a worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.contract import Selector
from gateway.routing import Route
from gateway.serving.admission import Slot
from gateway.serving.replica import WorkerReply


@dataclass(slots=True)
class Call:
    """One prediction request.

    Attributes:
        selector: The version's name, or None for the model's default.
        second_selector: The header's, if the path has one too. Both must agree.
        body: The caller's bytes, untouched.
        slot: The request's slot, shared by the worker that receives it.
        deadline: The caller's deadline (``CLOCK_MONOTONIC``, seconds), or None if it set none; then
            the model's time-out begins when a worker receives the request.
        route: The resolved version, set by the dispatcher. Errors name it even if the alias has
            moved by then.
        pending: The reply to come, set by `Dispatcher.begin`.
    """

    model: str
    selector: Selector | None
    second_selector: Selector | None
    protocol: str
    content_type: str
    content_encoding: str
    request_id: str
    body: bytes
    slot: Slot
    deadline: float | None = None
    probabilities: bool = False
    route: Route | None = None
    pending: asyncio.Future[WorkerReply] | None = None

    def leave(self) -> None:
        """Stop waiting for the reply; the worker skips the request if it has not begun."""
        if self.pending is not None:
            self.pending.cancel()
