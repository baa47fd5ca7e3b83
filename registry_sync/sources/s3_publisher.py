"""Publication of a folder in an S3 registry: claim a version, upload, publish, set aliases.

Blocking. Published objects are never written again, except ``aliases.json``. A failed publication
leaves an unfinished upload, which nodes and later publications ignore.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_sync.artifacts import UNSTORED_FILES, Manifest, check_complete
from registry_sync.errors import ArtifactError, ArtifactTooLargeError, PublishError, SourceError
from registry_sync.sources.s3_layout import (
    MAX_ALIASES_BYTES,
    MAX_MANIFEST_BYTES,
    ChangedError,
    ModelListing,
    ModelLocation,
    list_model,
    parse_aliases,
    read_small,
)
from registry_sync.sources.storage import (
    LocalLocation,
    RemoteFile,
    RemoteListing,
    S3Location,
    as_source_error,
    is_changed,
    is_gone,
    is_unknown,
    stored_part,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CLAIM = "MLmodel"
_TRIES = 10
_TRY_AGAIN_S = 0.2
_UPLOADS_AT_ONCE = 4

OnBytes = Callable[[str, int, int], None]
"""Called from any thread with ``hash`` or ``upload``, the bytes done and the total bytes."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that can be published, as it was when it was hashed."""

    path: Path
    listing: RemoteListing
    manifest: Manifest

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes or 0 for file in self.listing.files)


@dataclass(frozen=True, slots=True)
class Publication:
    """A finished publication.

    Attributes:
        uploaded: False if the same bytes were published under this number before.
        guarded: Whether the storage honours conditions. If not, two publications at the same time
            may have overwritten each other's aliases, or mixed their files.
    """

    location: ModelLocation
    version: int
    manifest: Manifest
    uploaded: bool
    guarded: bool


def read_folder(path: Path, *, max_files: int, max_bytes: int, on_bytes: OnBytes) -> Folder:
    """Hash a folder; refuse one that nodes would refuse.

    Raises:
        SourceError: The folder cannot be read.
        UnsafePathError, ArtifactTooLargeError: It has a link, a path or a size that nodes refuse.
        IncompleteArtifactError, BrokenModelError: It is not a complete model.
    """
    listing = _list(path, max_files)
    total = sum(file.size_bytes or 0 for file in listing.files)
    if total > max_bytes:
        raise ArtifactTooLargeError(f"{path} has {total} bytes, more than {max_bytes}")
    with as_source_error(f"{path} could not be read"):
        check_complete(path)
        digests = {file.path: hashlib.sha256() for file in listing.files}
        done = 0
        for file, chunk in LocalLocation(path).read(listing.files):
            digests[file.path].update(chunk)
            done += len(chunk)
            on_bytes("hash", done, total)
    manifest = Manifest.of({name: digest.hexdigest() for name, digest in digests.items()})
    return Folder(path, listing, manifest)


def _list(path: Path, max_files: int) -> RemoteListing:
    """List a folder as a fetch does."""
    found = LocalLocation(path).files(max_files + len(UNSTORED_FILES))
    return RemoteListing(stored_part(found, max_files).files)


