"""What the ledger has not taken yet: decisions about holds and the freeze, and aliases that moved.

All of it counts. It waits in the node's own file too, so that a restart loses nothing, and is
recorded in its order when the ledger answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import structlog

from registry_sync.domain import Activation, LedgerView, Standing, StandingChange
from registry_sync.errors import LedgerError
from registry_sync.ledger.bounded_calls import Patience
from registry_sync.ledger.holds_file import DamagedHoldsError, HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.system import Threads

_MOST_ACTIVATIONS = 16_384
"""Three of each of 5,000 models: some 9 MB of the node's file."""
_MOVES_AT_ONCE = 256
"""In one transaction: a pass decides nothing while it waits for them."""
_FILE_LIMIT_S = 5.0
_QUICK_S = 0.1
_MOVES_REST_FOR = 20
"""Moves that wait alone are written to the file for a twentieth of the time at most: it is written
as a whole, each time, and a move that a killed process has not written is adopted by the next."""
_T = TypeVar("_T")
_Newest = Mapping[str, Mapping[tuple[str, str], Activation]]
"""By model, and by alias of it."""
_log = structlog.get_logger("registry_sync.ledger.backlog")


class Backlog:
    """Keeps what waits for the ledger. Event loop only."""

    def __init__(
        self,
        ledger: Ledger,
        patience: Patience,
        threads: Threads,
        holds_file: HoldsFile | None,
        *,
        on_recorded: Callable[[StandingChange], None],
    ) -> None:
        """Store. ``on_recorded`` is told of each decision that the ledger has taken."""
        self._ledger = ledger
        self._patience = patience
        self._threads = threads
        self._holds_file = holds_file
        self._on_recorded = on_recorded
        self._changes: list[StandingChange] = []
        self._activations: list[Activation] = []
        self._newest: _Newest | None = None  # of the activations; None: they have changed
        self._left_out = 0
        self._untried: list[StandingChange] = []
        self._in_file: tuple[list[StandingChange], list[Activation]] = ([], [])
        self._recalled = holds_file is None
        self._recording = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._moves_rest_until = 0.0
        self._refusal: str | None = None

    def decided(self, change: StandingChange) -> None:
        """Take a decision that is in force."""
        self._changes.append(change)
        self._untried.append(change)

    def moved(self, activation: Activation) -> None:
        """Take a move of an alias; of very many, the newest wait, and the others are counted."""
        self._activations.append(activation)
        self._bound()

    def _bound(self) -> None:
        beyond = max(0, len(self._activations) - _MOST_ACTIVATIONS)
        del self._activations[:beyond]
        self._newest = None
        if beyond and not self._left_out:
            _log.error("backlog.moves_left_out", moves=beyond)
        self._left_out += beyond

    def on(self, view: LedgerView, model: str | None = None) -> LedgerView:
        """Return what counts beyond what the ledger has taken, of one model or, with None, of all.

        A freeze counts for every model.
        """
        for change in self._changes:
            if model is None or change.model in (None, model):
                view = view.with_change(change)
        if self._newest is None:
            self._newest = _newest(self._activations)
        of = self._newest.values() if model is None else [self._newest.get(model, {})]
        news = {alias: moved for found in of for alias, moved in found.items()}
        return replace(view, last_active={**view.last_active, **news}) if news else view

    def told(self) -> str | None:
        """Say what waits, and where, or return None if nothing does."""
        counts = (("decision", len(self._changes)), ("move", len(self._activations)))
        waiting = " and ".join(_counted(count, what) for what, count in counts if count)
        if not waiting:
            return None
        lost = f"; of earlier moves, {self._left_out} are left out" if self._left_out else ""
        return f"the ledger has not recorded {waiting}: {self._where('all of that')}{lost}"

    def why_unrecorded(self, change: StandingChange, trouble: str | None) -> str | None:
        """Say why a decision is not recorded yet, and where it waits, or return None if it is."""
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
        """Take what an earlier process left in the node's file, once.

        Returns:
            Whether this call took it.

        Raises:
            LedgerError: The file cannot be read now, and decisions that are in force may stand in
                it. A damaged file raises nothing: another is made of what the ledger has.
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

    def _take(self, found: Standing) -> bool:
        if self._recalled:
            return False  # another call has, meanwhile
        self._recalled, self._refusal = True, None
        self._changes[:0] = found.changes
        self._activations[:0] = found.activations
        self._bound()
        self._in_file = (list(found.changes), list(found.activations))
        return True

    async def record(self) -> bool:
        """Have the ledger take the decisions that wait, and the oldest moves, in their order.

        Returns:
            Whether moves are left: a pass waits for no more than some of them.

        Raises:
            LedgerError: The ledger does not take them: they go on waiting.
        """
        async with self._recording:
            try:
                await self._record()
            except BaseException:  # of a call that is cancelled too: its thread may go on to write
                self.put_off()
                raise
        return bool(self._activations)

    def put_off(self) -> None:
        """Know that the ledger could not be used: what waits now is late when it can be."""
        self._untried.clear()

    async def _record(self) -> None:
        # Each goes by itself, wherever it stands by then: while the ledger takes one, what an
        # earlier process left may come in before it, and the oldest of many moves may go.
        while self._changes:
            change = self._changes[0]
            late = not _is_among(change, self._untried)
            await self._patience.ask(self._ledger.record, change, late=late)
            self._changes = [one for one in self._changes if one is not change]
            self._on_recorded(change)
            self._untried = [one for one in self._untried if one is not change]
        if self._activations:
            moves = self._activations[:_MOVES_AT_ONCE]
            await self._patience.ask(self._ledger.activated_late, moves)
            taken = set(map(id, moves))  # the oldest of many may have gone meanwhile
            self._activations = [one for one in self._activations if id(one) not in taken]
            self._newest = None
        if self._left_out and not self._activations:
            _log.error("backlog.moves_left_out", moves=self._left_out)
            self._left_out = 0

    async def keep(self) -> None:
        """Bring what waits to the node's file, or out of it, where that is news.

        Nothing is written before what an earlier process left there was read.
        """
        async with self._keeping:
            file, waiting = self._holds_file, (list(self._changes), list(self._activations))
            if file is None or not self._recalled or not self._is_due(*waiting):
                return
            began_at = time.monotonic()
            try:
                await self._with_file(lambda: file.keep(*waiting))
            except LedgerError as error:
                self._refusal = error.reason
                return
            finally:
                self._rest(time.monotonic() - began_at)
            self._in_file, self._refusal = waiting, None
        _log.info("backlog.written", decisions=len(waiting[0]), activations=len(waiting[1]))

    def _is_due(self, changes: list[StandingChange], activations: list[Activation]) -> bool:
        """Whether the file is to be written now."""
        if (changes, activations) == self._in_file:
            return False
        moves_alone = changes == self._in_file[0] and bool(activations)
        return not moves_alone or time.monotonic() >= self._moves_rest_until

    def _rest(self, took_s: float) -> None:
        rest_s = _MOVES_REST_FOR * took_s if took_s > _QUICK_S else 0.0
        self._moves_rest_until = time.monotonic() + rest_s

    async def _with_file(self, work: Callable[[], _T]) -> _T:
        """Read or write the node's file in the ledger's thread, within a limit.

        Raises:
            LedgerError: The file cannot be used, the disk does not answer, or there is no thread.
        """
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
    found: defaultdict[str, dict[tuple[str, str], Activation]] = defaultdict(dict)
    for one in activations:
        found[one.model][one.model, one.alias] = one
    return found


def _is_among(change: StandingChange, changes: Iterable[StandingChange]) -> bool:
    """Whether it is one of these itself: two decisions may be alike."""
    return any(one is change for one in changes)
