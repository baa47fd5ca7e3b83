"""Runs loops that must not end before the gateway: a loop that fails is logged and restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_PAUSE_S = 1.0
_log = structlog.get_logger("gateway.system.supervised")


async def keep_running(component: str, run: Callable[[], Awaitable[object]]) -> None:
    """Run a loop until it returns or this task is cancelled; if it raises, run it again.

    If the loop was cancelled, but not this task, it runs again too.
    """
    task = asyncio.current_task()
    while True:
        try:
            await run()
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            _log.error("loop.cancelled", component=component)
        except Exception:  # noqa: BLE001  # an ExceptionGroup too
            _log.exception("loop.failed", component=component)
        else:
            return
        await asyncio.sleep(_PAUSE_S)
