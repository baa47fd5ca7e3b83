"""Fetch and verify as the spine does them, recorded; and the last look before bytes serve."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from registry_sync.actions import Activate, Fetch, Urgency
from registry_sync.artifact_store import StoredArtifact
from registry_sync.aspired import AspiredVersion
from registry_sync.errors import ArtifactError, SourceError, StoreError
from registry_sync.intake import Brought, Intake, Refused, Stopwatch
from registry_sync.journal import Journal
from registry_sync.ledger import Ledger
from registry_sync.listings import Listings
from registry_sync.records import AskedBy, PinnedVersion, Quarantine
from registry_sync.sources.source import Source
from registry_sync.standing import expected_digest, find, is_quarantined
from registry_sync.threads import StoppedError, Threads

_CONFIRMATION_LASTS_S = 120.0
_QUARANTINE_LOOK_S = 300.0
_QUARANTINE_FETCH_S = 900.0
_log = structlog.get_logger("registry_sync.arrival")


@dataclass(frozen=True, slots=True)
class Stopped:
    """A step that went no further: ``refused`` ones are not tried again by themselves."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """The registry had these bytes between two times, in epoch seconds."""

    digest: str
    began_at: float
    ended_at: float


class Arrival:
    """Brings versions to this node, and compares them with the registry again. Event loop only.

    Attributes:
        artifacts: What the artifact store holds, by digest.
    """

    def __init__(
        self,
        *,
        source: Source,
        intake: Intake,
        ledger: Ledger,
        journal: Journal,
        listings: Listings,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        """Store. ``clock`` gives epoch seconds."""
        self.artifacts: dict[str, StoredArtifact] = {}
        self._source = source
        self._intake = intake
        self._ledger = ledger
        self._journal = journal
        self._listings = listings
        self._threads = threads
        self._clock = clock
        self._confirmed: dict[tuple[str, int], _Confirmed] = {}
        self._looked_at: dict[tuple[str, int], float] = {}

    # --- fetch, verify ----------------------------------------------------------------------------

    async def fetch(self, action: Fetch, watch: Stopwatch) -> Stopped | None:
        """Bring a version's bytes here, or learn that they are wrong."""
        listed = find(self._listings.aspired, action.model, action.version)
        if listed is None:  # what only a hold still means
            listed = await self._threads.registry(
                self._source.version, action.model, action.version
            )
        return await self._bring(listed, watch, action.asked_by)

    async def _bring(
        self, listed: AspiredVersion, watch: Stopwatch, asked_by: str, *, again: bool = False
    ) -> Stopped | None:
        key = (listed.model, listed.version)
        pinned = self._journal.view.pins.get(key)
        if pinned is None and not listed.stamped and not self._journal.answered:
            return Stopped(
                "the ledger has not answered since the start: nobody can tell whether these are "
                "the bytes that were seen first"
            )
        started_at = self._clock()
        _log.info("fetch.started", model=listed.model, version=listed.version)
        found = await self._fetched(listed, pinned, watch, again=again)
        if isinstance(found, Refused):
            await self._quarantine(listed, found, asked_by)
            return Stopped(found.reason, refused=True)
        return await self._accept(key, found, started_at, asked_by)

    async def _fetched(
        self,
        listed: AspiredVersion,
        pinned: PinnedVersion | None,
        watch: Stopwatch,
        *,
        again: bool,
    ) -> Brought | Refused:
        """Fetch in a thread, which stops at the next bytes when nobody waits any more."""
        left = threading.Event()

        def check(_done: int, _total: int | None) -> None:
            self._threads.check_stopping()
            if left.is_set():
                raise StoppedError

        pool = self._threads.comparing if again else self._threads.fetching
        try:
            return await pool(self._intake.bring, listed, pinned, watch=watch, on_progress=check)
        except asyncio.CancelledError:
            left.set()
            raise

    async def _accept(
        self, key: tuple[str, int], found: Brought, started_at: float, asked_by: str
    ) -> Stopped | None:
        digest = found.artifact.digest
        self._confirmed[key] = _Confirmed(digest, started_at, self._clock())
        self.artifacts[digest] = found.artifact
        known = self._journal.view.pins.get(key)
        if key in self._journal.view.quarantines:
            await self._journal.write(self._ledger.release_quarantine, *key, str(asked_by))
        pinned = await self._journal.write(self._ledger.pin, found.pin)
        if not pinned and (known is None or known.digest != digest):
            # Without its pin the version does not count as here, and would be fetched at once.
            return Stopped(self._journal.trouble or "the ledger did not take the version's digest")
        _log.info("fetch.complete", model=key[0], version=key[1], digest=digest)
        return None

    async def _quarantine(self, listed: AspiredVersion, found: Refused, asked_by: str) -> None:
        _log.error("quarantine", model=listed.model, version=listed.version, reason=found.reason)
        self._looked_at.pop((listed.model, listed.version), None)
        await self._journal.write(
            self._ledger.quarantine,
            Quarantine(
                model=listed.model,
                version=listed.version,
                expected_digest=expected_digest(listed, self._journal.view),
                listing=found.listing,
                found_digest=found.found,
                reason=found.reason,
                at=self._clock(),
                asked_by=asked_by,
            ),
        )

    # --- what is quarantined ----------------------------------------------------------------------

    async def look_at_quarantined(self) -> list[Fetch]:
        """Release a quarantine whose bytes have changed at the registry: they are fetched again.

        Returns:
            What to fetch to find out, where the storage does not tell of changes.
        """
        self._forget_unlisted()
        now, to_fetch = self._clock(), list[Fetch]()
        for key, found in self._journal.view.quarantines.items():
            listed = find(self._listings.aspired, *key)
            rest_s = _QUARANTINE_FETCH_S if found.listing is None else _QUARANTINE_LOOK_S
            if listed is None or now - self._looked_at.get(key, found.at) < rest_s:
                continue
            self._looked_at[key] = now
            if found.listing is None:
                to_fetch.append(Fetch(*key, Urgency.PREFETCH))
                continue
            try:
                listing = await self._threads.registry(self._intake.listing_of, listed)
            except SourceError:
                break
            if listing is not None and listing != found.listing:
                _log.info("quarantine.released", model=key[0], version=key[1])
                released_by = str(AskedBy.POLL)
                await self._journal.write(self._ledger.release_quarantine, *key, released_by)
        return to_fetch

    def _forget_unlisted(self) -> None:
        """Keep what was learned of versions no longer than the registry lists them."""
        listed = {
            (model.name, version)
            for model in self._listings.aspired.models.values()
            for version in model.versions
        }
        self._confirmed = {key: one for key, one in self._confirmed.items() if key in listed}
        self._looked_at = {key: at for key, at in self._looked_at.items() if key in listed}

    # --- compare once more ------------------------------------------------------------------------

    async def confirm(self, action: Activate, watch: Stopwatch) -> Stopped | None:
        """Make sure that the registry still has the bytes that are about to serve.

        Returns:
            None: it has; or that cannot be found out, and an operator or a recovery goes on with
            what was verified before.

        Raises:
            SourceError: The registry or its storage did not answer.
            ArtifactError: The bytes cannot be fetched for now.
            StoreError: The store cannot take them.
        """
        key = (action.model, action.version)
        view = self._journal.view
        listed = find(self._listings.aspired, *key)
        local = action.asked_by in (AskedBy.OPERATOR, AskedBy.RECOVERY)
        if local and listed is None:
            return None  # there is nothing to compare with
        if listed is not None and is_quarantined(listed, view):
            if action.asked_by == AskedBy.RECOVERY:
                return None  # known already, and what served before is better than nothing
            return Stopped(view.quarantines[key].reason, refused=True)
        if listed is None:
            return Stopped("the registry no longer lists this version")
        if self._is_confirmed(action):
            return None
        try:
            stopped = await self._compare(listed, view.pins.get(key), watch, action.asked_by)
        except (SourceError, ArtifactError, StoreError) as error:
            # None of them says that the bytes are wrong: that is no error, but a refusal.
            if local:
                _log.warning("confirm.skipped", model=key[0], version=key[1], reason=error.reason)
                return None
            raise
        confirmed = self._confirmed.get(key)
        if stopped is None and (confirmed is None or confirmed.digest != action.digest):
            return Stopped("the registry has other bytes now; they are staged first")
        return stopped

    async def _compare(
        self, listed: AspiredVersion, pin: PinnedVersion | None, watch: Stopwatch, asked_by: str
    ) -> Stopped | None:
        """Compare the listings; where that does not tell, fetch and hash again."""
        key = (listed.model, listed.version)
        started_at = self._clock()
        if pin is not None and await self._threads.registry(
            self._intake.remote_is_as_pinned, listed, pin
        ):
            self._confirmed[key] = _Confirmed(pin.digest, started_at, self._clock())
            return None
        return await self._bring(listed, watch, asked_by, again=True)

    def _is_confirmed(self, action: Activate) -> bool:
        """Whether the bytes were compared after this was first wished for, and lately.

        What took long to compare counts for longer: a standby does not wait for ever.
        """
        found = self._confirmed.get((action.model, action.version))
        version, wished_at = self._listings.wish(action.model, action.alias)
        if found is None or (found.digest, version) != (action.digest, action.version):
            return False
        lasts_s = max(_CONFIRMATION_LASTS_S, 2 * (found.ended_at - found.began_at))
        return wished_at <= found.began_at and self._clock() - found.ended_at < lasts_s
