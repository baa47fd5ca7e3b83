"""Wait for a condition instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 90.0
"""How long a condition may take before the test gives up: generous, for two slow cores."""
LOOK_EVERY_S = 0.1


async def eventually(
    look: Callable[[], Awaitable[T | None]],
    what: str,
    *,
    patience_s: float = PATIENCE_S,
    look_every_s: float = LOOK_EVERY_S,
) -> T:
    """Return the first truthy answer of ``look``; fail, naming ``what``, when patience ends."""
    give_up_at = time.monotonic() + patience_s
    answer: T | None = None
    while time.monotonic() < give_up_at:
        answer = await look()
        if answer:
            return answer
        await asyncio.sleep(look_every_s)
    raise AssertionError(f"in {patience_s:g} s it never came true: {what}; last seen: {answer!r}")


async def eventually_true(
    look: Callable[[], T | None], what: str, *, patience_s: float = PATIENCE_S
) -> T:
    """`eventually` for a ``look`` that does not wait for anything."""

    async def now() -> T | None:
        return look()

    return await eventually(now, what, patience_s=patience_s)


def until(look: Callable[[], T | None], what: str, *, patience_s: float = PATIENCE_S) -> T:
    """`eventually_true` outside an event loop: set-up and teardown."""
    give_up_at = time.monotonic() + patience_s
    while time.monotonic() < give_up_at:
        answer = look()
        if answer:
            return answer
        time.sleep(LOOK_EVERY_S)
    raise AssertionError(f"in {patience_s:g} s it never came true: {what}")
