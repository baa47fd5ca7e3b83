"""Loops that run as long as the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


def is_being_cancelled() -> bool:
    """Whether this task is being cancelled, rather than only what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def run_forever(component: str, run: Callable[[], Awaitable[object]]) -> None:
    """Run a loop that never returns.

    Raises:
        RuntimeError: The loop returned, or was cancelled without this task: the process must end
            with an error, and be restarted.
    """
    try:
        await run()
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise RuntimeError(f"{component} was cancelled; start the control plane again") from error
    raise RuntimeError(f"{component} has ended; start the control plane again")
