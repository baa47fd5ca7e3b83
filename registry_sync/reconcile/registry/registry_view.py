"""The listing in force, and since when each alias has its target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import structlog

from gateway.contract import AliasRef
from registry_sync.artifacts import ArtifactStore
from registry_sync.domain import (
    AcceptedDigestChange,
    AppliedListing,
    Aspired,
    AspiredModel,
    LedgerView,
    apply_listing,
    as_remembered,
)
from registry_sync.errors import LedgerError, SourceError, StoreError
from registry_sync.ledger import Journal, Ledger
from registry_sync.planning import Version, lacking_versions, learned
from registry_sync.sources import Source
from registry_sync.system import Threads

_NOTHING = Aspired(models={}, listed_at=0.0)
THOROUGH_POLL_EVERY = 10
"""One in so many polls lists the versions of unchanged models too: a new tag of a version does not
change its model."""
_SILENT_AT_FIRST_S = 5.0
_SILENT_S = 60.0
_LISTINGS_FOR_ALL_MODELS = 2
"""The first shows the registry's content, the second its removals: both may affect any model."""
_FEW_WRITTEN_APART = 100
_log = structlog.get_logger("registry_sync.reconcile.registry.registry_view")


@dataclass(frozen=True, slots=True)
class _Target:
    """The version of a registry's alias, since when (epoch seconds), and the first initiator."""

    version: int
    creation: str | None
    since: float
    asked_by: str


