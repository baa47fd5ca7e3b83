"""Bytes that an MLflow server passes on, or that MLflow's own repositories read."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from registry_sync.errors import (
    ArtifactTooLargeError,
)
from registry_sync.sources.storage.read_ahead import parts_in_order

if TYPE_CHECKING:
    pass
from registry_sync.sources.storage.location import (
    CHUNK_BYTES,
    NEVER,
    RemoteFile,
    RemoteListing,
    Scratch,
    _listing,
    _one_by_one,
    as_source_error,
)

_MAX_DEPTH = 64


def _of_run(uri: str, tracking_uri: str) -> str:
    """Ask where the artifacts of a run are."""
    from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

    return str(RunsArtifactRepository.get_underlying_uri(uri, tracking_uri))


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
        downloads = parts_in_order([file], partial(self._download, own), at_once=1)
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
