"""What the registry listed: which listing counts, and since when it wishes what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from registry_sync.aspired import Aspired, AspiredModel
from registry_sync.errors import LedgerError, SourceError
from registry_sync.journal import Journal
from registry_sync.ledger import Ledger
from registry_sync.plan import Settled, settle
from registry_sync.records import AskedBy
from registry_sync.sources.source import Source
from registry_sync.threads import Threads

_NOTHING = Aspired(models={}, listed_at=0.0)
_log = structlog.get_logger("registry_sync.listings")


class Listings:
    """The registry as it was listed last. Event loop only.

    Attributes:
        settled: The listing that counts.
        count: How many listings have counted since the start.
        listed_at: When the registry answered last, in epoch seconds; None: never.
        error: Why the registry, or its newest listing, is not followed now; None: it is.
        asked_by: Who asked for the newest listing.
        pointed_anew: Rejected (model, version) that an alias was moved to since; whoever acts on it
            takes it out.
    """

    def __init__(
        self,
        *,
        source: Source,
        threads: Threads,
        ledger: Ledger,
        journal: Journal,
        clock: Callable[[], float],
    ) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self._source = source
        self._threads = threads
        self._ledger = ledger
        self._journal = journal
        self._clock = clock
        self.settled = Settled(_NOTHING)
        self.count = 0
        self.listed_at: float | None = None
        self.error: str | None = None
        self.asked_by: str = AskedBy.POLL
        self.pointed_anew: set[tuple[str, int]] = set()
        self._remembered: Mapping[str, AspiredModel] | None = None
        self._wishes: dict[tuple[str, str], tuple[int, float]] = {}
        self._polling = asyncio.Lock()

    @property
    def aspired(self) -> Aspired:
        """What counts."""
        return self.settled.aspired

    @property
    def own(self) -> Aspired | None:
        """What counts, if it names anything: worth writing into a ledger that was lost."""
        return self.aspired if self.aspired.models else None

    def wish(self, model: str, alias: str) -> tuple[int, float]:
        """Return which version an alias is to mean, and since when; ``(0, 0.0)``: none."""
        return self._wishes.get((model, alias), (0, 0.0))

    async def recall(self) -> None:
        """Begin with what the ledger knows, so that the registry may be down."""
        try:
            listing = await self._journal.read(self._ledger.last_listing)
        except LedgerError:
            return
        if listing is not None:
            self.settled = Settled(listing)
            self.listed_at = listing.listed_at
            self._remembered = listing.models

    async def poll(self, asked_by: str) -> bool:
        """List the registry, one at a time; return whether it answered."""
        async with self._polling:
            try:
                listed = await self._threads.registry(self._source.aspired)
            except SourceError as error:
                if self.error != error.reason:
                    _log.warning("list.failed", reason=error.reason)
                self.error = error.reason
                return False
            self.take(listed, asked_by)
            await self._remember()
            return True

    def take(self, listed: Aspired, asked_by: str) -> None:
        """Let a new listing count, as far as it may."""
        settled = settle(self.settled, listed)
        if settled.aspired.models == self.aspired.models:
            # The same object again, so that nothing is described anew.
            same = replace(settled.aspired, models=self.aspired.models)
            settled = replace(settled, aspired=same)
        rejected = {(model, version) for model, version, _ in self._journal.view.rejections}
        self.pointed_anew |= rejected & _moved_to(self.aspired, settled.aspired)
        self.settled = settled
        self.error = settled.ignored
        self.listed_at = listed.listed_at
        self.asked_by = asked_by
        if settled.ignored is None:
            self.count += 1
        else:
            _log.warning("list.ignored", reason=settled.ignored)
        self._note_wishes()

    def _note_wishes(self) -> None:
        """A wish that goes on is as old as it was; a new one begins now."""
        now, before = self._clock(), self._wishes
        self._wishes = {}
        for model in self.aspired.models.values():
            for alias, version in model.aliases.items():
                key = (model.name, alias)
                goes_on = key in before and before[key][0] == version
                self._wishes[key] = before[key] if goes_on else (version, now)

    async def _remember(self) -> None:
        if self._remembered is self.aspired.models or self._remembered == self.aspired.models:
            return
        if await self._journal.write(self._ledger.remember_listing, self.aspired):
            self._remembered = self.aspired.models


def _moved_to(before: Aspired, now: Aspired) -> set[tuple[str, int]]:
    """Return the versions that aliases were moved to.

    A model listed for the first time tells of no move, and neither does an alias that could not be
    followed for a while: it may have been there all the time.
    """
    return {
        (name, version)
        for name, model in now.models.items()
        if (known := before.models.get(name)) is not None
        for alias, version in model.aliases.items()
        if known.aliases.get(alias) != version and alias not in known.unfollowed
    }