class Publisher:
    """Publishes versions of one model, by a ``client`` from `connect_s3`. One thread."""

    def __init__(
        self,
        client: S3Client,
        location: ModelLocation,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._bucket = location.root.bucket
        self._location = location
        self._sleep = sleep
        self._guarded = True

    def publish(
        self, folder: Folder, version: int | None, aliases: Sequence[str], on_bytes: OnBytes
    ) -> Publication:
        """Publish a folder as ``version``, or as the next one, and point aliases at it.

        Publishing the same bytes under the same number again is allowed.

        Raises:
            PublishError: The number is taken, or another publication interferes.
            SourceError: The storage failed.
        """
        with as_source_error(f"publishing to {self._location.uri(self._location.folder)} failed"):
            if aliases:
                self._read_aliases()  # fails before the upload if they cannot be read
            listing = list_model(self._client, self._location)
            again = version is not None and version in listing.published
            if version is not None and again:
                self._check_same(folder, version)
            else:
                version = self._claim(folder, version, listing)
                self._upload(folder, version, on_bytes)
                self._check_uploaded(folder, version)
                self._write_manifest(folder, version)
            if aliases:
                self._point(dict.fromkeys(aliases, version))
        return Publication(
            self._location, version, folder.manifest, uploaded=not again, guarded=self._guarded
        )

    # --- the number -------------------------------------------------------------------------------

    def _check_same(self, folder: Folder, version: int) -> None:
        """Check that the published version has the folder's bytes."""
        key = self._location.manifest(version)
        published = _read_manifest(self._client, self._location, key)
        if published != folder.manifest.text().encode():
            raise PublishError(
                f"version {version} of {self._location.model!r} is published already, with other "
                "bytes: leave --version out, or name another number"
            )

    def _claim(self, folder: Folder, version: int | None, listing: ModelListing) -> int:
        """Claim a version number by writing its first file before any other writer; return it."""
        first = _content(folder, _CLAIM)
        if version is not None and version in listing.uploads:
            raise PublishError(
                "an unfinished upload is at "
                f"{self._location.uri(self._location.files(version))}: remove it, or leave "
                "--version out"
            )
        number = version or max({*listing.uploads, *listing.published}, default=0) + 1
        for _ in range(_TRIES):
            if self._put(self._key(number, _CLAIM), first, IfNoneMatch="*"):
                self._learn_whether_guarded(number, first)
                return number
            if version is not None:
                break
            number += 1
        raise PublishError(
            f"another publication of {self._location.model!r} runs at the same time, under the "
            "same numbers: try again"
        )

    def _learn_whether_guarded(self, version: int, first: bytes) -> None:
        """Write the same bytes under a false condition; the storage must refuse it."""
        if self._guarded and self._put(self._key(version, _CLAIM), first, IfNoneMatch="*"):
            self._guarded = False

    def _key(self, version: int, path: str) -> str:
        return self._location.files(version) + path

    # --- the bytes --------------------------------------------------------------------------------

    def _upload(self, folder: Folder, version: int, on_bytes: OnBytes) -> None:
        """Upload all files except the first; stop soon after an error or an interruption."""
        sent = _Sent(folder, on_bytes)
        others = [file for file in folder.listing.files if file.path != _CLAIM]
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE, "upload") as pool:
            try:
                list(pool.map(partial(self._upload_one, folder, version, sent), others))
            except BaseException:
                sent.stop.set()
                raise

    def _upload_one(self, folder: Folder, version: int, sent: _Sent, file: RemoteFile) -> None:
        self._client.upload_file(
            str(folder.path / file.path),
            self._bucket,
            self._key(version, file.path),
            Callback=sent.count,
        )

    def _check_uploaded(self, folder: Folder, version: int) -> None:
        """Check names and sizes of the uploaded files against the hashed folder."""
        if not _is_as_hashed(folder):
            raise PublishError(
                f"{folder.path} changed while it was uploaded, and nothing is published: publish "
                "again when it no longer changes"
            )
        there = S3Location(self._client, self._bucket, self._location.files(version))
        if not _has_what_was_hashed(there, folder):
            raise PublishError(
                f"another writer uses {self._location.uri(self._location.files(version))}, and "
                "nothing is published: publish again"
            )

    def _write_manifest(self, folder: Folder, version: int) -> None:
        """Write the manifest, which publishes the version."""
        text = folder.manifest.text().encode()
        if not self._guarded and version in list_model(self._client, self._location).published:
            self._check_same(folder, version)
        elif not self._put(self._location.manifest(version), text, IfNoneMatch="*"):
            # Possibly our own write: boto3 repeats a request whose answer was lost.
            self._check_same(folder, version)

    # --- the aliases ------------------------------------------------------------------------------

    def _point(self, targets: Mapping[str, int]) -> None:
        """Point aliases at versions, and keep all others."""
        for attempt in range(_TRIES):
            before, etag = self._read_aliases()
            after = {**before, **targets}
            if after == before:
                return
            body = (json.dumps(after, indent=2, sort_keys=True) + "\n").encode()
            condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
            written = self._put(self._location.aliases, body, **condition)
            if written and self._guarded:
                return
            # Another writer was faster, or the condition was ignored: check again.
            self._sleep(random.uniform(0, _TRY_AGAIN_S * (attempt + 1)))  # noqa: S311 - no secret
        raise PublishError(
            "the version is published, but other writers keep changing "
            f"{self._location.uri(self._location.aliases)}: publish again with the same --version "
            "to point the aliases"
        )

    def _read_aliases(self) -> tuple[dict[str, Any], str | None]:
        """Return the targets of the aliases and their ETag, or nothing and None."""
        key = self._location.aliases
        try:
            content, etag = read_small(self._client, self._location, key, None, MAX_ALIASES_BYTES)
            return parse_aliases(content), etag
        except ChangedError:
            return {}, None
        except ValueError as error:
            raise PublishError(
                f"{self._location.uri(key)} cannot be read, and is left as it is: {error}"
            ) from error

    # --- conditional writes -----------------------------------------------------------------------

    def _put(self, key: str, content: bytes, **condition: Any) -> bool:
        """Write a small object if the condition holds; return whether it was written."""
        from botocore.exceptions import ClientError

        conditions = condition if self._guarded else {}
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content, **conditions)
        except ClientError as error:
            if conditions and is_unknown(error):
                self._guarded = False
                return self._put(key, content)
            if conditions and (is_changed(error) or is_gone(error)):
                return False
            raise
        return True


