"""Artifacts behind an MLflow server, or in storages that only MLflow's client reads."""

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
from typing import Any
from urllib.parse import quote

from registry_sync.errors import ArtifactTooLargeError
from registry_sync.sources.storage.location import (
    CHUNK_BYTES,
    NEVER,
    RemoteFile,
    RemoteListing,
    ScratchFolder,
    as_source_error,
    collect_listing,
    read_each,
)
from registry_sync.sources.storage.watched_reads import parts_in_order

_MAX_DEPTH = 64


def uri_of_run(uri: str, tracking_uri: str) -> str:
    """Return the URI of a run's artifacts, from the MLflow server."""
    from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

    return str(RunsArtifactRepository.get_underlying_uri(uri, tracking_uri))


@dataclass(frozen=True, slots=True)
class _Repository:
    """A storage behind MLflow's client, ``repository``, which has address and credentials."""

    repository: Any

    def files(self, max_files: int, cancelled: threading.Event = NEVER) -> RemoteListing:
        """List recursively; see `Location`."""
        with as_source_error("the artifact's files could not be listed"):
            files = _walk_repository(self.repository, max_files, cancelled)
            return collect_listing(files, max_files, cancelled)


@dataclass(frozen=True, slots=True)
class ProxyLocation(_Repository):
    """The artifact proxy of an MLflow server, which gives sizes, but neither ETags nor times."""

    @classmethod
    def at(cls, uri: str, tracking_uri: str) -> ProxyLocation:
        """Return the location of an ``mlflow-artifacts:`` URI on a server."""
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

        return cls(MlflowArtifactsRepository(uri, tracking_uri=tracking_uri))

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Stream files over HTTP, with MLflow's own authentication; see `Location`."""
        return read_each(files, self._read)

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
                # Bytes as they arrive: a slow server may take hours to fill a chunk.
                while piece := answer.raw.read1(CHUNK_BYTES):
                    yield piece


def _walk_repository(
    repository: Any, max_files: int, cancelled: threading.Event
) -> Iterator[RemoteFile]:
    """Yield every file of an MLflow artifact repository."""
    folders: list[str | None] = [None]
    visited = 0
    while folders and not cancelled.is_set():
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
class RepositoryLocation(_Repository):
    """A storage that only MLflow's client supports (gs, abfss, hdfs …)."""

    scratch: ScratchFolder

    @classmethod
    def at(cls, uri: str, tracking_uri: str, scratch: ScratchFolder) -> RepositoryLocation:
        """Return the location of a URI with a scheme that MLflow supports."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return cls(get_artifact_repository(uri, tracking_uri=tracking_uri), scratch)

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Download each file with MLflow, and read it; see `Location`."""
        return read_each(files, self._read)

    def _read(self, file: RemoteFile) -> Iterator[bytes]:
        """Yield a file's bytes, with empty chunks as heartbeats during the download.

        Raises:
            ArtifactTooLargeError: The download is too large.
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
        """Check the size of the download so far, under any name."""
        written = 0
        for folder, _, names in os.walk(own):
            for name in names:
                with suppress(FileNotFoundError):  # renamed meanwhile
                    written += Path(folder, name).stat(follow_symlinks=False).st_size
        if written > self.scratch.max_bytes:
            raise ArtifactTooLargeError(
                f"the artifact has more than {self.scratch.max_bytes} bytes"
            )

    def _download(self, own: Path, file: RemoteFile, cancelled: threading.Event) -> Path:
        try:
            return Path(self.repository.download_artifacts(file.path, dst_path=str(own)))
        finally:
            if cancelled.is_set():  # the reader removed the folder before the download ended
                shutil.rmtree(own, ignore_errors=True)
