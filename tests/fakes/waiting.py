"""Wait for a condition in the event loop."""

import asyncio
from collections.abc import Callable

Look = Callable[[], object]


async def becomes(look: Look, what: str, *, patience_s: float = 20.0) -> None:
    """Wait until ``look`` is truthy."""
    try:
        async with asyncio.timeout(patience_s):
            while not look():  # noqa: ASYNC110 - any condition, not an event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it never came true: {what}") from None