class _Sent:
    """The count of sent bytes, from several threads. Set ``stop`` to end the uploads."""

    def __init__(self, folder: Folder, on_bytes: OnBytes) -> None:
        self.stop = threading.Event()
        self._total = folder.size_bytes
        self._done = sum(f.size_bytes or 0 for f in folder.listing.files if f.path == _CLAIM)
        self._on_bytes = on_bytes
        self._lock = threading.Lock()

    def count(self, sent: int) -> None:
        """Count sent bytes.

        Raises:
            PublishError: The uploads are stopped; the error ends the calling one.
        """
        if self.stop.is_set():
            raise PublishError("the publication was stopped")
        with self._lock:
            self._done += sent
            self._on_bytes("upload", self._done, self._total)


def _is_as_hashed(folder: Folder) -> bool:
    """Whether the folder is unchanged since it was hashed."""
    try:
        return _list(folder.path, len(folder.listing.files)) == folder.listing
    except (SourceError, ArtifactError):
        return False


def _has_what_was_hashed(there: S3Location, folder: Folder) -> bool:
    """Whether the uploaded files have the folder's names and sizes."""
    expected = {(file.path, file.size_bytes) for file in folder.listing.files}
    try:
        found = there.files(len(expected))
    except ArtifactTooLargeError:
        return False
    return {(file.path, file.size_bytes) for file in found.files} == expected


def _read_manifest(client: S3Client, location: ModelLocation, key: str) -> bytes | None:
    """Return the bytes of a published manifest, or None if it is too large."""
    try:
        return read_small(client, location, key, None, MAX_MANIFEST_BYTES)[0]
    except ValueError:
        return None


def _content(folder: Folder, path: str) -> bytes:
    """Return a small file's content, if it is unchanged since it was hashed."""
    content = (folder.path / path).read_bytes()
    if hashlib.sha256(content).hexdigest() != folder.manifest.files[path]:
        raise PublishError(f"{folder.path / path} changed while it was read: publish again")
    return content
