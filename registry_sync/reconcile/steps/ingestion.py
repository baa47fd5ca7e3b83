"""Ingests one version: locate → fetch → verify → describe → store. Blocking.

Files are read only after they were verified against the expected digest, if there is one. Wrong
bytes are read only to see whether files are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from registry_sync.artifacts import (
    Acceptance,
    ArtifactStore,
    FetchedArtifact,
    Manifest,
    StoredArtifact,
    accepted_digest,
    check_complete,
    describe,
    verify,
)
from registry_sync.domain import AcceptedDigest, AspiredVersion, is_of_creation, was_made_after
from registry_sync.errors import (
    ArtifactError,
    BrokenModelError,
    IncompleteArtifactError,
    ReplacedError,
    StoreError,
)
from registry_sync.reconcile.steps.outcome import Stopwatch
from registry_sync.sources import OnProgress, Reserve, Source

MakeRoom = Callable[[Path, int], None]
"""Books room for a folder of the store's `incoming` and its total bytes, by having other artifacts
removed. Raises `NoDiskRoomError`."""


class Fetches(Protocol):
    """A fetcher; see `registry_sync.sources.storage.fetcher.Fetcher`."""

    def remote_listing(self, uri: str, *, on_progress: OnProgress | None = None) -> str | None:
        """Return a value that changes with the files at ``uri``, or None if unknown."""
        ...

    def fetch(
        self,
        uri: str,
        into: Path,
        *,
        judged: bool = False,
        on_progress: OnProgress | None = None,
        reserve: Reserve | None = None,
    ) -> FetchedArtifact:
        """Stream everything at ``uri`` into ``into``."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An order to ingest a version.

    Attributes:
        version: The version, as it was listed.
        creation: The creation of the version.
        accepted: The accepted digest of this creation, or None if the ledger has none.
    """

    version: AspiredVersion
    creation: str
    accepted: AcceptedDigest | None = None


@dataclass(frozen=True, slots=True)
class IngestedArtifact:
    """Bytes that were verified and stored."""

    artifact: StoredArtifact
    accepted: AcceptedDigest


@dataclass(frozen=True, slots=True)
class RefusedArtifact:
    """Wrong bytes: the same ones would be refused again.

    Attributes:
        found: Their digest, or None if they are not readable as an artifact.
        listing: The remote listing of these bytes, or None if unknown.
        reason: A sentence for users.
    """

    found: str | None
    listing: str | None
    reason: str


class Ingestion:
    """Ingests versions. Blocking; several threads may use it at once.

    ``clock`` returns epoch seconds.
    """

    def __init__(
        self,
        *,
        source: Source,
        fetcher: Fetches,
        store: ArtifactStore,
        require_digest: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._fetcher = fetcher
        self._store = store
        self._require_digest = require_digest
        self._clock = clock

    def bring(
        self,
        order: Order,
        *,
        watch: Stopwatch,
        on_progress: OnProgress | None = None,
        make_room: MakeRoom | None = None,
    ) -> IngestedArtifact | RefusedArtifact:
        """Fetch, verify, describe and store a version.

        Args:
            order: The version. Without an accepted digest, that of the store counts: the ledger may
                have been lost.
            watch: Records the seconds of each phase.
            on_progress: See `OnProgress`.
            make_room: Called if the store's budget is full, or None to ignore the budget.

        Raises:
            SourceError: The registry or its storage did not answer.
            ArtifactError: A transient one: incomplete, too slow, no room.
            StoreError: The store cannot be read, or cannot take it.
        """
        version = order.version
        with watch.phase("locate"):
            uri = self._source.locate(version.model, version.version)
            known = order.accepted or self._accepted_in_store(order)
            is_known = version.stamped or known is not None
            judged = is_known or self._source.is_whole(version)
        fetched: FetchedArtifact | None = None
        try:
            with self._store.incoming() as folder:
                reserve = partial(self._reserve, make_room, folder) if make_room else None
                with watch.phase("fetch"):
                    fetched = self._fetcher.fetch(
                        uri, folder, judged=judged, on_progress=on_progress, reserve=reserve
                    )
                self._check_creation(version)
                return self._accept(order, known, fetched, watch)
        except ArtifactError as error:
            if error.transient:
                raise
            # The listing of these bytes: the registry may have others by now.
            listing = fetched.listing if fetched else error.listing
            return RefusedArtifact(None, listing, error.reason)

    def _reserve(self, make_room: MakeRoom, folder: Path, total_bytes: int) -> None:
        """Book room for a fetch; have room made if the budget is full.

        Raises:
            NoDiskRoomError: The room cannot be made.
        """
        if self._store.book(folder, total_bytes) > 0:
            make_room(folder, total_bytes)

    def _accepted_in_store(self, order: Order) -> AcceptedDigest | None:
        listed = order.version
        found = self._store.find_accepted(listed.model, listed.version, mark=listed.creation)
        if found is None or not is_of_creation(found[1].creation, order.creation):
            return None
        known = accepted_digest(*found)
        return None if was_made_after(listed, known) else known

    def _check_creation(self, version: AspiredVersion) -> None:
        """Check that the bytes are of the listed creation: a location depends on the number.

        Raises:
            SourceError: The registry did not answer.
            ReplacedError: The version was made anew meanwhile.
        """
        if version.creation is None:
            return
        now = self._source.version(version.model, version.version)
        if now.creation != version.creation:
            raise ReplacedError(
                f"version {version.version} was made anew in the registry while its bytes were "
                "fetched; it is fetched again after the next listing"
            )

    def _accept(
        self,
        order: Order,
        known: AcceptedDigest | None,
        fetched: FetchedArtifact,
        watch: Stopwatch,
    ) -> IngestedArtifact | RefusedArtifact:
        """Verify, describe and store a fetched artifact.

        Raises:
            IncompleteArtifactError: The digest is wrong, and files are missing or may still change.
            ArtifactError, StoreError: See `bring`.
        """
        version = order.version
        with watch.phase("verify"):
            verified = verify(
                fetched.manifest,
                stamped=version.expected_digest,
                accepted=known.digest if known else None,
                stamp_fixed=version.stamp_fixed,
                require_digest=self._require_digest,
                known=self._known_manifest(known),
            )
        if not verified.accepted:
            with suppress(BrokenModelError):  # the digest is wrong in any case
                check_complete(fetched.folder)
            if not (fetched.stable or self._source.is_whole(version)):
                raise IncompleteArtifactError(
                    f"{verified.reason}; the upload may be unfinished: it is fetched again"
                )
            return RefusedArtifact(verified.found, fetched.listing, verified.reason)
        with watch.phase("store"):
            acceptance = Acceptance(
                model=version.model,
                version=version.version,
                listing=fetched.listing,
                expected_digest=verified.expected,
                stamped=version.stamped,
                creation=order.creation,
                accepted_at=self._clock(),
            )
            artifact = self._store.add(fetched, describe(fetched), acceptance)
        return IngestedArtifact(artifact, accepted_digest(artifact, acceptance))

    def _known_manifest(self, known: AcceptedDigest | None) -> Manifest | None:
        if known is None or self._store.get(known.digest) is None:
            return None
        try:
            return self._store.manifest(known.digest)
        except StoreError:
            return None  # the manifest only improves the message

    def listing_of(self, version: AspiredVersion) -> str | None:
        """Return the present remote listing, or None if unknown; a fetch reports why.

        Raises:
            SourceError: The registry or its storage did not answer.
        """
        try:
            return self._fetcher.remote_listing(self._source.locate(version.model, version.version))
        except ArtifactError:
            return None
