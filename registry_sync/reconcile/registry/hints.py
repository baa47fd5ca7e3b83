"""Lists the registry soon after a hint that it may have changed.

One look runs at a time; all hints that arrive meanwhile cause one more. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from registry_sync.system import is_being_cancelled

_MAX_MODELS = 100
_LONGEST_PAUSE_S = 5.0
_log = structlog.get_logger("registry_sync.reconcile.registry.hints")

Look = Callable[[frozenset[str] | None, str], Awaitable[None]]
"""Lists these models, or all if None; the second argument is the initiator."""


class Hints:
    """The models with a hint that are not listed yet; too many of them count as all.

    ``look`` may fail: the next poll lists the registry anyway.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._models: set[str] = set()
        self._everything = False
        self._asked_by = ""
        self._looking: asyncio.Task[None] | None = None
        self._under_way = False
        self._closed = False

    @property
    def pending(self) -> bool:
        """Whether the look after a hint is still to begin or to end."""
        return self._under_way or self._everything or bool(self._models)

    def add(self, model: str | None, asked_by: str) -> None:
        """Have a model listed soon, or all if ``model`` is None. Returns at once."""
        if self._closed:
            return
        if model is None or len(self._models) >= _MAX_MODELS:
            self._everything = True
            self._models.clear()
        elif not self._everything:
            self._models.add(model)
        self._asked_by = asked_by
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_while_hinted())

    async def _look_while_hinted(self) -> None:
        """Look until no hint is left.

        A pause as long as the look leaves the registry half of its time, however many hints come.
        """
        loop = asyncio.get_running_loop()
        while self._everything or self._models:
            models = None if self._everything else frozenset(self._models)
            self._everything = False
            self._models.clear()
            began_at = loop.time()
            self._under_way = True
            try:
                await self._look(models, self._asked_by)
            except asyncio.CancelledError:
                if is_being_cancelled():
                    raise
                _log.error("hint.cancelled")  # not by `close`: the next hint is followed
            except Exception:  # noqa: BLE001 - the next look may succeed
                _log.exception("hint.failed")
            finally:
                self._under_way = False
            await asyncio.sleep(min(loop.time() - began_at, _LONGEST_PAUSE_S))
        self._looking = None  # not when the task is done: a hint in between would be lost

    async def close(self) -> None:
        """Ignore further hints, and cancel the look under way."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
