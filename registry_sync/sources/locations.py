"""The places where registries keep bytes: list them, read them.

An S3 prefix, the artifact proxy of an MLflow server, a local folder, and whatever else MLflow's
own artifact repositories can download from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from gateway.system.logs import names_user, remember_location
from registry_sync.errors import (
    ArtifactTooLargeError,
    SourceError,
    SyncError,
    UnsafePathError,
    in_words,
)
from registry_sync.sources.allowed_places import check_place
from registry_sync.sources.bounded_answers import BoundedSession, bound_mlflow_answers
from registry_sync.sources.read_ahead import read_ahead
from registry_sync.sources.s3_parts import load_part, parts_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES = 2**20
_PARTS_AT_ONCE = 4
_MAX_DEPTH = 64
_MOST_FOLDER_MARKS = 1000  # beside as many as there may be files
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 30
_ATTEMPTS = 3
_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CONNECTIONS = 64  # kept open; every fetch reads several parts at a time


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


def open_location(
    uri: str, *, tracking_uri: str, s3: Callable[[], S3Client], scratch: Scratch
) -> Location:
    """Return the location that ``uri`` means. Asks nothing yet, but the server where a run's is.

    The names in ``uri`` are remembered, so that no caller reads them in the reason of a failure.

    Args:
        uri: Of any kind.
        tracking_uri: The MLflow server that ``mlflow-artifacts:`` means.
        s3: Gives the client for ``s3:``.
        scratch: For what only MLflow can read.

    Raises:
        ForbiddenPlaceError: It must not be asked.
        SourceError: It cannot be used.
    """
    remember_location(uri)
    check_place(uri, tracking_uri)
    scheme = urlsplit(uri).scheme
    with as_source_error(f"the artifact location {scheme or 'path'!r} cannot be used"):
        if scheme not in ("", "file", "s3"):
            bound_mlflow_answers()
        if scheme == "s3":
            return S3Location.at(uri, s3())
        if scheme == "mlflow-artifacts":
            return ProxyLocation.at(uri, tracking_uri)
        if scheme in ("", "file"):
            return LocalLocation.at(uri)
        if scheme == "runs":  # which MLflow keeps wherever somebody told it to
            place = _of_run(uri, tracking_uri)
            return open_location(place, tracking_uri=tracking_uri, s3=s3, scratch=scratch)
        return RepositoryLocation.at(uri, tracking_uri, scratch)


def _of_run(uri: str, tracking_uri: str) -> str:
    """Ask where the artifacts of a run are."""
    from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

    return str(RunsArtifactRepository.get_underlying_uri(uri, tracking_uri))


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


def refuse_passwords(environ: Mapping[str, str]) -> None:
    """Refuse an endpoint whose URL has a user or a password: boto3 repeats it in its errors.

    Raises:
        SourceError: A variable has one; the message names it and the remedy.
    """
    for name in _ENDPOINTS:
        if names_user(environ.get(name, "")):
            raise SourceError(
                f"{name} must be a URL without user and password, which logs and errors would "
                "show: take them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def connect_s3(environ: Mapping[str, str], *, read_timeout_s: float = _READ_TIMEOUT_S) -> S3Client:
    """Return a client for the endpoint that MLflow's or AWS's variables name. Any thread.

    Args:
        environ: The process's environment.
        read_timeout_s: The longest silence of the storage, in seconds.

    Raises:
        SourceError: An endpoint's URL has a password.
    """
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    refuse_passwords(environ)
    session = get_session()
    session.get_component("response_parser_factory").set_parser_defaults(
        timestamp_parser=_timestamp
    )
    style = environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "auto")
    unverified = environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
    client: S3Client = boto3.session.Session(botocore_session=session).client(
        "s3",
        endpoint_url=next((environ[one] for one in _ENDPOINTS if environ.get(one)), None),
        verify=False if unverified else None,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": _ATTEMPTS},
            s3={"addressing_style": style},  # type: ignore[arg-type]  # the user's word
        ),
    )
    endpoint = client._endpoint  # type: ignore[attr-defined]  # noqa: SLF001 - takes no session
    endpoint.http_session = BoundedSession(endpoint.http_session)
    return client


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


@dataclass(frozen=True, slots=True)
class S3Location:
    """The objects under a prefix of a bucket."""

    client: S3Client
    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str, client: S3Client) -> S3Location:
        """Return the location that an ``s3://bucket/prefix`` URI means."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        prefix = prefix.rstrip("/")
        return cls(client, bucket, f"{prefix}/" if prefix else "")

    def files(self, max_files: int, left: threading.Event = NEVER) -> RemoteListing:
        """List the prefix; see `Location`."""
        with as_source_error("the objects could not be listed"):
            newest: list[float] = []
            now: list[float] = []
            files = self._objects(newest, now, max_files + _MOST_FOLDER_MARKS, left)
            return _listing(
                files, max_files, left, lambda: now[0] - max(newest) if newest else None
            )

    def _objects(
        self, newest: list[float], now: list[float], max_marks: int, left: threading.Event
    ) -> Iterator[RemoteFile]:
        """Yield the objects, and note their times and the server's own.

        What consoles and file systems put there for a folder, the top one too, is none of them.

        Raises:
            ArtifactTooLargeError: There are more of these than ``max_marks``.
        """
        marks = 0
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
            if left.is_set():
                return
            date = page["ResponseMetadata"]["HTTPHeaders"]["date"]
            now.append(parsedate_to_datetime(date).timestamp())
            for each in page.get("Contents", []):
                path = each["Key"].removeprefix(self.prefix)
                if each["Size"] == 0 and (not path or path.endswith("/")):
                    marks += 1
                    if marks > max_marks:
                        raise ArtifactTooLargeError("the artifact has too many folders")
                    continue
                newest.append(each["LastModified"].timestamp())
                yield RemoteFile(path, each["Size"], each["ETag"])

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Read objects, while they are those listed, in parts that come side by side.

        Raises:
            SourceError, IncompleteArtifactError: See `Location`.
        """
        by_key = {self.prefix + file.path: file for file in files}
        parts = (
            part
            for key, file in by_key.items()
            for part in parts_of(self.bucket, key, file.mark or "", file.size_bytes or 0)
        )
        loaded = read_ahead(parts, partial(load_part, self.client), at_once=_PARTS_AT_ONCE)
        with as_source_error("the objects could not be read"), closing(loaded):
            for part, content in loaded:
                yield by_key[part.key], content or b""


# --- the artifact proxy of an MLflow server ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProxyLocation:
    """What an MLflow server hands through. It tells sizes, but neither ETag nor time.

    Attributes:
        repository: MLflow's own client of it: knows the address and the credentials.
    """

    repository: Any

    @classmethod
    def at(cls, uri: str, tracking_uri: str) -> ProxyLocation:
        """Return the location that an ``mlflow-artifacts:`` URI means on that server."""
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

        return cls(MlflowArtifactsRepository(uri, tracking_uri=tracking_uri))

    def files(self, max_files: int, left: threading.Event = NEVER) -> RemoteListing:
        """List recursively; see `Location`."""
        with as_source_error("the artifact's files could not be listed"):
            return _listing(_walk_repository(self.repository, max_files, left), max_files, left)

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Stream files over HTTP, with MLflow's own authentication; see `Location`."""
        return _one_by_one(files, self._read)

    def _read(self, file: RemoteFile) -> Iterator[bytes]:
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

        with as_source_error(f"{file.path!r} could not be read"):
            answer = http_request(
                get_default_host_creds(self.repository.artifact_uri),
                "/" + quote(file.path),
                "GET",
                stream=True,
            )
            with closing(answer):
                augmented_raise_for_status(answer)
                # What has come, as it comes: a slow drip would take hours to fill a chunk.
                while piece := answer.raw.read1(CHUNK_BYTES):
                    yield piece


