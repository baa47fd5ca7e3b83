"""The port to a location of artifacts, and functions that its kinds share.

Kinds: an S3 prefix, the artifact proxy of an MLflow server, a local folder, and the repositories of
MLflow's client.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry_sync.artifacts import UNSTORED_FILES, check_paths
from registry_sync.errors import (
    ArtifactError,
    ArtifactTooLargeError,
    SourceError,
    SyncError,
    error_text,
)

CHUNK_BYTES = 2**20
NEVER = threading.Event()
"""The event of a listing that cannot be cancelled; never set."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a location.

    Attributes:
        size_bytes: Size, or None if the storage does not give one.
        mark: ETag or times, which change with the content, or None if the storage gives neither.
    """

    path: str
    size_bytes: int | None
    mark: str | None


@dataclass(frozen=True, slots=True)
class RemoteListing:
    """Every file of a location at one time, in byte order of the paths.

    ``newest_age_s`` are the seconds since the newest file was written, by the storage's clock, or
    None if unknown.
    """

    files: tuple[RemoteFile, ...]
    newest_age_s: float | None = None

    def mark(self) -> str | None:
        """Return a value that changes with any file, or None if the storage has no marks."""
        return None if any(file.mark is None for file in self.files) else self.weak_mark()

    def weak_mark(self) -> str:
        """Return a value that changes when files are added, removed or resized."""
        lines = (f"{file.size_bytes} {file.mark} {file.path}\n" for file in self.files)
        return "sha256:" + hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


class Location(Protocol):
    """The location of one artifact's files. Blocking; raises `SourceError` on failure.

    Neither `files` nor `read` has a time limit; callers list through `watched_reads.wait_for`.
    After a cancellation one call may go on until the storage's timeout: three attempts of 30 s for
    S3, ``MLFLOW_HTTP_REQUEST_TIMEOUT`` for MLflow's HTTP, else the library's or the kernel's.
    """

    def files(self, max_files: int, cancelled: threading.Event = NEVER) -> RemoteListing:
        """List every file.

        Once ``cancelled`` is set, no further call is made, and the result is unspecified.

        Raises:
            SourceError: The storage did not answer.
            ArtifactTooLargeError: There are more than ``max_files``.
            UnsafePathError: There is a link or a special file.
        """
        ...

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Yield the bytes of files, in order, as chunks with their file.

        Every file has at least one chunk; empty chunks are heartbeats. Close the generator to
        release its connections.

        Raises:
            SourceError: The storage did not answer.
            IncompleteArtifactError: A file has changed since it was listed.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScratchFolder:
    """The folder for downloads by MLflow, and their most bytes.

    It is on the fetch's file system and removed with the fetch; None is the system's temporary one.
    """

    folder: Path | None = None
    max_bytes: int = 0


@contextmanager
def about(listing: RemoteListing) -> Iterator[None]:
    """Attach the listing to an artifact's error."""
    try:
        yield
    except ArtifactError as error:
        error.listing = error.listing or listing.mark()
        raise


def stored_part(listing: RemoteListing, max_files: int) -> RemoteListing:
    """Return a listing without MLflow's own files; refuse too many files and unsafe paths."""
    files = tuple(file for file in listing.files if file.path not in UNSTORED_FILES)
    if len(files) > max_files:
        raise ArtifactTooLargeError(f"the artifact has more than {max_files} files")
    stored = RemoteListing(files, listing.newest_age_s)
    with about(stored):
        check_paths(file.path for file in files)
    return stored


@contextmanager
def as_source_error(what: str) -> Iterator[None]:
    """Convert any error of a storage library to a `SourceError`; our own errors pass."""
    try:
        yield
    except SyncError:
        raise
    except Exception as error:  # boto3, requests, urllib3 and MLflow each have their own families
        raise SourceError(f"{what}: {error_text(error)}") from error


def collect_listing(
    files: Iterator[RemoteFile],
    max_files: int,
    cancelled: threading.Event,
    age_s: Callable[[], float | None] = lambda: None,
) -> RemoteListing:
    """Return the listing of files, in canonical order.

    Raises:
        ArtifactTooLargeError: There are more than ``max_files``.
    """
    collected: list[RemoteFile] = []
    for file in files:
        if cancelled.is_set():
            break
        if len(collected) >= max_files:
            raise ArtifactTooLargeError(f"the artifact has more than {max_files} files")
        collected.append(file)
    collected.sort(key=lambda each: each.path.encode(errors="surrogateescape"))
    return RemoteListing(tuple(collected), age_s())


def read_each(
    files: Sequence[RemoteFile], read: Callable[[RemoteFile], Iterator[bytes]]
) -> Iterator[tuple[RemoteFile, bytes]]:
    """Yield the chunks of files, in order; ``read`` returns a generator per file."""
    for file in files:
        yield file, b""
        chunks = read(file)
        with closing(chunks):  # type: ignore[type-var]  # a generator
            for chunk in chunks:
                yield file, chunk
