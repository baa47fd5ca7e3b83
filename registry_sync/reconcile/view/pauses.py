"""Iterates over many models without blocking the event loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

_MODELS_PER_PAUSE = 20
"""Each takes a few tenths of a millisecond."""


async def with_pauses(models: Iterable[str]) -> AsyncIterator[str]:
    """Yield the models one by one; let other tasks run after every few."""
    for number, model in enumerate(models, start=1):
        yield model
        if number % _MODELS_PER_PAUSE == 0:
            await asyncio.sleep(0)
