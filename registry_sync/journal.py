"""The ledger as the spine sees it: the current view, kept fresh, and never in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import ParamSpec, TypeVar

import structlog

from gateway.control_contract import ActiveAlias, NodeState
from registry_sync.artifact_store import StoredArtifact
from registry_sync.aspired import Aspired
from registry_sync.database import LedgerSetupError
from registry_sync.errors import LedgerError
from registry_sync.holds_file import HoldsFile
from registry_sync.intake import pinned_version
from registry_sync.ledger import Ledger
from registry_sync.patience import Patience
from registry_sync.records import Activation, AskedBy, Hold, LedgerView, PinnedVersion, Standing
from registry_sync.standing import aspired_version, creation, creation_of_bytes, find
from registry_sync.threads import Threads

_P = ParamSpec("_P")
_T = TypeVar("_T")

Change = Callable[[LedgerView], LedgerView]
"""What a write makes of the view."""

_log = structlog.get_logger("registry_sync.journal")


class Journal:
    """Reads and writes the ledger from the event loop.

    A ledger that does not answer stops no serving and no promotion of what is known: the last
    view goes on counting, and what could not be written is said in the log. Where it has not
    answered since the start, the view is what the node itself remembers: pins and holds.

    Attributes:
        view: What counts now.
        answered: Whether the ledger has been read since the start.
        trouble: Why the ledger could not be used last time; None: it could.
    """

    def __init__(
        self, ledger: Ledger, threads: Threads, holds_file: HoldsFile | None = None
    ) -> None:
        """Store. ``holds_file`` has a copy of what operators keep."""
        self._ledger = ledger
        self._threads = threads
        self._patience = Patience(ledger, threads)
        self._holds_file = holds_file
        self._stale = True
        self._told_of_holds = False
        # At the start too: a process that was killed may have made the ledger and not filled it.
        self._made = True
        # Decisions that were written since the last reading that succeeded began.
        self._unread: list[Change] = []
        self._assumed: list[Change] = []
        self.view = LedgerView()
        self.answered = False
        self.trouble: str | None = None

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

        Returns:
            Whether the ledger answered: else `view` may lack what has been written to it.
        """
        try:
            await self._patience.ask(self._ensure)
            if self._made:
                await self._fill(list(artifacts), listing)
            if self._stale:
                self._stale = False  # before reading: what is written meanwhile is read again
                read = len(self._unread)
                view = await self._patience.ask(self._ledger.view)
                self._unread = self._unread[read:]
                self.view = self._with_unread(view)
                self.answered = True
        except LedgerError as error:
            self._failed(error)
            if not self.answered:
                await self._do_without(artifacts)
            return False
        self.trouble = None
        return True

    def _ensure(self) -> None:
        """Make the ledger usable; in the ledger's thread.

        Noted here and not by who asked: that one may be cancelled while this runs, and others may
        ask meanwhile.
        """
        if self._ledger.ensure():
            self._made = True

    async def _fill(self, artifacts: list[StoredArtifact], listing: Aspired | None) -> None:
        """Fill a ledger that was made anew; if that does not succeed, the next pass tries again."""
        self._made = False  # before: one that is lost meanwhile is filled once more
        filled = False
        try:
            await self._readopt(artifacts, listing)
            filled = True
        finally:
            if not filled:
                self._made = True
            self._stale = True

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
        view = self._with_unread(view)
        if view != self.view:  # the same object else, so that nothing is described anew
            self.view = view

    async def _readopt(self, artifacts: list[StoredArtifact], listing: Aspired | None) -> None:
        """Fill a new ledger with what the store pinned; what is active comes from the node."""
        known = (await self._patience.ask(self._ledger.view)).pins
        missing = [pin for pin in _pins(artifacts) if (pin.model, pin.version) not in known]
        for pin in missing:
            await self._patience.ask(self._ledger.pin, pin)
        if listing is not None:
            await self._patience.ask(self._ledger.remember_listing, listing)
        if missing:
            _log.info("ledger.pins_adopted", pins=len(missing))

    async def adopt(self, node: NodeState, busy: Callable[[ActiveAlias], bool]) -> None:
        """Record what the gateway serves and we did not know of.

        Only where `view` is up to date: what was recorded already would be recorded twice.
        """
        for active in node.active:
            last = self.view.last_active.get((active.model, active.alias))
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
            if not await self.activated(active, asked_by, node.generation, pinned=pinned):
                return  # the next pass tries again; asking a dead database for each takes long

    def _hold_on(self, active: ActiveAlias) -> Hold | None:
        """Return what holds an alias where it is: whoever wanted that asked for the move."""
        hold = self.view.holds.get((active.model, active.alias))
        target = (hold.target_version, hold.target_digest) if hold else None
        return hold if target == (active.version, active.digest) else None

    async def note_aspired(self, aspired: Aspired) -> None:
        """Note where the registry points the aliases of holds that were made while nobody knew.

        Such a hold ends when the registry moves the alias, and not because it is listed at last.
        """
        for hold in [one for one in self.view.holds.values() if one.aspired_version is None]:
            version = aspired_version(aspired, hold.model, hold.alias)
            listed = find(aspired, hold.model, version) if version is not None else None
            if version is None or hold.lasting:
                continue
            of = creation(listed, self.view) if listed else None
            noted = replace(hold, aspired_version=version, aspired_creation=of)
            if not await self.decide(
                partial(LedgerView.with_hold, hold=noted),
                self._ledger.note_aspired,
                *(hold, version, of),
            ):
                return  # the next pass tries again

    async def activated(
        self,
        active: ActiveAlias,
        asked_by: str,
        generation: int,
        *,
        durations_s: Mapping[str, float] | None = None,
        pinned: bool = False,
    ) -> bool:
        """Record what an alias means now; whether it was written.

        Args:
            active: The alias.
            asked_by: Who wanted it.
            generation: Of the route table that first had it so.
            durations_s: Seconds by phase; None: unknown.
            pinned: Whether an operator pinned it there.
        """
        return await self.write(
            self._ledger.activated,
            Activation(
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
                creation=creation_of_bytes(self.view, active.model, active.version, active.digest),
            ),
        )

    async def write(self, work: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Write with a method of the ledger; whether it was written."""
        try:
            await self._patience.ask(self._ensure)
            await self._patience.ask(work, *args, **kwargs)
        except LedgerError as error:
            self._failed(error)
            return False
        finally:
            self._stale = True  # of a call that is cancelled too: its thread may go on to write
        return True

    async def decide(
        self, change: Change, work: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs
    ) -> bool:
        """Write what an operator decided; whether it was written.

        It counts at once, and goes on counting if the ledger cannot be read afterwards: what was
        acknowledged is in force. A ``work`` that returns False has changed nothing.
        """
        changed = False

        def note(*args: _P.args, **kwargs: _P.kwargs) -> None:
            nonlocal changed
            changed = work(*args, **kwargs) is not False

        written = await self.write(note, *args, **kwargs)
        if written and changed:
            self._unread.append(change)
            self.view = change(self.view)
        return written

    def assume(self, change: Change | None) -> None:
        """Let what could not be written count, until it is written; None: it is."""
        self._assumed = [] if change is None else [change]
        self.view = self._with_unread(self.view)

    def _with_unread(self, view: LedgerView) -> LedgerView:
        for change in (*self._unread, *self._assumed):
            view = change(view)
        return view

    async def read(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Read with a method of the ledger.

        Raises:
            LedgerError: It does not answer.
        """
        return await self._patience.ask(work, *args, **kwargs)

    def _failed(self, error: LedgerError) -> None:
        self._stale = True
        if self.trouble != error.reason:
            _log.error("ledger.failed", reason=error.reason)
        self.trouble = error.reason


def _pins(artifacts: Iterable[StoredArtifact]) -> list[PinnedVersion]:
    """Return what the store pinned, the newest last: of two for one version, that one counts."""
    pins = [pinned_version(one, pin) for one in artifacts for pin in one.pins]
    return sorted(pins, key=lambda pin: pin.accepted_at or 0.0)
