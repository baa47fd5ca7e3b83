"""Cuts long work on the event loop into slices, so that other tasks run in between.

A thread would hold the interpreter's lock for milliseconds at a time, or for a whole call of a
library written in C or Rust.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")
_SLICE_S = 0.0005


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items one by one; let the event loop run twice per millisecond."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _SLICE_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
