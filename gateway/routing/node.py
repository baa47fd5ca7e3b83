"""This node's state as everybody sees it: the current table, what is wanted, what has happened.

One writer per fact; every change gets a sequence number and wakes whoever waits. Event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Generic, NamedTuple, TypeVar

from gateway.contract import DamagedCopy, Event, StageOutcome, Unwanted, Wanted
from gateway.errors import GatewayError
from gateway.routing.route_table import AliasKey, RouteTable

CONTROL_PLANE_SILENT_S = 15.0
_MAX_WANTED = 16_384
MOST_EVENTS = 1024
"""Outcomes that wait for an acknowledgement: a control plane has a few stages under way. It finds
out anew what it is not told, after the time limit of its stage."""
_MAX_DAMAGED = 256
_MET_REMEMBERED = 16
_PACE_S = 1.0
_LONGEST_QUEUE_S = 600.0
_MAX_MOVES = 4096
"""Aliases that moved, and wishes, of the last: who has an older state is told the whole one."""
_K = TypeVar("_K")


class WantedVersion(NamedTuple):
    """What a caller waits for: a version, or an alias that is to mean it."""

    model: str
    version: int
    alias: str | None


class _Moves(Generic[_K]):
    """What has changed lately, by its number; of no more than a bounded number."""

    def __init__(self, seq: int) -> None:
        self._since = seq
        self._moves: deque[tuple[int, _K]] = deque()

    def note(self, seq: int, keys: Iterable[_K]) -> None:
        self._moves.extend((seq, key) for key in keys)
        while len(self._moves) > _MAX_MOVES:
            self._since = self._moves.popleft()[0]

    def after(self, seq: int) -> frozenset[_K] | None:
        """Return what has changed after a number; None: that is not known any more."""
        if seq < self._since:
            return None
        # The newest are at the end, and nearly always few of them are asked for.
        keys = set()
        for at, key in reversed(self._moves):
            if at <= seq:
                break
            keys.add(key)
        return frozenset(keys)


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
        self._wanted: dict[WantedVersion, float] = {}
        self._wanted_of: dict[str, set[WantedVersion]] = {}
        self._damaged: dict[str, DamagedCopy] = {}
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._moves = _Moves[AliasKey](self.seq)
        self._wishes = _Moves[WantedVersion](self.seq)
        self._met_at: deque[float] = deque(maxlen=_MET_REMEMBERED)
        self._change = asyncio.Event()
        self._turn = asyncio.Event()

    @property
    def table(self) -> RouteTable:
        """The snapshot that requests resolve on."""
        return self._table

    def replace(
        self,
        table: RouteTable,
        moved: Iterable[AliasKey] | None = None,
        *,
        news: bool = True,
        models: Collection[str] | None = None,
    ) -> None:
        """Put the next snapshot in place: the one step in which routing changes.

        Args:
            table: The snapshot.
            moved: The aliases that it has otherwise than the one before; None: to be compared.
            news: Whether the control plane is to hear of it: not of what it has just sent itself.
            models: Those that it has otherwise than the one before; None: any may be.
        """
        moved = tuple(_differences(self._table, table) if moved is None else moved)
        self._table = table
        of = self._wanted_of.keys() if models is None else models
        met = [wish for one in of for wish in self._wanted_of.get(one, ()) if _is_met(table, *wish)]
        if news or moved or met:
            for wish in met:
                self._forget(wish)
            self._note_met(len(met), is_last=not self._wanted)
            self.changed(moved, met)
        else:
            self._wake_callers()

    def _note_met(self, count: int, *, is_last: bool) -> None:
        """Remember when wishes were met; a queue that has ended says nothing of the next one."""
        self._met_at.extend([self._monotonic()] * count)
        if is_last and not count:
            self._met_at.clear()

    def changed(self, moved: Iterable[AliasKey] = (), wishes: Iterable[WantedVersion] = ()) -> None:
        """Give the state a new number and wake everybody who waits for a change.

        Args:
            moved: The aliases that moved by it.
            wishes: What is wanted by it, or no more.
        """
        self.seq += 1
        self._moves.note(self.seq, moved)
        self._wishes.note(self.seq, wishes)
        waiting, self._change = self._change, asyncio.Event()
        waiting.set()
        self._wake_callers()

    def _wake_callers(self) -> None:
        turning, self._turn = self._turn, asyncio.Event()
        turning.set()

    async def next_change(self) -> None:
        """Wait for the next news for the control plane, whatever it is."""
        await self._change.wait()

    async def next_table(self) -> None:
        """Wait for the next snapshot, or any other change."""
        await self._turn.wait()

    def moved_after(self, seq: int) -> frozenset[AliasKey] | None:
        """Return the aliases that moved after a state; None: that is not known any more."""
        return self._moves.after(seq) if seq <= self.seq else None

    # --- versions that callers wait for -----------------------------------------------------------

    def want(self, model: str, version: int, alias: str | None = None) -> None:
        """Ask the control plane for a version, or for an alias at it, before all others.

        Bounded: what is beyond it comes in its usual turn.
        """
        wish = WantedVersion(model, version, alias)
        if wish not in self._wanted and len(self._wanted) < _MAX_WANTED:
            self._wanted[wish] = self.clock()
            self._wanted_of.setdefault(model, set()).add(wish)
            self.changed(wishes=(wish,))

    def wanted(self) -> list[Wanted]:
        """Return what is wanted, oldest first."""
        return self.wanted_of(self._wanted)

    def wanted_of(self, wishes: Iterable[WantedVersion]) -> list[Wanted]:
        """Return those of some wishes that are wanted."""
        return [
            Wanted(model=wish.model, version=wish.version, since=since, alias=wish.alias)
            for wish in wishes
            if (since := self._wanted.get(wish)) is not None
        ]

    def unwanted_of(self, wishes: Iterable[WantedVersion]) -> list[Unwanted]:
        """Return those of some wishes that are wanted no more."""
        return [
            Unwanted(model=wish.model, version=wish.version, alias=wish.alias)
            for wish in wishes
            if wish not in self._wanted
        ]

    def wishes_after(self, seq: int) -> frozenset[WantedVersion] | None:
        """Return the wishes that came or went after a state; None: that is not known any more."""
        return self._wishes.after(seq) if seq <= self.seq else None

    def queue_s(self) -> float:
        """Return in how many seconds one more wish would be met, by the pace of the last ones.

        What is wanted already goes first. Where no pace is known, each takes a moment.
        """
        met = self._met_at
        pace_s = (met[-1] - met[0]) / (len(met) - 1) if len(met) > 1 else _PACE_S
        return min(_LONGEST_QUEUE_S, (len(self._wanted) + 1) * pace_s)

    def unwant(self, model: str, version: int, alias: str | None = None) -> None:
        """No caller waits for this any more."""
        wish = WantedVersion(model, version, alias)
        if wish in self._wanted:
            self._forget(wish)
            self.changed(wishes=(wish,))

    def _forget(self, wish: WantedVersion) -> None:
        del self._wanted[wish]
        of_model = self._wanted_of[wish.model]
        of_model.discard(wish)
        if not of_model:
            del self._wanted_of[wish.model]

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
        if self._damaged.pop(digest, None) is not None:
            self.changed()

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


def _differences(before: RouteTable, after: RouteTable) -> Iterable[AliasKey]:
    if before.active is after.active:
        return ()
    keys = before.active.keys() | after.active.keys()
    return (key for key in keys if before.active.get(key) != after.active.get(key))


def _is_met(table: RouteTable, model: str, version: int, alias: str | None) -> bool:
    """Whether a caller has what it waits for: the alias is active, or the bytes are here."""
    if alias is not None:
        return (model, alias) in table.active
    try:
        return table.version(model, version).digest is not None
    except GatewayError:
        return False  # the catalogue lists it no more: its callers are told so
