"""The places where registries keep bytes: list them, read them.

An S3 prefix, the artifact proxy of an MLflow server, a local folder, and whatever else MLflow's
own artifact repositories can download from.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from registry_sync.errors import (
    ArtifactTooLargeError,
    SourceError,
    SyncError,
    in_words,
)

if TYPE_CHECKING:
    pass

CHUNK_BYTES = 2**20


NEVER = threading.Event()
"""Of whoever waits for a listing to its end. Never set."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a location.

    Attributes:
        path: Relative to the location.
        size_bytes: Its size; None where the storage does not tell.
        mark: What changes when its content changes (ETag, times); None: the storage has no such.
    """

    path: str
    size_bytes: int | None
    mark: str | None


@dataclass(frozen=True, slots=True)
class RemoteListing:
    """Every file of a location at one time.

    Attributes:
        files: In byte order of the paths.
        newest_age_s: Seconds since the newest file was written, by the storage's own clock, or of
            a folder by this machine's; None: nobody tells.
    """

    files: tuple[RemoteFile, ...]
    newest_age_s: float | None = None

    def mark(self) -> str | None:
        """Return a value that changes when any file does; None: the storage cannot tell."""
        return None if any(file.mark is None for file in self.files) else self.weak_mark()

    def weak_mark(self) -> str:
        """Return a value that changes when files come, go or grow, whatever the storage tells."""
        lines = (f"{file.size_bytes} {file.mark} {file.path}\n" for file in self.files)
        return "sha256:" + hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


class Location(Protocol):
    """Where one artifact's files are. Blocking; `SourceError` when the storage fails.

    A listing may take many calls, and `read` of what only MLflow can read one per file: neither
    knows a time limit of its own. Whoever lists does so by `read_ahead.wait_for`, and stops
    waiting when the time is over; what goes on then is one call that nobody waits for, until the
    storage's time-out: S3 three tries of 30 s, MLflow's HTTP ``MLFLOW_HTTP_REQUEST_TIMEOUT``, other
    storages what their library says (``MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT``, where it knows
    it), a mounted folder the kernel's.
    """

    def files(self, max_files: int, left: threading.Event = NEVER) -> RemoteListing:
        """List every file, at most ``max_files``.

        Args:
            max_files: The most that there may be.
            left: Set once nobody waits any more: then no further call is made, and what is
                returned counts for nothing.

        Raises:
            SourceError: The storage did not answer.
            ArtifactTooLargeError: There are more.
            UnsafePathError: It lists a link, or something that is no file.
        """
        ...

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Yield the bytes of files, one after the other, in chunks beside the file they are of.

        Every file comes with at least one chunk; an empty one says no more than that time has
        passed. A generator: close it to let its connections go.

        Raises:
            SourceError: The storage did not answer.
            IncompleteArtifactError: It is not any more what was listed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a file may lie while MLflow downloads it.

    Attributes:
        folder: On the file system that the fetch writes to, and removed with it; None: the system's
            own, where nothing is read.
        max_bytes: How large a download may grow.
    """

    folder: Path | None = None
    max_bytes: int = 0


@contextmanager
def as_source_error(what: str) -> Iterator[None]:
    """Turn whatever a storage library raises into a `SourceError`; ours pass."""
    try:
        yield
    except SyncError:
        raise
    except Exception as error:  # boto3, requests, urllib3 and MLflow each have their own families
        raise SourceError(f"{what}: {in_words(error)}") from error


def _listing(
    files: Iterator[RemoteFile],
    max_files: int,
    left: threading.Event,
    age_s: Callable[[], float | None] = lambda: None,
) -> RemoteListing:
    """Collect files in canonical order, up to the limit, and while somebody waits for them."""
    collected: list[RemoteFile] = []
    for file in files:
        if left.is_set():
            break
        if len(collected) >= max_files:
            raise ArtifactTooLargeError(f"the artifact has more than {max_files} files")
        collected.append(file)
    collected.sort(key=lambda each: each.path.encode(errors="surrogateescape"))
    return RemoteListing(tuple(collected), age_s())


def _one_by_one(
    files: Sequence[RemoteFile], read: Callable[[RemoteFile], Iterator[bytes]]
) -> Iterator[tuple[RemoteFile, bytes]]:
    """Read files in order with ``read``, which gives generators."""
    for file in files:
        yield file, b""
        chunks = read(file)
        with closing(chunks):  # type: ignore[type-var]  # as said above
            for chunk in chunks:
                yield file, chunk


# --- S3 -----------------------------------------------------------------------------------------


def _timestamp(value: Any) -> datetime:
    """Return the time that an answer tells.

    Each object of a listing has one in ISO's form. botocore tries all forms there are, and takes
    most of a listing's time for it.
    """
    from botocore.utils import parse_timestamp

    try:
        told = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        told = parse_timestamp(value)
    return told if told.tzinfo else told.replace(tzinfo=UTC)


# --- the artifact proxy of an MLflow server ----------------------------------------------------


# --- a local folder ---------------------------------------------------------------------------


# --- anything else that MLflow can download from -------------------------------------------------
