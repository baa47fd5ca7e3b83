"""Fetches and verifies versions, and compares them again before they serve."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from cachetools import LRUCache

from registry_sync.domain import (
    AcceptedDigest,
    AspiredVersion,
    Attempt,
    FetchState,
    Initiator,
    Quarantine,
    accepted,
    creation_of,
    find,
    is_made_anew,
)
from registry_sync.errors import (
    ArtifactError,
    IncompleteArtifactError,
    SourceError,
    StoreError,
)
from registry_sync.planning import (
    Activate,
    Fetch,
    Stage,
    Urgency,
    expected_digest,
    other_bytes,
    quarantine_of,
    why_other_bytes,
)
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.ingestion import (
    IngestedArtifact,
    Ingestion,
    Order,
    RefusedArtifact,
)
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch
from registry_sync.system import StoppedError

_CONFIRMATION_LASTS_S = 120.0
_QUARANTINE_LOOK_S = 300.0
_QUARANTINE_FETCH_S = 900.0
_CHECK_EVERY_S = 0.25
_LOG_EVERY_S = 10.0
_MOST_REMEMBERED = 16_384
"""Comparisons; a forgotten one is made again."""
_log = structlog.get_logger("registry_sync.reconcile.steps.fetch")


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """The registry had these bytes between two times, in epoch seconds."""

    digest: str
    began_at: float
    ended_at: float


@dataclass
class FetchStep:
    """Ingests versions, and compares them with the registry again. Event loop only.

    Attributes:
        make_room: `DiskRoom.make`, for a fetch that finds the budget full.
        fetches: Progress of the fetches under way, oldest first.
    """

    context: Context
    intake: Ingestion
    make_room: Callable[[Path, int], Coroutine[Any, Any, None]]
    fetches: list[FetchState] = field(default_factory=list)
    _confirmed: LRUCache[tuple[str, int], _Confirmed] = field(
        default_factory=lambda: LRUCache(_MOST_REMEMBERED)
    )
    _looked_at: dict[tuple[str, int], float] = field(default_factory=dict)

    # --- fetch, verify ----------------------------------------------------------------------------

    async def fetch(self, action: Fetch, watch: Stopwatch) -> StepFailure | None:
        """Ingest a version, or quarantine it if its bytes are wrong."""
        listed = find(self.context.listings.aspired, action.model, action.version)
        if listed is None:  # only a hold means it
            listed = await self.context.threads.registry(
                self.context.source.version, action.model, action.version
            )
        meant = action.digest
        view, of_creation = self.context.journal.view_of(action.model), action.creation
        if meant and (reason := why_other_bytes(listed, meant, view, of_creation=of_creation)):
            return StepFailure(reason, refused=True)
        stopped = await self._ingest(listed, watch, action.asked_by, accepts=action.accepts)
        if stopped is None and meant and meant not in self.context.artifacts:
            return StepFailure(other_bytes(action.version), refused=True)
        return stopped

    async def _ingest(
        self,
        listed: AspiredVersion,
        watch: Stopwatch,
        asked_by: str,
        *,
        again: bool = False,
        accepts: str | None = None,
    ) -> StepFailure | None:
        if listed.stamp_problem:
            return StepFailure(listed.stamp_problem, refused=True)
        view = self.context.journal.view_of(listed.model)
        known, of_creation = accepted(listed, view), creation_of(listed, view)
        if known is None and not listed.stamped and not self.context.journal.answered:
            return StepFailure(
                "the ledger has not answered since the start, so the accepted digest of version "
                f"{listed.version} is unknown; make the ledger answer, or stamp the version"
            )
        started_at = self.context.clock()
        _log.info("fetch.started", model=listed.model, version=listed.version)
        if accepts is not None:  # the old record stays until these bytes are stored
            fields = (listed.model, listed.version, accepts, accepts, listed.stamped)
            known = AcceptedDigest(*fields, listing=None, creation=of_creation)
        order = Order(listed, of_creation, known)
        found = await self._ingest_in_thread(order, watch, again=again)
        if is_made_anew(listed, view):
            await self._note_made_anew(listed, started_at, asked_by)
        if isinstance(found, RefusedArtifact):
            await self._quarantine(order, found, asked_by)
            return StepFailure(found.reason, refused=True)
        return await self._accept((listed.model, listed.version), found, started_at, asked_by)

    async def _note_made_anew(self, listed: AspiredVersion, at: float, asked_by: str) -> None:
        """Record in the history that the accepted digest was another creation's."""
        reason = f"version {listed.version} was deleted in the registry, and made anew"
        _log.warning("version.made_anew", model=listed.model, version=listed.version)
        await self.context.journal.note(
            self.context.ledger.attempted,
            Attempt(
                model=listed.model,
                alias=None,
                version=listed.version,
                action="made anew",
                asked_by=asked_by,
                started_at=at,
                durations_s={},
                outcome="complete",
                reason=reason,
            ),
        )

    async def _ingest_in_thread(
        self, order: Order, watch: Stopwatch, *, again: bool
    ) -> IngestedArtifact | RefusedArtifact:
        """Ingest in a thread, which stops at the next chunk after a cancellation."""
        cancelled = threading.Event()
        listed, clock = order.version, self.context.clock
        logged_at = clock()
        progress = FetchState(
            model=listed.model,
            version=listed.version,
            comparing=again,
            started_at=logged_at,
            arrived_bytes=0,
            total_bytes=None,
        )

        def check() -> None:
            """End the calling fetch if it was cancelled or the process stops. Any thread."""
            self.context.threads.check_stopping()
            if cancelled.is_set():
                raise StoppedError

        def note(arrived: int, total: int | None) -> None:
            """Record the progress after each chunk, and log it every few seconds."""
            nonlocal logged_at
            check()
            progress.arrived_bytes, progress.total_bytes = arrived, total
            if clock() - logged_at >= _LOG_EVERY_S:
                logged_at = clock()
                _log.info(
                    "fetch.progress",
                    model=listed.model,
                    version=listed.version,
                    arrived_bytes=arrived,
                    total_bytes=total,
                    elapsed_s=round(logged_at - progress.started_at, 1),
                )

        pool = self.context.threads.comparing if again else self.context.threads.fetching
        # A comparison's copy is temporary: the disk floor bounds it, not the budget.
        room = None if again else partial(self._wait_for_room, asyncio.get_running_loop(), check)
        self.fetches.append(progress)
        try:
            return await pool(
                self.intake.bring, order, watch=watch, on_progress=note, make_room=room
            )
        except asyncio.CancelledError:
            cancelled.set()
            raise
        finally:
            self.fetches = [one for one in self.fetches if one is not progress]

    def _wait_for_room(
        self,
        loop: asyncio.AbstractEventLoop,
        check: Callable[[], None],
        folder: Path,
        total_bytes: int,
    ) -> None:
        """Make room, from a fetch's thread, unless the fetch is cancelled.

        Raises:
            NoDiskRoomError: The room cannot be made.
            StoppedError: The fetch was cancelled, or the process stops.
        """
        made = asyncio.run_coroutine_threadsafe(self.make_room(folder, total_bytes), loop)
        try:
            while not made.done():
                wait([made], timeout=_CHECK_EVERY_S)
                check()
        finally:
            made.cancel()
        made.result()

    async def _accept(
        self, key: tuple[str, int], found: IngestedArtifact, started_at: float, asked_by: str
    ) -> StepFailure | None:
        digest = found.artifact.digest
        self._confirmed[key] = _Confirmed(digest, started_at, self.context.clock())
        self.context.artifacts[digest] = found.artifact
        known = self.context.journal.view_of(key[0]).accepted.get(key)
        accept = self.context.ledger.accept
        recorded = await self.context.journal.write(key[0], accept, found.accepted)
        if not recorded and (known is None or known.digest != digest):
            # Without its record the version counts as absent, and would be fetched at once.
            return StepFailure(
                self.context.journal.trouble or "the ledger did not record the accepted digest"
            )
        # Last: only now are the right bytes recorded.
        if key in self.context.journal.view_of(key[0]).quarantines:
            work = self.context.ledger.end_quarantine
            await self.context.journal.write(key[0], work, *key, str(asked_by))
        _log.info("fetch.completed", model=key[0], version=key[1], digest=digest)
        self.context.changes.note({one.model for one in found.artifact.accepted})
        return None

    async def _quarantine(self, order: Order, found: RefusedArtifact, asked_by: str) -> None:
        listed, reason = order.version, found.reason
        _log.error("version.quarantined", model=listed.model, version=listed.version, reason=reason)
        self._looked_at.pop((listed.model, listed.version), None)
        await self.context.journal.write(
            listed.model,
            self.context.ledger.quarantine,
            Quarantine(
                model=listed.model,
                version=listed.version,
                expected_digest=expected_digest(listed, self.context.journal.view_of(listed.model)),
                listing=found.listing,
                found_digest=found.found,
                reason=reason,
                at=self.context.clock(),
                asked_by=asked_by,
                creation=order.creation,
            ),
        )

    # --- quarantines ------------------------------------------------------------------------------

    async def look_at_quarantined(self) -> list[Fetch]:
        """End quarantines whose bytes have changed in the registry, so that these are fetched.

        Returns the fetches that detect a change where the storage's listing does not.
        """
        now, to_fetch, view = self.context.clock(), list[Fetch](), self.context.journal.view
        for key in self._looked_at.keys() - view.quarantines.keys():
            del self._looked_at[key]
        for key, found in view.quarantines.items():
            listed = find(self.context.listings.aspired, *key)
            rest_s = _QUARANTINE_FETCH_S if found.listing is None else _QUARANTINE_LOOK_S
            if listed is None or quarantine_of(listed, view) is None:
                continue
            if now - self._looked_at.get(key, found.at) < rest_s:
                continue
            self._looked_at[key] = now
            if found.listing is None:
                of = creation_of(listed, view)
                to_fetch.append(Fetch(*key, Urgency.PREFETCH, creation=of))
                continue
            try:
                listing = await self.context.threads.registry(self.intake.listing_of, listed)
            except SourceError:
                break
            if listing is not None and listing != found.listing:
                _log.info("quarantine.ended", model=key[0], version=key[1])
                ended_by = str(Initiator.POLL)
                work = self.context.ledger.end_quarantine
                await self.context.journal.write(key[0], work, *key, ended_by)
        return to_fetch

    # --- compare once more ------------------------------------------------------------------------

    async def confirm(self, action: Stage | Activate, watch: Stopwatch) -> StepFailure | None:
        """Compare the bytes that are about to serve with the registry's.

        Returns:
            Why they must not serve, or None if they are the same. If they cannot be compared,
            operators, the gateway and recoveries go on with the bytes that were verified before.

        Raises:
            SourceError: The registry or its storage did not answer.
            ArtifactError: The bytes cannot be fetched for now.
            StoreError: The store cannot take them.
        """
        key = (action.model, action.version)
        view = self.context.journal.view_of(action.model)
        listed = find(self.context.listings.aspired, *key)
        local = action.asked_by in (Initiator.OPERATOR, Initiator.GATEWAY, Initiator.RECOVERY)
        if listed is None:  # no bytes to compare with
            return None if local else StepFailure("the registry no longer lists this version")
        if reason := self._known_wrong(action, listed, local=local):
            if action.asked_by == Initiator.RECOVERY and not listed.stamp_problem:
                return None  # the plan never recovers quarantined bytes
            return StepFailure(reason, refused=True)
        known = accepted(listed, view)
        cheap = known is not None and known.listing is not None
        if not cheap and self._is_confirmed(action):
            return None  # one fetch of the whole artifact is enough for all aliases
        try:
            stopped = await self._compare(listed, known, watch, action.asked_by)
        except (SourceError, ArtifactError, StoreError) as error:
            # These errors do not mean wrong bytes, which are refused without an error. But an
            # incomplete upload may hide wrong bytes, so a recovery does not go on.
            unknown = isinstance(error, IncompleteArtifactError)
            if local and not (unknown and action.asked_by == Initiator.RECOVERY):
                _log.warning(
                    "verification.skipped", model=key[0], version=key[1], reason=error.reason
                )
                return None
            raise
        confirmed = self._confirmed.get(key)
        if stopped is None and (confirmed is None or confirmed.digest != action.digest):
            return self._found_other(action)
        return stopped

    def _known_wrong(
        self, action: Stage | Activate, listed: AspiredVersion, *, local: bool
    ) -> str | None:
        """Return why the registry is known to have other bytes, or None if it is not."""
        view = self.context.journal.view_of(listed.model)
        if found := quarantine_of(listed, view):
            return found.reason
        if listed.stamp_problem and action.asked_by not in (Initiator.OPERATOR, Initiator.GATEWAY):
            return listed.stamp_problem
        # A move by the registry is staged anew, with the bytes that the registry has now.
        return why_other_bytes(listed, action.digest, view) if local else None

    def _found_other(self, action: Stage | Activate) -> StepFailure | None:
        """Return why bytes that the registry no longer has must not serve, or None."""
        match action.asked_by:
            case Initiator.RECOVERY:
                return None  # the registry's new bytes are promoted later
            case Initiator.OPERATOR | Initiator.GATEWAY:
                return StepFailure(other_bytes(action.version), refused=True)
            case _:
                return StepFailure("the registry has other bytes now; they are staged first")

    async def _compare(
        self, listed: AspiredVersion, known: AcceptedDigest | None, watch: Stopwatch, asked_by: str
    ) -> StepFailure | None:
        """Compare the remote listings; if that is not enough, fetch and verify again."""
        key = (listed.model, listed.version)
        started_at = self.context.clock()
        if known is not None and known.listing is not None:
            listing = await self.context.threads.registry(self.intake.listing_of, listed)
            if listing == known.listing:
                self._confirmed[key] = _Confirmed(known.digest, started_at, self.context.clock())
                return None
        return await self._ingest(listed, watch, asked_by, again=True)

    def _is_confirmed(self, action: Stage | Activate) -> bool:
        """Whether the bytes were compared recently, after the alias was moved to them.

        A long comparison counts for longer, or else a standby could wait for ever.
        """
        found = self._confirmed.get((action.model, action.version))
        version, since = self.context.listings.target(action.model, action.alias)
        if found is None or (found.digest, version) != (action.digest, action.version):
            return False
        lasts_s = max(_CONFIRMATION_LASTS_S, 2 * (found.ended_at - found.began_at))
        # An end in the future dates from before the clock was set back: its age is unknown.
        return since <= found.began_at and 0 <= self.context.clock() - found.ended_at < lasts_s