class Listings:
    """The registry as it was listed last. Event loop only.

    ``clock`` returns epoch seconds. ``on_news`` is called with the models whose listing changed, or
    None if any may have changed.

    Attributes:
        applied: The listing in force.
        count: Listings that were applied since the start.
        complete: Whether a full listing has been applied, fetched or remembered.
        listed_at: Epoch seconds of the registry's newest answer, or None before the first.
        error: Why the registry, or its newest listing, is not followed, or None if it is.
        pointed_anew: Rejected (model, version) that an alias was moved to since. The caller that
            ends the rejection removes it.
    """

    def __init__(
        self,
        *,
        source: Source,
        threads: Threads,
        store: ArtifactStore,
        ledger: Ledger,
        journal: Journal,
        clock: Callable[[], float],
        on_news: Callable[[AbstractSet[str] | None], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._threads = threads
        self._store = store
        self._ledger = ledger
        self._journal = journal
        self._clock = clock
        self._on_news = on_news
        self.applied = AppliedListing(_NOTHING)
        self.count = 0
        self.listed_at: float | None = None
        self.error: str | None = None
        self.pointed_anew: set[tuple[str, int]] = set()
        self.complete = False
        # The listing in the ledger, and how many models were written to it one by one.
        self._remembered: dict[str, AspiredModel] | None = None
        self._written_apart = 0
        self._recalled = False
        self._targets: dict[AliasRef, _Target] = {}
        self._polling = asyncio.Lock()
        self._lacked: frozenset[Version] = frozenset()  # versions missing in the newest listing
        self._unwritten: tuple[AcceptedDigestChange, ...] = ()
        # The raw listing; `applied` keeps models and versions that it lacks for the first time.
        self._raw_listing: Aspired | None = None
        self._polls_since_thorough = 0
        self._took_s = 0.0

    @property
    def aspired(self) -> Aspired:
        """The models of the listing in force."""
        return self.applied.aspired

    @property
    def own(self) -> Aspired | None:
        """The listing in force, to fill a lost ledger, or None if incomplete or empty."""
        return self.aspired if self.complete and self.aspired.models else None

    def target(self, model: str, alias: str) -> tuple[int, float]:
        """Return the version of a registry's alias, and since when, or ``(0, 0.0)``."""
        found = self._targets.get(AliasRef(model, alias))
        return (found.version, found.since) if found is not None else (0, 0.0)

    def initiators(self, model: str) -> dict[AliasRef, str]:
        """Return the first initiator of the target of each alias of a model."""
        listed = self.aspired.models.get(model)
        keys = [AliasRef(model, alias) for alias in (listed.aliases if listed else ())]
        return {key: self._targets[key].asked_by for key in keys if key in self._targets}

    async def recall(self) -> None:
        """Apply the ledger's listing, once, so that the registry may be down.

        Models that single looks have listed since are newer, and stay.
        """
        if self._recalled or self.count:
            return
        try:
            listing = await self._journal.read(self._ledger.last_listing)
        except LedgerError:
            return
        self._recalled = True
        if listing is None or self.count:
            return
        view = self._journal.view
        known = {
            name: replace(
                model, versions={n: as_remembered(one, view) for n, one in model.versions.items()}
            )
            for name, model in listing.models.items()
        }
        models = {**known, **self.aspired.models}
        self.applied = AppliedListing(replace(listing, models=models))
        self.listed_at = listing.listed_at
        self.complete = True
        self._remembered = dict(listing.models)
        self._on_news(None)

    async def poll(self, asked_by: str, *, thorough: bool = False) -> bool:
        """List the registry, one call at a time; return whether it answered.

        Unless ``thorough``, most calls skip the versions of unchanged models.
        """
        async with self._polling:
            due = self._polls_since_thorough + 1 >= THOROUGH_POLL_EVERY
            before = None if due or thorough else self._raw_listing
            began_at = self._clock()
            timer = self._start_silence_timer(began_at)
            try:
                listed = await self._threads.registry(self._source.aspired, before)
            except SourceError as error:
                self._failed(error)
                return False
            finally:
                timer.cancel()
            self._took_s = self._clock() - began_at
            self._polls_since_thorough = 0 if before is None else self._polls_since_thorough + 1
            lacking = self._lacked
            if listed.models:  # an empty listing proves nothing
                lacking = lacking_versions(listed, self._journal.view)
                # Before it applies: no plan may use the listing without these records.
                news = learned(
                    listed,
                    self._journal.view,
                    self._journal.accepted_for,
                    gone=lacking & self._lacked,
                    at=self._clock(),
                )
                await self._note(news, None)
            self._raw_listing, self._lacked = listed, lacking
            self.take(listed, asked_by)
            await self._remember()
            return True

    async def _note(self, news: Sequence[AcceptedDigestChange], of: str | None) -> None:
        """Record changes of accepted digests, of one model or, with None, of several."""
        changes = (*self._unwritten, *news)
        if not changes:
            return
        await self._threads.registry(self._date_records, changes)
        change = partial(LedgerView.with_accepted_changes, changes=changes)
        if self._unwritten:
            of = None
        written = await self._journal.decide(of, change, self._ledger.note_accepted, changes)
        # They hold even if the ledger refuses them; the next poll writes them again.
        self._unwritten = () if written else changes
        self._journal.assume(None if written else change)

    async def look(self, name: str, asked_by: str) -> bool:
        """List one model, after a hint; return whether the registry answered.

        Only polls apply that a model is gone or empty.
        """
        async with self._polling:
            try:
                found = await self._threads.registry(self._source.model, name)
            except SourceError as error:
                self._failed(error)
                return False
            if found is not None:
                of_model, view = Aspired({name: found}, 0.0), self._journal.view_of(name)
                await self._note(learned(of_model, view, self._journal.accepted_for), name)
                self._take_model(found, asked_by)
                await self._remember()
            return True

    def _start_silence_timer(self, began_at: float) -> asyncio.TimerHandle:
        """Return a timer that reports a late answer, for the caller to cancel.

        ``began_at`` is in epoch seconds. A registry that answers byte by byte never fails.
        """
        timeout_s = max(_SILENT_S, 3 * self._took_s) if self.count else _SILENT_AT_FIRST_S
        return asyncio.get_running_loop().call_later(timeout_s, self._report_silence, began_at)

    def _report_silence(self, began_at: float) -> None:
        asked_at = datetime.fromtimestamp(began_at, UTC).isoformat(" ", "seconds")
        reason = f"{self._source.name} has not answered: it was asked for its list at {asked_at}"
        if self.error is None:
            _log.warning("listing.unanswered", reason=reason)
            self.error = reason

    def _failed(self, error: SourceError) -> None:
        if self.error != error.reason:
            _log.warning("listing.failed", reason=error.reason)
        self.error = error.reason

    def _take_model(self, found: AspiredModel, asked_by: str) -> None:
        """Apply the listing of one model; the time of the whole listing stays."""
        if self._raw_listing is not None:
            models = {**self._raw_listing.models, found.name: found}
            self._raw_listing = replace(self._raw_listing, models=models)
        self._lacked = frozenset(
            (model, version)
            for model, version in self._lacked
            if model != found.name or not found.has(version)
        )
        before, name = self.applied, found.name
        known = before.aspired.models.get(name)
        of_model = Aspired({name: known} if known else {}, before.aspired.listed_at)
        missing = frozenset(pair for pair in before.missing if pair[0] == name)
        applied = apply_listing(
            AppliedListing(of_model, missing), replace(of_model, models={name: found})
        )
        models = {**before.aspired.models, name: applied.aspired.models[name]}
        everything = replace(before.aspired, models=models)
        others = before.missing - missing
        self._apply(AppliedListing(everything, applied.missing | others), asked_by, {name})

    def take(self, listed: Aspired, asked_by: str) -> None:
        """Apply a new listing, as far as the rules allow."""
        applied = apply_listing(self.applied, listed)
        self._apply(applied, asked_by, {*self.aspired.models, *applied.aspired.models})
        self.error = self.applied.ignored
        self.listed_at = listed.listed_at
        if self.applied.ignored is None:
            self.count += 1
            self.complete = True
            if self.count <= _LISTINGS_FOR_ALL_MODELS:
                self._on_news(None)
        else:
            _log.warning("listing.ignored", reason=self.applied.ignored)

    def _apply(self, applied: AppliedListing, asked_by: str, names: AbstractSet[str]) -> None:
        """Apply a listing that may differ from the previous one in these models."""
        before, after = self.aspired.models, applied.aspired.models
        changed = {name for name in names if after.get(name) != before.get(name)}
        if changed:
            # Unchanged models stay the same objects, which makes comparisons cheap.
            same = {name: before[name] for name in after if name in before and name not in changed}
            models: Mapping[str, AspiredModel] = {**after, **same}
        else:
            models = before
        news = changed | {name for name, _ in applied.missing ^ self.applied.missing}
        for name in changed:
            rejected = {(name, one[1]) for one in self._journal.view_of(name).rejections}
            moved = _moved_to(before.get(name), after.get(name))
            self.pointed_anew |= rejected & moved
        self.applied = replace(applied, aspired=replace(applied.aspired, models=models))
        for name in changed:
            self._note_targets(name, before.get(name), asked_by)
        self._on_news(news)

    def _note_targets(self, name: str, before: AspiredModel | None, asked_by: str) -> None:
        """Record since when each alias has its target; an unchanged one keeps its entry."""
        model, now = self.aspired.models.get(name), self._clock()
        for alias in before.aliases if before else ():
            if model is None or alias not in model.aliases:
                self._targets.pop(AliasRef(name, alias), None)
        for alias, version in model.aliases.items() if model else ():
            known = self._targets.get(AliasRef(name, alias))
            creation = model.versions[version].creation if model else None
            if known is None or (known.version, known.creation) != (version, creation):
                self._targets[AliasRef(name, alias)] = _Target(version, creation, now, asked_by)

    def _date_records(self, changes: Sequence[AcceptedDigestChange]) -> None:
        """Store creations learned for an older release's artifacts: a ledger may be lost."""
        for before, after in ((one.before, one.after) for one in changes):
            if before is None or before.creation is not None or after.creation is None:
                continue
            try:
                self._store.note_creation(
                    before.digest, before.model, before.version, after.creation
                )
            except StoreError as error:
                _log.warning("creation.record_failed", digest=before.digest, reason=str(error))

    async def _remember(self) -> None:
        """Write the listing in force to the ledger: changed models only, or all of it.

        The next start combines the listing with the models written since, so the whole listing is
        written again once these are as many.
        """
        if not self.count:
            return  # models of single looks are no listing, and would replace one
        models, known = self.aspired.models, self._remembered
        if known is None:
            await self._remember_all()
            return
        changed = {
            name: models.get(name)
            for name in {*models, *known}
            if models.get(name) is not known.get(name) and models.get(name) != known.get(name)
        }
        if not changed:
            return
        if self._written_apart + len(changed) > max(_FEW_WRITTEN_APART, len(models)):
            await self._remember_all()
            return
        work, listed_at = self._ledger.remember_models, self.aspired.listed_at
        if await self._journal.note(work, changed, listed_at=listed_at):
            self._written_apart += len(changed)
            for name, model in changed.items():
                known.pop(name, None)
                if model is not None:
                    known[name] = model

    async def _remember_all(self) -> None:
        aspired = self.aspired
        if await self._journal.note(self._ledger.remember_listing, aspired):
            self._remembered, self._written_apart = dict(aspired.models), 0


def _moved_to(before: AspiredModel | None, now: AspiredModel | None) -> set[tuple[str, int]]:
    """Return the versions of a model that aliases were moved to.

    A model listed for the first time has no moves, and neither has an alias that could not be
    followed for a while: it may not have moved.
    """
    if before is None or now is None:
        return set()
    return {
        (now.name, version)
        for alias, version in now.aliases.items()
        if (before.aliases.get(alias) != version and not before.keeps_alias(alias))
        or now.has_made_anew(version, before)
    }