def _walk_repository(
    repository: Any, max_files: int, left: threading.Event
) -> Iterator[RemoteFile]:
    """Yield every file of one of MLflow's artifact repositories, while somebody waits for them.

    Raises:
        ArtifactTooLargeError: More folders than there may be files, or nested too deep.
    """
    folders: list[str | None] = [None]
    visited = 0
    while folders and not left.is_set():
        folder = folders.pop()
        visited += 1
        if visited > max_files + 1 or (folder or "").count("/") > _MAX_DEPTH:
            raise ArtifactTooLargeError("the artifact has too many folders")
        for info in repository.list_artifacts(folder):
            if info.is_dir:
                folders.append(info.path)
            else:
                yield RemoteFile(info.path, info.file_size, None)


# --- a local folder ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalLocation:
    """A folder of this machine, or one that is mounted."""

    folder: Path

    @classmethod
    def at(cls, uri: str) -> LocalLocation:
        """Return the location that a path or a ``file:`` URI means."""
        parts = urlsplit(uri)
        return cls(Path(unquote(parts.path) if parts.scheme == "file" else uri))

    def files(self, max_files: int, left: threading.Event = NEVER) -> RemoteListing:
        """Walk the folder; see `Location`."""
        with as_source_error("the artifact's folder could not be listed"):
            newest: list[float] = []
            files = self._walk(self.folder, newest)
            return _listing(
                files, max_files, left, lambda: time.time() - max(newest) if newest else None
            )

    def _walk(self, folder: Path, newest: list[float]) -> Iterator[RemoteFile]:
        """Yield the regular files under ``folder``, and note when each was changed.

        Nobody can set that time, as a copy sets the time of its last writing to the original's.

        Raises:
            UnsafePathError: There is a link, a device, a socket or a pipe.
        """
        with os.scandir(folder) as entries:
            for entry in entries:
                path = str(Path(entry.path).relative_to(self.folder))
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    yield from self._walk(Path(entry.path), newest)
                elif stat.S_ISREG(status.st_mode):
                    mark = f"{status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
                    newest.append(status.st_ctime)
                    yield RemoteFile(path, status.st_size, mark)
                else:
                    raise UnsafePathError(f"{path!r} is a link or no ordinary file")

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Read files, never through a link; see `Location`."""
        return _one_by_one(files, self._read)

    def _read(self, file: RemoteFile) -> Iterator[bytes]:
        with as_source_error(f"{file.path!r} could not be read"):
            descriptor = os.open(self.folder / file.path, os.O_RDONLY | os.O_NOFOLLOW)
            with open(descriptor, "rb") as stream:  # noqa: PTH123  # opened without following links
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk


# --- anything else that MLflow can download from -------------------------------------------------


@dataclass(frozen=True, slots=True)
class RepositoryLocation:
    """A storage that only MLflow's own artifact repository knows (gs, abfss, hdfs …).

    Attributes:
        repository: MLflow's client of it.
        scratch: Where it downloads to.
    """

    repository: Any
    scratch: Scratch

    @classmethod
    def at(cls, uri: str, tracking_uri: str, scratch: Scratch) -> RepositoryLocation:
        """Return the location of any scheme for which MLflow has a repository."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return cls(get_artifact_repository(uri, tracking_uri=tracking_uri), scratch)

    def files(self, max_files: int, left: threading.Event = NEVER) -> RemoteListing:
        """List recursively; see `Location`."""
        with as_source_error("the artifact's files could not be listed"):
            return _listing(_walk_repository(self.repository, max_files, left), max_files, left)

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Let MLflow download each file, and read it from there; see `Location`."""
        return _one_by_one(files, self._read)

    def _read(self, file: RemoteFile) -> Iterator[bytes]:
        """Yield a file's bytes; an empty chunk whenever the download has taken a while longer.

        Raises:
            ArtifactTooLargeError: It has grown too large meanwhile.
        """
        own = Path(tempfile.mkdtemp(prefix="download-", dir=self.scratch.folder))
        downloads = read_ahead([file], partial(self._download, own), at_once=1)
        try:
            with as_source_error(f"{file.path!r} could not be read"), closing(downloads):
                for _, downloaded in downloads:
                    if downloaded is None:
                        self._check_growth(own)
                        yield b""
                        continue
                    with downloaded.open("rb") as stream:
                        while chunk := stream.read(CHUNK_BYTES):
                            yield chunk
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def _check_growth(self, own: Path) -> None:
        """Look at what has been written so far, under whatever name.

        Raises:
            ArtifactTooLargeError: It is too much.
        """
        written = 0
        for folder, _, names in os.walk(own):
            for name in names:
                with suppress(FileNotFoundError):  # renamed meanwhile
                    written += Path(folder, name).stat(follow_symlinks=False).st_size
        if written > self.scratch.max_bytes:
            raise ArtifactTooLargeError(
                f"the artifact has more than {self.scratch.max_bytes} bytes"
            )

    def _download(self, own: Path, file: RemoteFile, left: threading.Event) -> Path:
        try:
            return Path(self.repository.download_artifacts(file.path, dst_path=str(own)))
        finally:
            if left.is_set():  # the reader has removed it before all this was written
                shutil.rmtree(own, ignore_errors=True)
