"""The models to decide about, and the passes that decide. Event loop only.

The one way in which collaborators have the loop decide again: none of them knows the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet


class Changes:
    """Collects the models of which something has changed until a pass takes them."""

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._everything = True
        self._awake = asyncio.Event()
        self._decided = asyncio.Event()
        self._in_pass = False
        self._planning: frozenset[str] = frozenset()

    def note(self, models: AbstractSet[str] | None) -> None:
        """Have some models decided about again, now, or with None all."""
        if models is None:
            self._everything = True
        else:
            self._models |= models
        self._awake.set()

    def wake(self) -> None:
        """Have everything decided about again, now."""
        self.note(None)

    def is_undecided(self, model: str) -> bool:
        """Whether a change of a model is not decided on yet."""
        return self._everything or model in self._models or model in self._planning

    async def next_decision(self) -> None:
        """Wait until a pass that begins now, or later, is over."""
        if self._in_pass:
            await self._decided.wait()  # that one began before
        self._awake.set()
        await self._decided.wait()

    # --- for the loop -----------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Note that a pass begins, which decides on what is noted until then."""
        self._awake.clear()
        self._in_pass = True

    def end_pass(self) -> None:
        """Note that a pass is over."""
        self._in_pass = False
        decided, self._decided = self._decided, asyncio.Event()
        decided.set()

    async def wait(self, longest_s: float) -> None:
        """Wait until something is noted, or so long."""
        try:
            async with asyncio.timeout(longest_s):
                await self._awake.wait()
        except TimeoutError:
            return

    def add(self, models: AbstractSet[str]) -> None:
        """Have these models decided about, too, by the pass that runs or the next one."""
        self._models |= models

    def take(self, known: Callable[[], AbstractSet[str]], *, everything: bool) -> frozenset[str]:
        """Return the models to decide about; with ``everything``, or where noted so, all known."""
        if self._everything or everything:
            self._everything = False
            self._models |= known()
        self._planning, self._models = frozenset(self._models), set()
        return self._planning

    def planned(self) -> None:
        """Note that the models that were taken are decided about."""
        self._planning = frozenset()

    def unchanged(self, models: frozenset[str]) -> frozenset[str]:
        """Return those models of which nothing has changed since they were taken."""
        return frozenset() if self._everything else models - self._models

    @property
    def everything(self) -> bool:
        """Whether all models are to be decided about."""
        return self._everything
