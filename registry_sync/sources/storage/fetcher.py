"""Fetch an artifact's bytes into a folder of this node and hash them as they arrive."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import LRUCache

from registry_sync.artifacts import UNSTORED_FILES, FetchedArtifact, Manifest
from registry_sync.errors import (
    ArtifactTooLargeError,
    FetchTimeoutError,
    IncompleteArtifactError,
    NoDiskRoomError,
    SourceError,
    StoreError,
    UnstableUploadError,
)
from registry_sync.sources.storage.location import (
    Location,
    RemoteFile,
    RemoteListing,
    ScratchFolder,
    about,
    stored_part,
)
from registry_sync.sources.storage.resolve import open_location
from registry_sync.sources.storage.s3 import connect_s3
from registry_sync.sources.storage.watched_reads import wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["FetchLimits", "FetchedArtifact", "Fetcher", "OnProgress", "Reserve"]

_MOST_SEEN = 10_000

OnProgress = Callable[[int, int | None], None]
"""Called as bytes arrive, with (bytes so far, bytes in all or None). An error in it aborts."""

Reserve = Callable[[int], None]
"""Called with the artifact's size before bytes are written: once if the storage lists sizes, else
before every chunk, with the size so far. An error in it aborts."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """The limits of one fetch.

    Attributes:
        timeout_s: Seconds for the whole fetch.
        disk_floor_bytes: Free bytes that must remain on the file system of the fetch.
        stable_after_s: Seconds without a change after which an upload is complete: by the age of
            the newest file or, if the storage has no times, by the listings of this process.
    """

    max_bytes: int = 20 * 2**30
    max_files: int = 10_000
    timeout_s: float = 3600.0
    disk_floor_bytes: int = 2**30
    stable_after_s: float = 5.0


@dataclass(frozen=True, slots=True)
class _SeenListing:
    """The last listing of a location.

    Attributes:
        since_s: Clock at the first listing with this mark.
        moved: Whether an earlier listing had another mark.
    """

    mark: str
    since_s: float
    moved: bool


class Fetcher:
    """Reads artifacts from any location that MLflow can hand out.

    All methods block and belong on a thread; several threads may fetch at once. ``environ`` has the
    S3 endpoint and its options; ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        limits: FetchLimits,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracking_uri = tracking_uri
        self._limits = limits
        self._environ = environ
        self._clock = clock
        self._connecting = threading.Lock()
        self._client: S3Client | None = None
        self._seen: LRUCache[str, _SeenListing] = LRUCache(_MOST_SEEN)
        self._noting = threading.Lock()

    def remote_listing(self, uri: str, *, on_progress: OnProgress | None = None) -> str | None:
        """Return a value that changes when the files at ``uri`` change, or None.

        It covers the path, size and ETag or time of every file. None means that the storage has
        neither ETags nor times: then the bytes must be fetched and hashed again.

        Raises:
            SourceError: The storage did not answer within the time limit of a fetch.
            ArtifactError: The listing is refused.
        """
        on_beat = _Budget(self._limits, self._clock, on_progress).wait
        try:
            return self._list(
                wait_for(lambda _left: self._open(uri, ScratchFolder()), on_beat), on_beat
            ).mark()
        except FetchTimeoutError as error:
            raise SourceError(
                f"the storage did not list the artifact within {self._limits.timeout_s:.0f} s"
            ) from error

    def fetch(
        self,
        uri: str,
        into: Path,
        *,
        judged: bool = False,
        on_progress: OnProgress | None = None,
        reserve: Reserve | None = None,
    ) -> FetchedArtifact:
        """Fetch all files at ``uri`` into ``into``, a new folder, without parsing them.

        Args:
            uri: A URI from `Source.locate`.
            into: Must not exist; its parent must, and holds temporary files too. After an error it
                stays, for its owner to remove.
            judged: True if a digest or the registry shows that the bytes are complete: then a young
                upload is fetched too, unless it was seen changing.
            on_progress: See `OnProgress`.
            reserve: See `Reserve`.

        Raises:
            SourceError: The storage did not answer.
            IncompleteArtifactError: No MLmodel, or the upload is still moving (transient).
            FetchTimeoutError, NoDiskRoomError: The limits, this time (transient).
            ArtifactTooLargeError, UnsafePathError, ForbiddenUriError: The bytes or URI are refused.
            StoreError: This node's disk failed.
        """
        budget = _Budget(self._limits, self._clock, on_progress)
        # Opening a location may call MLflow, which has the URI of a run's artifacts.
        scratch = ScratchFolder(into.parent, self._limits.max_bytes)
        location = wait_for(lambda _left: self._open(uri, scratch), budget.wait)
        before = self._list(location, budget.wait)
        with about(before):
            if not any(file.path == "MLmodel" for file in before.files):
                raise IncompleteArtifactError("the artifact has no MLmodel file (yet)")
            self._check_stable(uri, before, judged=judged)
            budget.check_listing(before, into.parent, reserve)
            with _as_store_error():
                into.mkdir()
            files = _bring_all(location, before, into, budget)
            after = self._list(location, budget.wait)
            still_s, _ = self._still(uri, after)
            if after.files != before.files:
                raise IncompleteArtifactError(
                    "the artifact's files changed while they were fetched"
                )
            manifest = Manifest.of(files)
        return FetchedArtifact(
            folder=into,
            manifest=manifest,
            size_bytes=budget.arrived_bytes,
            listing=before.mark(),
            stable=still_s >= self._limits.stable_after_s,
        )

    def _check_stable(self, uri: str, listing: RemoteListing, *, judged: bool) -> None:
        """Refuse an upload that may be in progress."""
        still_s, moved = self._still(uri, listing)
        if still_s >= self._limits.stable_after_s or (judged and not moved):
            return
        age = (
            "the newest file is {} s old"
            if listing.newest_age_s is not None
            else "the files have been unchanged for {} s"
        )
        raise UnstableUploadError(
            f"{age.format(round(max(still_s, 0)))}; an upload counts as complete after "
            f"{self._limits.stable_after_s:.0f} s"
        )

    def _still(self, uri: str, listing: RemoteListing) -> tuple[float, bool]:
        """Return the seconds since the last change, and whether a change was seen."""
        now_s, mark = self._clock(), listing.weak_mark()
        with self._noting:
            seen = self._seen.get(uri)
            if seen is None or seen.mark != mark:
                seen = self._seen[uri] = _SeenListing(mark, now_s, moved=seen is not None)
        age_s = listing.newest_age_s
        return (now_s - seen.since_s if age_s is None else age_s), seen.moved

    def _open(self, uri: str, scratch: ScratchFolder) -> Location:
        return open_location(uri, tracking_uri=self._tracking_uri, s3=self._s3, scratch=scratch)

    def _s3(self) -> S3Client:
        """Return the shared client; making one takes a tenth of a second of CPU."""
        with self._connecting:
            self._client = self._client or connect_s3(self._environ)
            return self._client

    def _list(self, location: Location, on_beat: Callable[[], None]) -> RemoteListing:
        """List a location without MLflow's own files, and refuse unsafe paths.

        ``on_beat`` is called while the listing is awaited; an error in it abandons the listing.
        """
        max_files = self._limits.max_files + len(UNSTORED_FILES)
        listing = wait_for(partial(location.files, max_files), on_beat)
        return stored_part(listing, self._limits.max_files)


