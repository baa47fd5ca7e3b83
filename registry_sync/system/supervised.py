"""Loops of this process that never return, and what becomes of it when one does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


def is_being_cancelled() -> bool:
    """Whether this task is told to end: else what it waited for was cancelled by something else."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def without_end(component: str, run: Callable[[], Awaitable[object]]) -> None:
    """Run a loop that never returns.

    Raises:
        RuntimeError: It did, or was cancelled by something else than the end of this task: the
            process is to end with an error, and to be started again.
    """
    try:
        await run()
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise RuntimeError(f"{component} was cancelled; start the control plane again") from error
    raise RuntimeError(f"{component} has ended; start the control plane again")
