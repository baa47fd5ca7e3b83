"""The ledger as the spine sees it: the current view, kept fresh, and never in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

import structlog

from gateway.contract import ActiveAlias
from registry_sync.artifacts import StoredArtifact, pinned_version
from registry_sync.domain import (
    Activation,
    AskedBy,
    Aspired,
    Hold,
    LedgerView,
    PinnedVersion,
    Standing,
    StandingChange,
    Views,
    aspired_version,
    creation_of,
    creation_of_bytes,
    find,
    view_by_model,
    view_of_model,
)
from registry_sync.errors import LedgerError
from registry_sync.ledger.backlog import Backlog
from registry_sync.ledger.bounded_calls import Patience
from registry_sync.ledger.database import LedgerSetupError
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.system import Threads

_P = ParamSpec("_P")
_T = TypeVar("_T")

Change = Callable[[LedgerView], LedgerView]
"""What a write makes of the view."""

_MOST_READ_APART = 64
"""With more models written about, all are read: that is one question, and not many times slower."""
_log = structlog.get_logger("registry_sync.ledger.journal")


@dataclass(frozen=True, slots=True)
class _Decided:
    """A change that counts, of one model or, with None, of more."""

    of: str | None
    change: Change


class Journal:
    """Reads and writes the ledger from the event loop.

    A ledger that does not answer stops no serving, no promotion of what is known and no operator:
    the last view goes on counting, and what is decided, and what moves, waits for it in the node's
    own file. Where it has not answered since the start, the view is what the node itself remembers:
    pins and holds.

    Attributes:
        answered: Whether the ledger has been read since the start.
        trouble: Why the ledger could not be used last time; None: it could.
    """

    def __init__(
        self,
        ledger: Ledger,
        threads: Threads,
        holds_file: HoldsFile | None = None,
        *,
        on_news: Callable[[AbstractSet[str] | None], None] = lambda _: None,
    ) -> None:
        """Store.

        ``holds_file`` has a copy of what operators keep; ``on_news`` is called with the models of
        which something else counts than before, or with None: of any.
        """
        self._ledger = ledger
        self._threads = threads
        self._patience = Patience(ledger, threads)
        self._holds_file = holds_file
        self._on_news = on_news
        self._views = Views()
        self._stale = True
        self._stale_models: set[str] = set()
        self._told_of_holds = False
        # At the start too: a process that was killed may have made the ledger and not filled it.
        self._made = True
        # Decisions that were written since the last reading that succeeded began.
        self._unread: list[_Decided] = []
        self._assumed: list[_Decided] = []
        self._backlog = Backlog(
            ledger, self._patience, threads, holds_file, on_recorded=self._recorded
        )
        self.answered = False
        self.trouble: str | None = None

    @property
    def view(self) -> LedgerView:
        """What counts now, of all models."""
        return self._views.whole()

    def view_of(self, model: str) -> LedgerView:
        """Return what counts now of one model."""
        return self._views.of(model)

    def models(self) -> AbstractSet[str]:
        """Return the models of which something counts."""
        return self._views.models()

    def pin_of(self, creation: str) -> PinnedVersion | None:
        """Return what was accepted last for a creation, under any name; None: nothing was."""
        return self._views.pin_of(creation)

    async def open(self) -> None:
        """Open the ledger at the start of the process; one that does not answer may come later.

        Raises:
            LedgerSetupError: No waiting helps: this process must not begin.
        """
        try:
            await self._patience.ask(self._ledger.open)
        except LedgerSetupError:
            raise
        except LedgerError as error:
            self._failed(error)

    async def close(self) -> None:
        """Close the ledger."""
        await self._patience.close()

    async def refresh(self, artifacts: Iterable[StoredArtifact], listing: Aspired | None) -> bool:
        """Bring `view` up to date; a ledger that was lost is made anew and filled again.

        Of what was written about a few models, only these are read. A ledger that takes nothing, as
        a full one does, is read all the same: `trouble` says so, and what waits for it counts.

        Returns:
            Whether `view` is complete: else it may lack what has been written to the ledger.
        """
        try:
            await self._recall()
            await self._patience.ask(self._ensure)
            refusal = await self._fill(list(artifacts), listing) if self._made else None
            # Before anything is written: a refusal that takes long ends all questions for a while.
            await self._read()
            refusal = await self._record_backlog() or refusal
            await self._read()
        except LedgerError as error:
            self._stale = True
            self._failed(error)
            if not self.answered:
                await self._do_without(artifacts)
            return False
        finally:
            await self._backlog.keep()
        if refusal is None:
            self.trouble = None
        else:
            self._failed(refusal)
        return True

    async def _record_backlog(self) -> LedgerError | None:
        """Have the ledger take what waits for it; return why it does not, or None if it does."""
        try:
            if await self._backlog.record():
                self._on_news(frozenset())  # the next pass goes on
        except LedgerError as error:
            return error
        return None

    async def _recall(self) -> None:
        """Let count what an earlier process left in the node's file.

        Raises:
            LedgerError: The file cannot be read now.
        """
        if await self._backlog.recall():
            self._stale = True

    async def _read(self) -> None:
        """Read what was written since the last reading, if anything was.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        if self._stale or len(self._stale_models) > _MOST_READ_APART:
            await self._read_all()
        elif self._stale_models:
            await self._read_models()

    async def _read_all(self) -> None:
        self._stale = False  # before reading: what is written meanwhile is read again
        self._stale_models.clear()
        read = len(self._unread)
        view = await self._patience.ask(self._ledger.view)
        self._unread = self._unread[read:]
        self._tell(self._views.take(self._with_unread(view)))
        self.answered = True

    async def _read_models(self) -> None:
        models, self._stale_models = frozenset(self._stale_models), set()  # as above
        read = len(self._unread)
        view = await self._patience.ask(self._ledger.view_of, models)
        parts = view_by_model(view)
        self._unread = [
            one for at, one in enumerate(self._unread) if at >= read or one.of not in models
        ]
        news = {
            model
            for model in models
            if self._views.put(
                model,
                view_of_model(model, self._with_unread(parts.get(model, LedgerView()), model)),
            )
        }
        self._tell(news)

    def _ensure(self) -> None:
        """Make the ledger usable; in the ledger's thread.

        Noted here and not by who asked: that one may be cancelled while this runs, and others may
        ask meanwhile.
        """
        if self._ledger.ensure():
            self._made = True

    async def _fill(
        self, artifacts: list[StoredArtifact], listing: Aspired | None
    ) -> LedgerError | None:
        """Fill a ledger that was made anew; if that does not succeed, the next pass tries again.

        Returns:
            Why it does not take what it lacks, where it was filled before; None: it lacks nothing.

        Raises:
            LedgerError: It cannot be read, or is empty and takes nothing: what is not in it may
                have been accepted all the same.
        """
        self._made = False  # before: one that is lost meanwhile is filled once more
        filled = False
        try:
            refusal = await self._readopt(artifacts, listing)
            filled = refusal is None
        finally:
            if not filled:
                self._made = True
            self._stale = True
        return refusal

    async def _do_without(self, artifacts: Iterable[StoredArtifact]) -> None:
        """View what the node itself remembers, so that what is here goes on being offered.

        Without the holds, nothing: following the registry would undo what was rolled back.
        """
        try:
            standing = (
                await self._threads.ledger(self._holds_file.read)
                if self._holds_file
                else Standing()
            )
        except LedgerError as error:  # the ledger will say so too, once it answers
            if not self._told_of_holds:
                _log.error("holds.unreadable", reason=error.reason)
            self._told_of_holds = True
            return
        view = LedgerView(
            pins={(pin.model, pin.version): pin for pin in _pins(artifacts)},
            holds={(hold.model, hold.alias): hold for hold in standing.holds},
            freeze=standing.freeze,
        )
        self._tell(self._views.take(self._with_unread(view)))

    def _tell(self, news: AbstractSet[str] | None) -> None:
        if news is None or news:
            self._on_news(news)

    async def _readopt(
        self, artifacts: list[StoredArtifact], listing: Aspired | None
    ) -> LedgerError | None:
        """Fill a new ledger with what the store pinned; what is active comes from the node."""
        known = (await self._patience.ask(self._ledger.view)).pins
        missing = [pin for pin in _pins(artifacts) if (pin.model, pin.version) not in known]
        try:
            for pin in missing:
                await self._patience.ask(self._ledger.pin, pin)
            if listing is not None:
                await self._patience.ask(self._ledger.remember_listing, listing)
        except LedgerError as error:
            if not known:
                raise
            return error
        if missing:
            _log.info("ledger.pins_adopted", pins=len(missing))
        return None

    async def adopt(
        self,
        serves: Iterable[ActiveAlias],
        generation: int,
        busy: Callable[[ActiveAlias], bool],
    ) -> bool:
        """Record what the gateway serves and we did not know of.

        Only where `view` is up to date: what was recorded already would be recorded twice.

        Returns:
            Whether the ledger took that.
        """
        for active in serves:
            last = self.view_of(active.model).last_active.get((active.model, active.alias))
            known = last is not None and (last.version, last.digest, last.retired_at) == (
                active.version,
                active.digest,
                None,
            )
            if known or busy(active):
                continue
            _log.info(
                "activation.adopted",
                model=active.model,
                alias=active.alias,
                version=active.version,
            )
            hold = self._hold_on(active)
            asked_by = hold.asked_by if hold else AskedBy.ADOPTED
            pinned = hold is not None and hold.lasting
            moved = self._activation(active, asked_by, generation, pinned=pinned)
            if not await self.write(active.model, self._ledger.activated, moved):
                return False
        return True

    def _hold_on(self, active: ActiveAlias) -> Hold | None:
        """Return what holds an alias where it is: whoever wanted that asked for the move."""
        hold = self.view_of(active.model).holds.get((active.model, active.alias))
        target = (hold.target_version, hold.target_digest) if hold else None
        return hold if target == (active.version, active.digest) else None

    async def note_aspired(self, aspired: Aspired, model: str) -> bool:
        """Note where the registry points aliases of holds that were made while nobody knew.

        Such a hold ends when the registry moves the alias, and not because it is listed at last.

        Returns:
            Whether the ledger took that.
        """
        view = self.view_of(model)
        for hold in [one for one in view.holds.values() if one.aspired_version is None]:
            version = aspired_version(aspired, model, hold.alias)
            listed = find(aspired, model, version) if version is not None else None
            if version is None or hold.lasting:
                continue
            of = creation_of(listed, view) if listed else None
            noted = replace(hold, aspired_version=version, aspired_creation=of)
            if not await self.decide(
                model,
                partial(LedgerView.with_hold, hold=noted),
                self._ledger.note_aspired,
                *(hold, version, of),
            ):
                return False
        return True

    async def activated(
        self,
        active: ActiveAlias,
        asked_by: str,
        generation: int,
        *,
        durations_s: Mapping[str, float] | None = None,
        pinned: bool = False,
    ) -> None:
        """Record what an alias means now, as soon as the ledger takes it.

        Args:
            active: The alias.
            asked_by: Who wanted it.
            generation: Of the route table that first had it so.
            durations_s: Seconds by phase; None: unknown.
            pinned: Whether an operator pinned it there.
        """
        moved = self._activation(active, asked_by, generation, durations_s, pinned=pinned)
        if not await self.write(active.model, self._ledger.activated, moved):
            self._backlog.moved(moved)
            self._let_count(active.model, lambda view: view.with_activation(moved))

    def _activation(
        self,
        active: ActiveAlias,
        asked_by: str,
        generation: int,
        durations_s: Mapping[str, float] | None = None,
        *,
        pinned: bool,
    ) -> Activation:
        view = self.view_of(active.model)
        return Activation(
            model=active.model,
            alias=active.alias,
            version=active.version,
            digest=active.digest,
            previous_version=active.previous_version,
            previous_digest=active.previous_digest,
            asked_by=asked_by,
            at=active.since,
            generation=generation,
            durations_s=durations_s or {},
            pinned=pinned,
            creation=creation_of_bytes(view, active.model, active.version, active.digest),
        )

    # --- what operators decide --------------------------------------------------------------------

    async def carry_out(self, change: StandingChange) -> str | None:
        """Let a decision count from now on, and have the ledger take it.

        Returns:
            Why it is not recorded yet; None: it is.
        """
        self._backlog.decided(change)
        self._let_count(change.model, lambda view: view.with_change(change))
        unrecorded = await self._record(change)
        if unrecorded is not None:
            _log.warning("decision.not_recorded", what=change.what, reason=unrecorded)
        return unrecorded

    async def _record(self, change: StandingChange) -> str | None:
        try:
            with suppress(LedgerError):  # what an earlier process left is recorded behind it
                await self._recall()
            await self._patience.ask(self._ensure)
            await self._backlog.record()
        except LedgerError as error:
            self._failed(error)
        finally:  # of a call that is cancelled too
            self._read_again(change.model)
            await self._backlog.keep()
        return self._backlog.why_unrecorded(change, self.trouble)

    def _recorded(self, change: StandingChange) -> None:
        self._unread.append(_Decided(change.model, partial(LedgerView.with_change, change=change)))
        self._read_again(change.model)

    def backlog(self) -> str | None:
        """Say what the ledger has not taken yet, and where it waits, or return None."""
        return self._backlog.told()

    async def write(
        self, of: str | None, work: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs
    ) -> bool:
        """Write with a method of the ledger; whether it was written.

        ``of`` is the model that it is about; None: more than one.
        """
        try:
            return await self.note(work, *args, **kwargs)
        finally:  # of a call that is cancelled too: its thread may go on to write
            self._read_again(of)

    def _read_again(self, of: str | None) -> None:
        if of is None:
            self._stale = True
        else:
            self._stale_models.add(of)

    async def note(self, work: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Write what is no part of `view`, such as history; whether it was written."""
        try:
            await self._patience.ask(self._ensure)
            await self._patience.ask(work, *args, **kwargs)
        except LedgerError as error:
            self._failed(error)
            return False
        return True

    async def decide(
        self,
        of: str | None,
        change: Change,
        work: Callable[_P, object],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> bool:
        """Write what was decided of versions, or by rule; whether it was written.

        It counts at once, and goes on counting if the ledger cannot be read afterwards: what was
        acknowledged is in force. A ``work`` that returns False has changed nothing. ``of``: as of
        `write`.
        """
        changed = False

        def note(*args: _P.args, **kwargs: _P.kwargs) -> None:
            nonlocal changed
            changed = work(*args, **kwargs) is not False

        written = await self.write(of, note, *args, **kwargs)
        if written and changed:
            self._unread.append(_Decided(of, change))
            self._let_count(of, change)
        return written

    def _let_count(self, of: str | None, change: Change) -> None:
        if of is None:
            self._tell(self._views.take(change(self.view)))
        elif self._views.change(of, change):
            self._on_news(frozenset({of}))

    def assume(self, change: Change | None) -> None:
        """Let what could not be written count, until it is written; None: it is."""
        self._assumed = [] if change is None else [_Decided(None, change)]
        if self._assumed:
            self._tell(self._views.take(self._with_unread(self.view)))

    def _with_unread(self, view: LedgerView, model: str | None = None) -> LedgerView:
        """Return a view, of all models or of one, with what was decided and not read since."""
        view = _changed(view, self._unread, model)
        view = self._backlog.on(view, model)
        return _changed(view, self._assumed, model)

    async def read(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Read with a method of the ledger.

        Raises:
            LedgerError: It does not answer.
        """
        return await self._patience.ask(work, *args, **kwargs)

    def _failed(self, error: LedgerError) -> None:
        self._backlog.put_off()
        if self.trouble != error.reason:
            _log.error("ledger.failed", reason=error.reason)
        self.trouble = error.reason


def _pins(artifacts: Iterable[StoredArtifact]) -> list[PinnedVersion]:
    """Return what the store pinned, the newest last: of two for one version, that one counts."""
    pins = [pinned_version(one, pin) for one in artifacts for pin in one.pins]
    return sorted(pins, key=lambda pin: pin.accepted_at or 0.0)


def _changed(view: LedgerView, decided: Iterable[_Decided], model: str | None) -> LedgerView:
    for one in decided:
        if one.of is None or model in (None, one.of):
            view = one.change(view)
    return view
