"""Artifacts in a folder of this machine."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from registry_sync.errors import UnsafePathError
from registry_sync.sources.storage.location import (
    CHUNK_BYTES,
    NEVER,
    RemoteFile,
    RemoteListing,
    as_source_error,
    collect_listing,
    read_each,
)


@dataclass(frozen=True, slots=True)
class LocalLocation:
    """A folder of this machine, mounted or not."""

    folder: Path

    @classmethod
    def at(cls, uri: str) -> LocalLocation:
        """Return the location of a path or a ``file:`` URI."""
        parts = urlsplit(uri)
        return cls(Path(unquote(parts.path) if parts.scheme == "file" else uri))

    def files(self, max_files: int, cancelled: threading.Event = NEVER) -> RemoteListing:
        """Walk the folder; see `Location`."""
        with as_source_error("the artifact's folder could not be listed"):
            newest: list[float] = []
            files = self._walk(self.folder, newest)
            return collect_listing(
                files, max_files, cancelled, lambda: time.time() - max(newest) if newest else None
            )

    def _walk(self, folder: Path, newest: list[float]) -> Iterator[RemoteFile]:
        """Yield the regular files under ``folder``; add their change times to ``newest``.

        A copy can set the time of modification, but not the time of change.
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
                    raise UnsafePathError(f"{path!r} is a link or not an ordinary file")

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Read files, never through a link; see `Location`."""
        return read_each(files, self._read)

    def _read(self, file: RemoteFile) -> Iterator[bytes]:
        with as_source_error(f"{file.path!r} could not be read"):
            descriptor = os.open(self.folder / file.path, os.O_RDONLY | os.O_NOFOLLOW)
            with open(descriptor, "rb") as stream:  # noqa: PTH123  # opened without following links
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