class _Budget:
    """The time and the bytes that one fetch has used so far, and its limits."""

    def __init__(
        self, limits: FetchLimits, clock: Callable[[], float], on_progress: OnProgress | None
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._on_progress = on_progress
        self._deadline = clock() + limits.timeout_s
        self._disk = Path()
        self._reserve: Reserve | None = None
        self._reserved_bytes = 0
        self._total: int | None = None
        self.arrived_bytes = 0

    def check_listing(self, listing: RemoteListing, disk: Path, reserve: Reserve | None) -> None:
        """Refuse a listing that exceeds the limits, before a byte is written to ``disk``.

        Raises:
            ArtifactTooLargeError, NoDiskRoomError: The artifact would not fit.
        """
        self._disk, self._reserve = disk, reserve
        sizes = [file.size_bytes for file in listing.files]
        self._total = sum(s for s in sizes if s is not None) if None not in sizes else None
        self._check_bytes(self._total or 0)
        self._check_room(self._total or 0)
        self._check_disk(self._total or 0)

    def spend(self, count: int) -> None:
        """Count bytes that are about to be written; without bytes, only check the clock.

        Raises:
            ArtifactTooLargeError, NoDiskRoomError, FetchTimeoutError: A limit is reached.
        """
        self.arrived_bytes += count
        self._check_bytes(self.arrived_bytes)
        self._check_room(self.arrived_bytes)
        self._check_disk(count)
        self.wait()

    def wait(self) -> None:
        """Check the clock, and report progress.

        Raises:
            FetchTimeoutError: The time limit is exceeded.
        """
        if self._clock() > self._deadline:
            raise FetchTimeoutError(f"the fetch took more than {self._limits.timeout_s:.0f} s")
        if self._on_progress:
            self._on_progress(self.arrived_bytes, self._total)

    def _check_bytes(self, count: int) -> None:
        if count > self._limits.max_bytes:
            raise ArtifactTooLargeError(
                f"the artifact has more than {self._limits.max_bytes} bytes"
            )

    def _check_room(self, count: int) -> None:
        if self._reserve and count > self._reserved_bytes:
            self._reserve(count)
            self._reserved_bytes = count

    def _check_disk(self, coming_bytes: int) -> None:
        with _as_store_error():
            free = shutil.disk_usage(self._disk).free
        if free - coming_bytes < self._limits.disk_floor_bytes:
            raise NoDiskRoomError(
                f"{free} bytes are free on this node's disk; {coming_bytes} more would leave less "
                f"than {self._limits.disk_floor_bytes}"
            )


def _bring_all(
    location: Location, listing: RemoteListing, into: Path, budget: _Budget
) -> dict[str, str]:
    """Write every file below ``into``; return the hexadecimal SHA-256 of each, by its path."""
    written: dict[str, str] = {}
    chunks = location.read(listing.files)
    with closing(chunks):  # type: ignore[type-var]  # every read is a generator
        for file, own in groupby(chunks, key=itemgetter(0)):
            written[file.path] = _bring(file, map(itemgetter(1), own), into, budget)
    missing = next((file.path for file in listing.files if file.path not in written), None)
    if missing is not None:
        raise IncompleteArtifactError(f"{missing!r} was listed, but the storage did not send it")
    return written


def _create(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o600)


def _bring(file: RemoteFile, chunks: Iterator[bytes], into: Path, budget: _Budget) -> str:
    """Write one file below ``into``; return the hexadecimal SHA-256 of the written bytes."""
    target = into / file.path
    digest = hashlib.sha256()
    arrived = 0
    with _as_store_error():
        target.parent.mkdir(parents=True, exist_ok=True)
        out = io.FileIO(target, "x", opener=_create)
    with out:
        for chunk in chunks:
            budget.spend(len(chunk))
            digest.update(chunk)
            arrived += len(chunk)
            with _as_store_error():
                _write_all(out.fileno(), chunk)
    if file.size_bytes is not None and arrived != file.size_bytes:
        raise IncompleteArtifactError(
            f"{file.path!r} was listed with {file.size_bytes} bytes, but {arrived} arrived"
        )
    return digest.hexdigest()


def _write_all(descriptor: int, chunk: bytes) -> None:
    """Write a whole chunk, in as many calls as the system needs."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _as_store_error() -> Iterator[None]:
    """Raise an error of this node's disk as a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"this node's disk failed: {error.strerror}") from error
