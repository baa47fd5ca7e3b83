"""The reconciler's view of the ledger, which survives a ledger that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ParamSpec, TypeVar

import structlog

from gateway.contract import ActiveAlias
from registry_sync.artifacts import StoredArtifact, accepted_digest
from registry_sync.domain import (
    AcceptedDigest,
    Activation,
    Aspired,
    Hold,
    HoldChange,
    HoldsSnapshot,
    Initiator,
    LedgerView,
    ViewsByModel,
    aspired_version,
    creation_of,
    creation_of_bytes,
    find,
    view_by_model,
    view_of_model,
)
from registry_sync.errors import LedgerError
from registry_sync.ledger.backlog import Backlog
from registry_sync.ledger.bounded_calls import BoundedCalls
from registry_sync.ledger.database import LedgerSetupError
from registry_sync.ledger.holds_file import HoldsFile
from registry_sync.ledger.ledger import Ledger
from registry_sync.system import Threads

_P = ParamSpec("_P")
_T = TypeVar("_T")

Change = Callable[[LedgerView], LedgerView]
"""Returns the view after a write."""

_MOST_READ_APART = 64
"""Changed models that are read one by one; more of them are read with all others, in one query."""
_log = structlog.get_logger("registry_sync.ledger.journal")


class Journal:
    """Reads and writes the ledger from the event loop.

    While the ledger does not answer, the last view stays in force, and decisions and moves wait in
    the holds file. If it has not answered since the start, the view is built from the node's
    accepted digests and holds.

    Attributes:
        answered: Whether the ledger has been read since the start.
        trouble: Why the last call of the ledger failed, or None if it succeeded.
    """

    def __init__(
        self,
        ledger: Ledger,
        threads: Threads,
        holds_file: HoldsFile | None = None,
        *,
        on_news: Callable[[AbstractSet[str] | None], None] = lambda _: None,
    ) -> None:
        """``on_news`` is called with the models whose view changed, or None for all."""
        self._ledger = ledger
        self._threads = threads
        self._calls = BoundedCalls(ledger, threads)
        self._holds_file = holds_file
        self._on_news = on_news
        self._views = ViewsByModel()
        self._stale = True
        self._stale_models: set[str] = set()
        self._holds_failure_logged = False
        # True at the start: a killed process may have made the ledger without filling it.
        self._made = True
        self._assumed: Change | None = None
        self._backlog = Backlog(
            ledger,
            self._calls,
            threads,
            holds_file,
            on_recorded=lambda change: self._read_again(change.model),
        )
        self.answered = False
        self.trouble: str | None = None

    @property
    def view(self) -> LedgerView:
        """The records in force, of all models."""
        return self._views.whole()

    def view_of(self, model: str) -> LedgerView:
        """Return the records in force of one model."""
        return self._views.of(model)

    def models(self) -> AbstractSet[str]:
        """Return the models that have records."""
        return self._views.models()

    def accepted_for(self, creation: str) -> AcceptedDigest | None:
        """Return the digest accepted last for a creation, under any name, or None."""
        return self._views.accepted_for(creation)

    async def open(self) -> None:
        """Open the ledger at the start of the process; it may also come up later.

        Raises:
            LedgerSetupError: The process must not start: no later attempt can succeed.
        """
        try:
            await self._calls.call(self._ensure)
        except LedgerSetupError:
            raise
        except LedgerError as error:
            self._failed(error)

    async def close(self) -> None:
        """Close the ledger."""
        await self._calls.close()

    async def refresh(self, artifacts: Iterable[StoredArtifact], listing: Aspired | None) -> bool:
        """Update `view`; make and fill a ledger that was lost.

        Returns whether `view` has everything that was written to the ledger. A ledger that refuses
        writes, such as a full one, is read all the same; `trouble` says so.
        """
        try:
            await self._recall()
            await self._calls.call(self._ensure)
            refusal = await self._fill(list(artifacts), listing) if self._made else None
            # Read before writing: after a slow failure all calls fail for a while.
            await self._read()
            refusal = await self._record_backlog() or refusal
            await self._read()
        except LedgerError as error:
            self._stale = True
            self._failed(error)
            if not self.answered:
                await self._view_without_ledger(artifacts)
            return False
        finally:
            await self._backlog.keep()
        if refusal is None:
            self.trouble = None
        else:
            self._failed(refusal)
        return True

    async def _record_backlog(self) -> LedgerError | None:
        """Record the backlog; return the ledger's error, or None."""
        try:
            if await self._backlog.record():
                self._on_news(frozenset())  # the next pass goes on
        except LedgerError as error:
            return error
        return None

    async def _recall(self) -> None:
        """Apply the backlog that an earlier process left in the holds file."""
        if await self._backlog.recall():
            self._stale = True

    async def _read(self) -> None:
        """Read the models that were written since the last read, or all."""
        if self._stale or len(self._stale_models) > _MOST_READ_APART:
            await self._read_all()
        elif self._stale_models:
            await self._read_models()

    async def _read_all(self) -> None:
        self._stale = False  # before the read: later writes are read again
        self._stale_models.clear()
        view = await self._calls.call(self._ledger.view)
        self._report(self._views.take(self._with_unwritten(view)))
        self.answered = True

    async def _read_models(self) -> None:
        models, self._stale_models = frozenset(self._stale_models), set()  # as above
        parts = view_by_model(await self._calls.call(self._ledger.view, models))
        changed = set()
        for model in models:
            view = self._with_unwritten(parts.get(model, LedgerView()), model)
            if self._views.put(model, view_of_model(model, view)):
                changed.add(model)
        self._report(changed)

    def _ensure(self) -> None:
        """Make the ledger usable. Runs in the ledger's thread: the caller may be cancelled."""
        if self._ledger.ensure():
            self._made = True

    async def _fill(
        self, artifacts: list[StoredArtifact], listing: Aspired | None
    ) -> LedgerError | None:
        """Fill a new ledger; the next pass tries again after a failure.

        Returns why a ledger with accepted digests refuses the missing ones, or None.

        Raises:
            LedgerError: The ledger cannot be read, or is empty and refuses writes.
        """
        self._made = False  # before filling: a ledger that is lost meanwhile is filled again
        filled = False
        try:
            refusal = await self._readopt(artifacts, listing)
            filled = refusal is None
        finally:
            if not filled:
                self._made = True
            self._stale = True
        return refusal

    async def _view_without_ledger(self, artifacts: Iterable[StoredArtifact]) -> None:
        """Complete the view from the node: accepted digests in the store, and the holds file.

        If the file cannot be read, the view stays empty: following the registry without its holds
        would undo rollbacks.
        """
        try:
            found = (
                await self._threads.ledger(self._holds_file.read)
                if self._holds_file
                else HoldsSnapshot()
            )
        except LedgerError as error:
            if not self._holds_failure_logged:
                _log.error("holds_file.read_failed", reason=error.reason)
            self._holds_failure_logged = True
            return
        accepted = {(one.model, one.version): one for one in _accepted(artifacts)}
        view = replace(
            self.view,
            accepted={**accepted, **self.view.accepted},
            holds={hold.alias_ref: hold for hold in found.holds},
            freeze=found.freeze,
        )
        self._report(self._views.take(self._with_unwritten(view)))

    def _report(self, changed: AbstractSet[str] | None) -> None:
        if changed is None or changed:
            self._on_news(changed)

    async def _readopt(
        self, artifacts: list[StoredArtifact], listing: Aspired | None
    ) -> LedgerError | None:
        """Record the accepted digests of the store, and the listing, in a new ledger."""
        known = (await self._calls.call(self._ledger.view)).accepted
        missing = [one for one in _accepted(artifacts) if (one.model, one.version) not in known]
        try:
            for one in missing:
                await self._calls.call(self._ledger.accept, one)
            if listing is not None:
                await self._calls.call(self._ledger.remember_listing, listing)
        except LedgerError as error:
            if not known:
                raise
            return error
        if missing:
            _log.info("ledger.digests_adopted", digests=len(missing))
        return None

    async def adopt(
        self,
        serves: Iterable[ActiveAlias],
        generation: int,
        busy: Callable[[ActiveAlias], bool],
    ) -> bool:
        """Record the active aliases that the ledger lacks; return whether it has all of them now.

        Requires an up-to-date `view`.
        """
        for active in serves:
            last = self.view_of(active.model).last_active.get(active.alias_ref)
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
            asked_by = hold.asked_by if hold else Initiator.ADOPTED
            pinned = hold is not None and hold.lasting
            moved = self._activation(active, asked_by, generation, pinned=pinned)
            if not await self.write(active.model, self._ledger.activated, moved):
                return False
        return True

    def _hold_on(self, active: ActiveAlias) -> Hold | None:
        """Return the hold that keeps an alias at its active version, or None."""
        hold = self.view_of(active.model).holds.get(active.alias_ref)
        target = (hold.target_version, hold.target_digest) if hold else None
        return hold if target == (active.version, active.digest) else None

    async def note_aspired(self, aspired: Aspired, model: str) -> bool:
        """Record the aspired versions of holds that were made without a listing.

        Such a hold ends when the registry moves the alias, not when it is first listed. Returns
        whether the ledger recorded all of them.
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
        """Record a move of an alias, as soon as the ledger answers.

        ``generation`` is that of the first route table with the move, ``durations_s`` are by phase,
        and ``pinned`` says whether an operator's pin made it.
        """
        moved = self._activation(active, asked_by, generation, durations_s, pinned=pinned)
        if not await self.write(active.model, self._ledger.activated, moved):
            self._backlog.moved(moved)
            self._apply(active.model, lambda view: view.with_activation(moved))

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

    # --- decisions --------------------------------------------------------------------------------

    async def carry_out(self, change: HoldChange) -> str | None:
        """Apply a decision to `view` and record it; return why it is not recorded yet, or None."""
        self._backlog.decided(change)
        self._apply(change.model, lambda view: view.with_change(change))
        unrecorded = await self._record(change)
        if unrecorded is not None:
            _log.warning("decision.record_failed", what=change.what, reason=unrecorded)
        return unrecorded

    async def _record(self, change: HoldChange) -> str | None:
        try:
            with suppress(LedgerError):  # a backlog that cannot be read now stays for later
                await self._recall()
            await self._calls.call(self._ensure)
            await self._backlog.record()
        except LedgerError as error:
            self._failed(error)
        finally:  # also if the call is cancelled
            self._read_again(change.model)
            await self._backlog.keep()
        return self._backlog.why_unrecorded(change, self.trouble)

    def backlog(self) -> str | None:
        """Return how much the ledger has not recorded, and where it waits, or None."""
        return self._backlog.summary()

    async def write(
        self, of: str | None, work: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs
    ) -> bool:
        """Write to the ledger with ``work``; return whether it succeeded.

        ``of`` is the model that the write concerns, or None for several.
        """
        try:
            return await self.note(work, *args, **kwargs)
        finally:  # also if the call is cancelled: its thread may still write
            self._read_again(of)

    def _read_again(self, of: str | None) -> None:
        if of is None:
            self._stale = True
        else:
            self._stale_models.add(of)

    async def note(self, work: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> bool:
        """Write something outside `view`, such as an attempt; return whether it succeeded."""
        try:
            await self._calls.call(self._ensure)
            await self._calls.call(work, *args, **kwargs)
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
        """Write a change of `view` with ``work``; return whether it was written.

        The change applies at once, and stays if the ledger cannot be read afterwards. If ``work``
        returns False, nothing has changed. ``of`` is as for `write`.
        """
        changed = False

        def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
            nonlocal changed
            changed = work(*args, **kwargs) is not False

        written = await self.write(of, run, *args, **kwargs)
        if written and changed:
            self._apply(of, change)
        return written

    def _apply(self, of: str | None, change: Change) -> None:
        if of is None:
            self._report(self._views.take(change(self.view)))
        elif self._views.change(of, change):
            self._on_news(frozenset({of}))

    def assume(self, change: Change | None) -> None:
        """Apply a change that could not be written, in place of the former; None ends that."""
        self._assumed = change
        if change is not None:
            self._report(self._views.take(self._with_unwritten(self.view)))

    def _with_unwritten(self, view: LedgerView, model: str | None = None) -> LedgerView:
        """Return a view, of all models or of one, with the changes that the ledger lacks.

        Calls of the ledger never overlap, and each applies its result before the next begins, so
        a view that is read has everything that was written.
        """
        view = self._backlog.apply(view, model)
        return view if self._assumed is None else self._assumed(view)

    async def read(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Read from the ledger with ``work``.

        Raises:
            LedgerError: The ledger does not answer.
        """
        return await self._calls.call(work, *args, **kwargs)

    def _failed(self, error: LedgerError) -> None:
        self._backlog.mark_late()
        if self.trouble != error.reason:
            _log.error("ledger.failed", reason=error.reason)
        self.trouble = error.reason


def _accepted(artifacts: Iterable[StoredArtifact]) -> list[AcceptedDigest]:
    """Return the store's accepted digests, oldest first: a later one overrides."""
    found = [accepted_digest(one, each) for one in artifacts for each in one.accepted]
    return sorted(found, key=lambda one: one.accepted_at or 0.0)
