"""Decisions and moves that the ledger has not recorded yet.

All of them are in force. The holds file keeps them across a restart, and they are recorded in order
when the ledger answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from gateway.contract import AliasRef
from registry_sync.domain import Activation, HoldChange, HoldsSnapshot, LedgerView
from registry_sync.errors import LedgerError
from registry_sync.ledger.bounded_calls import BoundedCalls
from registry_sync.ledger.holds_file import DamagedHoldsError, HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.system import Threads

_MOST_ACTIVATIONS = 16_384
"""Three of each of 5,000 models: some 9 MB of the holds file."""
_MOVES_AT_ONCE = 256
"""Moves per transaction; a pass waits for one."""
_FILE_LIMIT_S = 5.0
_QUICK_S = 0.1
_PAUSE_FACTOR = 20
"""Writing moves takes at most a twentieth of the time, because each write is of the whole file. The
next process adopts a move that a killed process did not write."""
_T = TypeVar("_T")
_Newest = Mapping[str, Mapping[AliasRef, Activation]]
"""The last activation of each alias, by model."""
_log = structlog.get_logger("registry_sync.ledger.backlog")


@dataclass(eq=False, slots=True)
class _Waiting:
    """A decision that waits; ``late`` if an attempt to record it may have succeeded."""

    change: HoldChange
    late: bool = False


class Backlog:
    """Keeps unrecorded decisions and moves. Event loop only."""

    def __init__(
        self,
        ledger: Ledger,
        calls: BoundedCalls,
        threads: Threads,
        holds_file: HoldsFile | None,
        *,
        on_recorded: Callable[[HoldChange], None],
    ) -> None:
        """``on_recorded`` is called with each decision that the ledger has recorded."""
        self._ledger = ledger
        self._calls = calls
        self._threads = threads
        self._holds_file = holds_file
        self._on_recorded = on_recorded
        self._waiting: list[_Waiting] = []
        self._activations: list[Activation] = []
        self._newest: _Newest | None = None  # None after a change of the activations
        self._dropped = 0
        self._in_file: tuple[list[HoldChange], list[Activation]] = ([], [])
        self._recalled = holds_file is None
        self._recording = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._moves_paused_until = 0.0
        self._refusal: str | None = None

    def decided(self, change: HoldChange) -> None:
        """Add a decision."""
        self._waiting.append(_Waiting(change))

    @property
    def _changes(self) -> list[HoldChange]:
        return [one.change for one in self._waiting]

    def moved(self, activation: Activation) -> None:
        """Add a move of an alias; beyond a limit, the oldest are dropped and counted."""
        self._activations.append(activation)
        self._bound()

    def _bound(self) -> None:
        beyond = max(0, len(self._activations) - _MOST_ACTIVATIONS)
        del self._activations[:beyond]
        self._newest = None
        if beyond and not self._dropped:
            _log.error("backlog.moves_dropped", moves=beyond)
        self._dropped += beyond

    def apply(self, view: LedgerView, model: str | None = None) -> LedgerView:
        """Return a view, of one model or, with None, of all, with the backlog applied."""
        for change in self._changes:
            if model is None or change.model in (None, model):
                view = view.with_change(change)
        if self._newest is None:
            self._newest = _newest(self._activations)
        of = self._newest.values() if model is None else [self._newest.get(model, {})]
        news = {alias: moved for found in of for alias, moved in found.items()}
        return replace(view, last_active={**view.last_active, **news}) if news else view

    def summary(self) -> str | None:
        """Return how much is unrecorded, and where it waits, or None if nothing is."""
        counts = (("decision", len(self._waiting)), ("move", len(self._activations)))
        waiting = " and ".join(_counted(count, what) for what, count in counts if count)
        if not waiting:
            return None
        lost = f"; {self._dropped} earlier moves were dropped" if self._dropped else ""
        return f"the ledger has not recorded {waiting}: {self._where('all of that')}{lost}"

    def why_unrecorded(self, change: HoldChange, trouble: str | None) -> str | None:
        """Return why a decision is not recorded yet, and where it waits, or None if it is."""
        if change not in self._changes:
            return None
        why = trouble or "others are recorded first"
        return f"not recorded yet: {why}; {self._where('the decision')}"

    def _where(self, subject: str) -> str:
        if self._refusal is None and self._holds_file is not None:
            return f"{subject} waits in {self._holds_file.name} until the ledger answers"
        return (
            f"{subject} waits in memory, and is lost if the control plane ends before there is "
            f"room: {self._refusal or 'the node has no file for it'}"
        )

    async def recall(self) -> bool:
        """Read the backlog of an earlier process from the holds file, once.

        Returns whether this call read it.

        Raises:
            LedgerError: The file cannot be read now. A damaged file raises nothing: the ledger
                writes it anew.
        """
        if self._recalled or self._holds_file is None:
            return False
        try:
            found = await self._with_file(self._holds_file.read)
        except DamagedHoldsError as error:
            self._refusal = error.reason
            return False
        except LedgerError as error:
            self._refusal = error.reason
            raise
        return self._take(found)

    def _take(self, found: HoldsSnapshot) -> bool:
        if self._recalled:
            return False  # another call was faster
        self._recalled, self._refusal = True, None
        self._waiting[:0] = [_Waiting(one, late=True) for one in found.changes]
        self._activations[:0] = found.activations
        self._bound()
        self._in_file = (list(found.changes), list(found.activations))
        return True

    async def record(self) -> bool:
        """Record all decisions and the oldest moves, in order; return whether moves remain.

        Raises:
            LedgerError: The ledger failed; the backlog stays.
        """
        async with self._recording:
            try:
                await self._record()
            except BaseException:  # also if the call is cancelled: its thread may still write
                self.mark_late()
                raise
        return bool(self._activations)

    def mark_late(self) -> None:
        """Mark the decisions as late: an attempt to record them may have succeeded."""
        for one in self._waiting:
            one.late = True

    async def _record(self) -> None:
        # By identity: during a call, `recall` may insert decisions and `moved` may drop moves.
        while self._waiting:
            one = self._waiting[0]
            await self._calls.call(self._ledger.record, one.change, late=one.late)
            self._waiting.remove(one)
            self._on_recorded(one.change)
        if self._activations:
            moves = self._activations[:_MOVES_AT_ONCE]
            await self._calls.call(self._ledger.activated_late, moves)
            recorded = set(map(id, moves))
            self._activations = [each for each in self._activations if id(each) not in recorded]
            self._newest = None
        if self._dropped and not self._activations:
            _log.error("backlog.moves_dropped", moves=self._dropped)
            self._dropped = 0

    async def keep(self) -> None:
        """Write the backlog to the holds file, if it changed and the file has been read."""
        async with self._keeping:
            file, waiting = self._holds_file, (self._changes, list(self._activations))
            if file is None or not self._recalled or not self._is_due(*waiting):
                return
            began_at = time.monotonic()
            try:
                await self._with_file(lambda: file.keep(*waiting))
            except LedgerError as error:
                self._refusal = error.reason
                return
            finally:
                self._pause_moves(time.monotonic() - began_at)
            self._in_file, self._refusal = waiting, None
        _log.info("backlog.written", decisions=len(waiting[0]), activations=len(waiting[1]))

    def _is_due(self, changes: list[HoldChange], activations: list[Activation]) -> bool:
        """Whether to write the file now."""
        if (changes, activations) == self._in_file:
            return False
        moves_alone = changes == self._in_file[0] and bool(activations)
        return not moves_alone or time.monotonic() >= self._moves_paused_until

    def _pause_moves(self, took_s: float) -> None:
        pause_s = _PAUSE_FACTOR * took_s if took_s > _QUICK_S else 0.0
        self._moves_paused_until = time.monotonic() + pause_s

    async def _with_file(self, work: Callable[[], _T]) -> _T:
        """Use the holds file in the ledger's thread, within a time limit."""
        try:
            async with asyncio.timeout(_FILE_LIMIT_S):
                return await self._threads.ledger(work)
        except TimeoutError:
            reason = f"the disk did not answer within {_FILE_LIMIT_S:g} s"
            raise LedgerError(reason) from None
        except (OSError, RuntimeError, MemoryError) as error:
            raise LedgerError(f"the file cannot be used: {error}") from error


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _newest(activations: Iterable[Activation]) -> _Newest:
    """Return the last activation of each alias."""
    found: defaultdict[str, dict[AliasRef, Activation]] = defaultdict(dict)
    for one in activations:
        found[one.model][one.alias_ref] = one
    return found
