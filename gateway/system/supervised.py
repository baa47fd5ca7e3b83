"""Tasks that must not end before the gateway does: what ends one is logged, and it begins again.

A supervising loop takes each round for itself, so that one odd worker costs a round. What comes
past that is a fault of the loop: `keep_running` is the one door through which it is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_PAUSE_S = 1.0
_log = structlog.get_logger("gateway.system.supervised")


async def keep_running(component: str, run: Callable[[], Awaitable[object]]) -> None:
    """Run a loop until it returns or this task is cancelled; when it raises, run it again.

    A loop that was cancelled by something else than the end of this task has raised, too.
    """
    task = asyncio.current_task()
    while True:
        try:
            await run()
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            _log.error("loop.cancelled", component=component)
        except Exception:  # noqa: BLE001  # an ExceptionGroup too: its loop is what is supervised
            _log.exception("loop.failed", component=component)
        else:
            return
        await asyncio.sleep(_PAUSE_S)
