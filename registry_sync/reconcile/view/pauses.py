"""Work on many models, a few at a time, so that others have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

_MODELS_AT_A_TURN = 20
"""Of which one takes a few tenths of a millisecond."""


async def with_pauses(models: Iterable[str]) -> AsyncIterator[str]:
    """Give the models one by one; let others have their turn between a few."""
    for number, model in enumerate(models, start=1):
        yield model
        if number % _MODELS_AT_A_TURN == 0:
            await asyncio.sleep(0)
