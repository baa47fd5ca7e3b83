"""The state of this node: the current table, wanted versions, damaged copies, events.

Every change gets a sequence number and wakes the tasks that wait for one. Event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Generic, NamedTuple, TypeVar

from gateway.contract import (
    AbandonedVersion,
    AliasRef,
    ArtifactRef,
    AwaitedVersion,
    DamagedCopy,
    Event,
    StageOutcome,
)
from gateway.errors import GatewayError
from gateway.routing.route_table import RouteTable

CONTROL_PLANE_SILENT_S = 15.0
_MAX_WANTED = 16_384
MOST_EVENTS = 1024
"""Outcomes that wait for an acknowledgement. If one is dropped, the stage of the control plane
times out."""
_MAX_DAMAGED = 256
_MET_REMEMBERED = 16
_UNKNOWN_INTERVAL_S = 1.0
_LONGEST_QUEUE_S = 600.0
_MAX_MOVES = 4096
"""Remembered moves and wanted versions; a caller with an older state gets a complete one."""
_K = TypeVar("_K")


class WantedVersion(NamedTuple):
    """A version that a caller waits for, or an alias that is to mean it."""

    model: str
    version: int
    alias: str | None


class _Moves(Generic[_K]):
    """The last changes with their numbers, bounded."""

    def __init__(self, seq: int) -> None:
        self._since = self._last = seq
        self._moves: deque[tuple[int, _K]] = deque()

    def record(self, seq: int, keys: Iterable[_K]) -> None:
        self._last = seq
        self._moves.extend((seq, key) for key in keys)
        while len(self._moves) > _MAX_MOVES:
            self._since = self._moves.popleft()[0]

    def after(self, seq: int) -> frozenset[_K] | None:
        """Return the keys that changed after a number, or None if they are not known."""
        if not self._since <= seq <= self._last:
            return None
        # From the newest: nearly always a few are enough.
        keys = set()
        for at, key in reversed(self._moves):
            if at <= seq:
                break
            keys.add(key)
        return frozenset(keys)


class Node:
    """The current table, and its changes.

    Until the control plane could have been heard, it does not count as silent.
    """

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
        self.node_id = node_id
        self.boot_id = boot_id
        self.libraries = libraries
        self.clock = clock
        # Numbers grow over restarts too, so that an old acknowledgement covers no new event.
        self.seq = int(clock() * 1000)
        self.catalogue_writer: str | None = None
        self.catalogue_epoch: int | None = None
        self.warnings: dict[AliasRef, str] = {}
        """By alias, the problem of the version that it means."""
        self._table = table
        self._monotonic = monotonic
        self.control_plane_heard = False
        """Whether a control plane has ever connected since the start."""
        self._heard_at = monotonic()
        self._listening = 0
        self._wanted: dict[WantedVersion, float] = {}
        self._wanted_of: dict[str, set[WantedVersion]] = {}
        self._damaged: dict[str, DamagedCopy] = {}
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.moves = _Moves[AliasRef](self.seq)
        """The moves of aliases."""
        self.wanted_moves = _Moves[WantedVersion](self.seq)
        """Versions that began or ceased to be wanted."""
        self._met_at: deque[float] = deque(maxlen=_MET_REMEMBERED)
        self._change = asyncio.Event()
        self._table_change = asyncio.Event()

    @property
    def table(self) -> RouteTable:
        """The table that requests resolve on."""
        return self._table

    def replace(
        self,
        table: RouteTable,
        moved: Iterable[AliasRef] | None = None,
        *,
        news: bool = True,
        models: Collection[str] | None = None,
    ) -> None:
        """Replace the table. Routing changes in this step only.

        Args:
            table: The next table.
            moved: The aliases that differ from the table before, or None to compare the tables.
            news: Whether to inform the control plane; not of a catalogue that it has sent.
            models: The models that differ, or None if any may differ.
        """
        moved = tuple(_differences(self._table, table) if moved is None else moved)
        self._table = table
        of = self._wanted_of.keys() if models is None else models
        met = [
            one for model in of for one in self._wanted_of.get(model, ()) if _is_met(table, *one)
        ]
        if news or moved or met:
            for one in met:
                self._remove_wanted(one)
            self._record_met(len(met), is_last=not self._wanted)
            self.changed(moved, met)
        else:
            self._wake_callers()

    def _record_met(self, count: int, *, is_last: bool) -> None:
        """Record when wanted versions came; an empty queue ends the measurement."""
        self._met_at.extend([self._monotonic()] * count)
        if is_last and not count:
            self._met_at.clear()

    def changed(self, moved: Iterable[AliasRef] = (), wanted: Iterable[WantedVersion] = ()) -> None:
        """Give the state a new number, and wake the tasks that wait for a change.

        Args:
            moved: The aliases that moved.
            wanted: The versions that began or ceased to be wanted.
        """
        self.seq += 1
        self.moves.record(self.seq, moved)
        self.wanted_moves.record(self.seq, wanted)
        waiting, self._change = self._change, asyncio.Event()
        waiting.set()
        self._wake_callers()

    def _wake_callers(self) -> None:
        waiting, self._table_change = self._table_change, asyncio.Event()
        waiting.set()

    async def next_change(self) -> None:
        """Wait for the next news for the control plane."""
        await self._change.wait()

    async def next_table(self) -> None:
        """Wait for the next table, or any other change."""
        await self._table_change.wait()

    # --- versions that callers wait for -----------------------------------------------------------

    def want(self, model: str, version: int, alias: str | None = None) -> None:
        """Record that a caller waits for a version, or for its alias; ignored beyond a bound."""
        wanted = WantedVersion(model, version, alias)
        if wanted not in self._wanted and len(self._wanted) < _MAX_WANTED:
            self._wanted[wanted] = self.clock()
            self._wanted_of.setdefault(model, set()).add(wanted)
            self.changed(wanted=(wanted,))

    def wanted(self, of: Iterable[WantedVersion] | None = None) -> list[AwaitedVersion]:
        """Return the wanted versions, oldest first; with ``of``, only those of them."""
        return [
            AwaitedVersion(model=one.model, version=one.version, since=since, alias=one.alias)
            for one in (self._wanted if of is None else of)
            if (since := self._wanted.get(one)) is not None
        ]

    def unwanted_of(self, versions: Iterable[WantedVersion]) -> list[AbandonedVersion]:
        """Return those of some versions that are no longer wanted."""
        return [
            AbandonedVersion(model=one.model, version=one.version, alias=one.alias)
            for one in versions
            if one not in self._wanted
        ]

    def queue_s(self) -> float:
        """Return the expected seconds until one more wanted version is met, by the last ones."""
        met = self._met_at
        interval_s = (met[-1] - met[0]) / (len(met) - 1) if len(met) > 1 else _UNKNOWN_INTERVAL_S
        return min(_LONGEST_QUEUE_S, (len(self._wanted) + 1) * interval_s)

    def unwant(self, model: str, version: int, alias: str | None = None) -> None:
        """Record that no caller waits for a version any longer."""
        wanted = WantedVersion(model, version, alias)
        if wanted in self._wanted:
            self._remove_wanted(wanted)
            self.changed(wanted=(wanted,))

    def _remove_wanted(self, wanted: WantedVersion) -> None:
        del self._wanted[wanted]
        of_model = self._wanted_of[wanted.model]
        of_model.discard(wanted)
        if not of_model:
            del self._wanted_of[wanted.model]

    # --- copies that are damaged ------------------------------------------------------------------

    def copy_damaged(self, ref: ArtifactRef, reason: str) -> None:
        """Report a copy that cannot be loaded, until it is whole.

        Beyond a bound the oldest report is dropped; the next load that fails repeats it.
        """
        self._damaged.pop(ref.digest, None)
        self._damaged[ref.digest] = DamagedCopy(**ref._asdict(), at=self.clock(), reason=reason)
        if len(self._damaged) > _MAX_DAMAGED:
            del self._damaged[next(iter(self._damaged))]
        self.changed()

    def copy_whole(self, digest: str) -> None:
        """End the report of a copy that was loaded, or fetched again."""
        if self._damaged.pop(digest, None) is not None:
            self.changed()

    def damaged(self) -> list[DamagedCopy]:
        """Return the damaged copies, the latest last."""
        return list(self._damaged.values())

    def why_damaged(self, digest: str) -> str | None:
        """Return why the last load found a copy damaged, or None if it did not."""
        found = self._damaged.get(digest)
        return f"this node's copy of its bytes is damaged: {found.reason}" if found else None

    # --- the control plane's presence -------------------------------------------------------------

    def listening(self, delta: int) -> None:
        """Count a long poll that began (+1) or ended (-1)."""
        self._listening += delta
        self._heard_at = self._monotonic()
        self.control_plane_heard = True

    @property
    def control_plane_silent(self) -> bool:
        """Whether the control plane has sent no request for 15 s, the first after the start."""
        silent_s = self._monotonic() - self._heard_at
        return self._listening == 0 and silent_s > CONTROL_PLANE_SILENT_S

    # --- events -----------------------------------------------------------------------------------

    def report(self, outcome: StageOutcome) -> None:
        """Report an outcome, repeatedly until the control plane has acknowledged it."""
        self.changed()
        self._events.append(Event(seq=self.seq, stage=outcome))

    def events_after(self, seq: int) -> list[Event]:
        """Return the events above ``seq``; those up to it are acknowledged, and dropped."""
        while self._events and self._events[0].seq <= seq:
            self._events.popleft()
        return list(self._events)


def _differences(before: RouteTable, after: RouteTable) -> Iterable[AliasRef]:
    if before.active is after.active:
        return ()
    keys = before.active.keys() | after.active.keys()
    return (key for key in keys if before.active.get(key) != after.active.get(key))


def _is_met(table: RouteTable, model: str, version: int, alias: str | None) -> bool:
    """Whether a wanted alias is active, or a wanted version's bytes are on the node."""
    if alias is not None:
        return AliasRef(model, alias) in table.active
    try:
        return table.version(model, version).digest is not None
    except GatewayError:
        return False  # no longer listed: its callers are refused
