"""Long work on the event loop in slices, between which everybody else has a turn.

A thread would not do: it holds the interpreter's lock for milliseconds at a time, or, inside one
call of a library written in C or Rust, for as long as that takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")
_SLICE_S = 0.0005


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Give the items one by one; let the event loop turn twice in a millisecond."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _SLICE_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
