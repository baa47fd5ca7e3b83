"""This node's state as everybody sees it: the current table, what is wanted, what has happened.

One writer per fact; every change gets a sequence number and wakes whoever waits. Event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from gateway.control_contract import DamagedCopy, Event, StageOutcome, Wanted
from gateway.errors import GatewayError
from gateway.routing import RouteTable

CONTROL_PLANE_SILENT_S = 15.0
_MAX_WANTED = 1024
_MAX_EVENTS = 1024
_MAX_DAMAGED = 256


class Node:
    """The current snapshot, and the news about it."""

    def __init__(
        self,
        *,
        node_id: str,
        boot_id: str,
        table: RouteTable,
        libraries: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store. The control plane counts as heard from now on, so that it has time to come up.

        ``libraries`` is the mark of what is installed here; None: nobody has looked.
        """
        self.node_id = node_id
        self.boot_id = boot_id
        self.libraries = libraries
        self.clock = clock
        # Numbers grow over restarts too, so that an acknowledgement of an earlier boot's events
        # never swallows one of this boot's.
        self.seq = int(clock() * 1000)
        self.catalogue_writer: str | None = None
        self.catalogue_epoch: int | None = None
        self.warnings: dict[tuple[str, str], str] = {}
        """By model and alias: what is wrong with where it points, and stays so for now."""
        self._table = table
        self._monotonic = monotonic
        self._heard_at = monotonic()
        self._listening = 0
        self._wanted: dict[tuple[str, int], float] = {}
        self._damaged: dict[str, DamagedCopy] = {}
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._change = asyncio.Event()

    @property
    def table(self) -> RouteTable:
        """The snapshot that requests resolve on."""
        return self._table

    def replace(self, table: RouteTable) -> None:
        """Put the next snapshot in place: the one step in which routing changes."""
        self._table = table
        self._wanted = {
            (model, version): since
            for (model, version), since in self._wanted.items()
            if not _is_here(table, model, version)
        }
        self.changed()

    def changed(self) -> None:
        """Give the state a new number and wake everybody who waits for one."""
        self.seq += 1
        waiting, self._change = self._change, asyncio.Event()
        waiting.set()

    async def next_change(self) -> None:
        """Wait for the next change, whatever it is."""
        await self._change.wait()

    # --- versions whose bytes are wanted ----------------------------------------------------------

    def want(self, model: str, version: int) -> None:
        """Ask the control plane for a version's bytes. Bounded: beyond it, callers ask again."""
        if (model, version) not in self._wanted and len(self._wanted) < _MAX_WANTED:
            self._wanted[model, version] = self.clock()
            self.changed()

    def wanted(self) -> list[Wanted]:
        """Return what is wanted, oldest first."""
        return [
            Wanted(model=model, version=version, since=since)
            for (model, version), since in self._wanted.items()
        ]

    def unwant(self, model: str, version: int) -> None:
        """Nobody waits for this version any more."""
        if self._wanted.pop((model, version), None) is not None:
            self.changed()

    # --- copies that are damaged ------------------------------------------------------------------

    def copy_damaged(self, model: str, version: int, digest: str, reason: str) -> None:
        """Tell the control plane of a copy that cannot be loaded, until it is whole.

        Bounded: the oldest news is left out first, and told again with the next load that fails.
        """
        self._damaged.pop(digest, None)
        self._damaged[digest] = DamagedCopy(
            model=model, version=version, digest=digest, at=self.clock(), reason=reason
        )
        if len(self._damaged) > _MAX_DAMAGED:
            del self._damaged[next(iter(self._damaged))]
        self.changed()

    def copy_whole(self, digest: str) -> None:
        """A copy was loaded, or has come anew."""
        self._damaged.pop(digest, None)

    def damaged(self) -> list[DamagedCopy]:
        """Return the copies that are damaged as far as is known, the latest last."""
        return list(self._damaged.values())

    def is_damaged(self, digest: str) -> bool:
        """Whether a copy could not be loaded when that was tried last."""
        return digest in self._damaged

    def why_damaged(self, digest: str) -> str | None:
        """Say why a copy could not be loaded when that was tried last; None: it could."""
        found = self._damaged.get(digest)
        return f"this node's copy of its bytes is damaged: {found.reason}" if found else None

    # --- the control plane's presence -------------------------------------------------------------

    def listening(self, delta: int) -> None:
        """Count a long poll that began (+1) or ended (-1)."""
        self._listening += delta
        self._heard_at = self._monotonic()

    @property
    def control_plane_silent(self) -> bool:
        """Whether nothing has been heard of the control plane for 15 s."""
        silent_s = self._monotonic() - self._heard_at
        return self._listening == 0 and silent_s > CONTROL_PLANE_SILENT_S

    # --- events -----------------------------------------------------------------------------------

    def report(self, outcome: StageOutcome) -> None:
        """Tell the control plane, repeatedly until it has acknowledged."""
        self.changed()
        self._events.append(Event(seq=self.seq, at=self.clock(), stage=outcome))

    def events_after(self, seq: int) -> list[Event]:
        """Return the events above ``seq``; those up to it are acknowledged, and forgotten."""
        while self._events and self._events[0].seq <= seq:
            self._events.popleft()
        return list(self._events)


def _is_here(table: RouteTable, model: str, version: int) -> bool:
    try:
        return table.version(model, version).digest is not None
    except GatewayError:
        return False  # nobody lists it any more: who asks for it again is told so
