"""Bring an artifact's bytes into a folder of this node, hashing them as they stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry_sync.manifest import Manifest

OnProgress = Callable[[int, int | None], None]
"""Called as bytes arrive with (bytes so far, bytes in all or None). Raising from it aborts."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may use.

    Attributes:
        max_bytes: Bytes of one artifact.
        max_files: Files of one artifact.
        timeout_s: Seconds for the whole fetch.
        disk_floor_bytes: Free bytes that must remain on the staging file system.
        settle_s: An upload whose newest object is younger than this is incomplete; applies where
            the storage tells times that its own clock made (object stores).
    """

    max_bytes: int = 20 * 2**30
    max_files: int = 10_000
    timeout_s: float = 3600.0
    disk_floor_bytes: int = 2**30
    settle_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought.

    Attributes:
        folder: Where the files are.
        manifest: What they are; its ``digest`` is the artifact's.
        size_bytes: Bytes of all files.
        listing: The remote listing that these bytes belong to, to be compared with
            `Fetcher.remote_listing` later; None: the storage offers neither ETag nor time.
    """

    folder: Path
    manifest: Manifest
    size_bytes: int
    listing: str | None


class Fetcher:
    """Reads artifacts from any location that MLflow can hand out.

    All methods block and belong on a thread; several threads may fetch at once.
    """

    def __init__(
        self, *, tracking_uri: str, limits: FetchLimits, environ: Mapping[str, str]
    ) -> None:
        """Store; connections are made by the calls that need them.

        Args:
            tracking_uri: The MLflow server that ``mlflow-artifacts:`` means.
            limits: What one fetch may use.
            environ: The process's environment: the S3 endpoint and its options.
        """
        self._tracking_uri = tracking_uri
        self._limits = limits
        self._environ = environ

    def remote_listing(self, uri: str) -> str | None:
        """Return a value that changes when what is stored at ``uri`` changes.

        Over path, size and ETag or time of every object. None: the storage offers neither, so only
        fetching and hashing again tells.

        Raises:
            SourceError: The storage did not answer.
            ArtifactError: It lists something that is refused.
        """
        raise NotImplementedError

    def fetch(self, uri: str, into: Path, *, on_progress: OnProgress | None = None) -> Fetched:
        """Stream everything at ``uri`` into ``into``, a new folder.

        Args:
            uri: As `Source.locate` gave it.
            into: Must not exist; its parent must. Left behind on errors, for its owner to remove.
            on_progress: See `OnProgress`.

        Raises:
            SourceError: The storage did not answer.
            IncompleteArtifactError: Files missing, or the upload is still moving (transient).
            FetchTimeoutError, NoDiskRoomError: The limits, this time (transient).
            ArtifactTooLargeError, UnsafePathError, BrokenModelError: The bytes are refused.
        """
        raise NotImplementedError
