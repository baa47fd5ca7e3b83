"""What the registry listed: which listing counts, and since when it wishes what."""

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
"""So many polls ask for all versions once, whether their models show a change or not: a tag on a
version shows nowhere else."""
_SILENT_AT_FIRST_S = 5.0
_SILENT_S = 60.0
_LISTINGS_THAT_COUNT_ANEW = 2
"""The first tells what is there, the second what is gone: either may mean something for any model,
whether it has changed or not."""
_FEW_WRITTEN_APART = 100
_log = structlog.get_logger("registry_sync.reconcile.registry.registry_view")


@dataclass(frozen=True, slots=True)
class _Target:
    """The version of a registry's alias, since when (epoch seconds), and who asked first."""

    version: int
    creation: str | None
    since: float
    asked_by: str


class Listings:
    """The registry as it was listed last. Event loop only.

    Attributes:
        applied: The listing that counts.
        count: How many listings have counted since the start.
        complete: Whether what counts was everything once: listed, or remembered from before.
        listed_at: When the registry answered last, in epoch seconds; None: never.
        error: Why the registry, or its newest listing, is not followed now; None: it is.
        pointed_anew: Rejected (model, version) that an alias was moved to since; whoever acts on it
            takes it out.
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
        """Store.

        ``clock`` gives epoch seconds; ``on_news`` is called with the models that are listed
        otherwise than before, or with None: any may be.
        """
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
        # What the ledger has, and how much of it was written model by model.
        self._remembered: dict[str, AspiredModel] | None = None
        self._written_apart = 0
        self._recalled = False
        self._targets: dict[AliasRef, _Target] = {}
        self._polling = asyncio.Lock()
        self._lacked: frozenset[Version] = frozenset()  # what the newest listing lacked
        self._unwritten: tuple[AcceptedDigestChange, ...] = ()
        # What the registry said, as it said it: `applied` keeps what it has stopped saying.
        self._said: Aspired | None = None
        self._polls_since_thorough = 0
        self._took_s = 0.0

    @property
    def aspired(self) -> Aspired:
        """What counts."""
        return self.applied.aspired

    @property
    def own(self) -> Aspired | None:
        """What counts, if it is all there is: worth writing into a ledger that was lost."""
        return self.aspired if self.complete and self.aspired.models else None

    def target(self, model: str, alias: str) -> tuple[int, float]:
        """Return the version of a registry's alias, and since when, or ``(0, 0.0)``."""
        found = self._targets.get(AliasRef(model, alias))
        return (found.version, found.since) if found is not None else (0, 0.0)

    def initiators(self, model: str) -> dict[AliasRef, str]:
        """Return who asked first for the target of each alias of a model."""
        listed = self.aspired.models.get(model)
        keys = [AliasRef(model, alias) for alias in (listed.aliases if listed else ())]
        return {key: self._targets[key].asked_by for key in keys if key in self._targets}

    async def recall(self) -> None:
        """Begin with what the ledger knows, so that the registry may be down.

        What single looks have found since is newer. Nothing is asked for once it is known.
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
        """List the registry, one at a time; return whether it answered.

        Ordinary polls ask for versions of unchanged models only now and then.
        """
        async with self._polling:
            due = self._polls_since_thorough + 1 >= THOROUGH_POLL_EVERY
            before = None if due or thorough else self._said
            began_at = self._clock()
            waiting = self._say_when_silent(began_at)
            try:
                listed = await self._threads.registry(self._source.aspired, before)
            except SourceError as error:
                self._failed(error)
                return False
            finally:
                waiting.cancel()
            self._took_s = self._clock() - began_at
            self._polls_since_thorough = 0 if before is None else self._polls_since_thorough + 1
            lacking = self._lacked
            if listed.models:  # an empty listing says nothing
                lacking = lacking_versions(listed, self._journal.view)
                # Before it counts: a decision could be made on the listing and not on this.
                news = learned(
                    listed,
                    self._journal.view,
                    self._journal.accepted_for,
                    gone=lacking & self._lacked,
                    at=self._clock(),
                )
                await self._note(news, None)
            self._said, self._lacked = listed, lacking
            self.take(listed, asked_by)
            await self._remember()
            return True

    async def _note(self, news: Sequence[AcceptedDigestChange], of: str | None) -> None:
        """Write what was learned, of one model or of more."""
        changes = (*self._unwritten, *news)
        if not changes:
            return
        await self._threads.registry(self._date_records, changes)
        change = partial(LedgerView.with_accepted_changes, changes=changes)
        if self._unwritten:
            of = None
        written = await self._journal.decide(of, change, self._ledger.note_accepted, changes)
        # What was shown once is true whether the ledger takes it or not; the next poll tries again.
        self._unwritten = () if written else changes
        self._journal.assume(None if written else change)

    async def look(self, name: str, asked_by: str) -> bool:
        """Ask for one model, because of a hint; return whether the registry answered.

        That a model is not there, or nothing of it, is left to the polls to find.
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

    def _say_when_silent(self, began_at: float) -> asyncio.TimerHandle:
        """Say that the registry does not answer, once it has had its time; cancel it if it does.

        ``began_at`` is in epoch seconds. A registry that answers byte by byte never fails.
        """
        patience_s = max(_SILENT_S, 3 * self._took_s) if self.count else _SILENT_AT_FIRST_S
        return asyncio.get_running_loop().call_later(patience_s, self._is_silent, began_at)

    def _is_silent(self, began_at: float) -> None:
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
        """Let one model of the listing be as it is now; the listing is no newer by it."""
        if self._said is not None:
            self._said = replace(self._said, models={**self._said.models, found.name: found})
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
        self._let_count(AppliedListing(everything, applied.missing | others), asked_by, {name})

    def take(self, listed: Aspired, asked_by: str) -> None:
        """Let a new listing count, as far as it may."""
        applied = apply_listing(self.applied, listed)
        self._let_count(applied, asked_by, {*self.aspired.models, *applied.aspired.models})
        self.error = self.applied.ignored
        self.listed_at = listed.listed_at
        if self.applied.ignored is None:
            self.count += 1
            self.complete = True
            if self.count <= _LISTINGS_THAT_COUNT_ANEW:
                self._on_news(None)
        else:
            _log.warning("listing.ignored", reason=self.applied.ignored)

    def _let_count(self, applied: AppliedListing, asked_by: str, names: AbstractSet[str]) -> None:
        """Let a listing count that may differ in these models from the one before."""
        before, after = self.aspired.models, applied.aspired.models
        changed = {name for name in names if after.get(name) != before.get(name)}
        if changed:
            # What has not changed is the same object again: it is found so at a glance.
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
        """Note since when each alias has its target; an unchanged one keeps time and initiator."""
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
        """Write what is learned of an older release's bytes beside them: a ledger may be lost."""
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
        """Have the ledger know what counts: what has changed of it, or all of it at once.

        Model by model it takes what these models have, and the next start puts it together: so it
        is written as a whole once that is as much.
        """
        if not self.count:
            return  # what single looks have found is no listing, and would replace one
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

    A model listed for the first time tells of no move, and neither does an alias that could not be
    followed for a while: it may have been there all the time.
    """
    if before is None or now is None:
        return set()
    return {
        (now.name, version)
        for alias, version in now.aliases.items()
        if (before.aliases.get(alias) != version and not before.keeps_alias(alias))
        or now.has_made_anew(version, before)
    }
