"""The artifacts of this node: content-addressed, read-only, complete or not there.

::

    <node_dir>/artifacts/<hex>/          the artifact's folder
    <node_dir>/artifacts/<hex>.manifest  its manifest; the SHA-256 of this file is <hex>
    <node_dir>/artifacts/<hex>.json      its description and for whom it is pinned; written last
    <node_dir>/staging/                  where fetches work; same file system
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gateway.model_ref import digest_hex
from registry_sync.describe import DESCRIPTION_FORMAT_VERSION
from registry_sync.errors import StoreError, UnsafePathError
from registry_sync.manifest import Fetched, Manifest
from registry_sync.removal import remove

_PINS = "pinned_for"
_STORED_AT = "stored_at"
_HEX_DIGITS = frozenset("0123456789abcdef")
_HEX_LENGTH = 64
_READ_ONLY_FILE = 0o444
_READ_ONLY_FOLDER = 0o555


@dataclass(frozen=True, slots=True)
class Pin:
    """For which version an artifact was fetched, and what was known then.

    Attributes:
        model: The registered model.
        version: Its version.
        listing: The remote listing at the fetch (`Fetched.listing`).
        expected_digest: What the bytes had to be: stamped, or pinned when first seen.
        stamped: Whether ``expected_digest`` came from the publisher.
        creation: Of which creation of the version; None: an older release recorded it.
    """

    model: str
    version: int
    listing: str | None
    expected_digest: str | None
    stamped: bool
    creation: str | None = None


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One complete artifact of the store.

    Attributes:
        digest: ``sha256:…``.
        path: Its folder.
        size_bytes: Bytes of its files.
        description: See `registry_sync.describe`; without the pins.
        pins: For whom it was fetched; at most one per (model, version).
        stored_at: Epoch seconds when it came in.
    """

    digest: str
    path: Path
    size_bytes: int
    description: Mapping[str, Any]
    pins: tuple[Pin, ...]
    stored_at: float


@dataclass(frozen=True, slots=True)
class StoreUse:
    """How full the artifact store is, in bytes.

    Attributes:
        stored_bytes: Of artifacts that are there, or half removed.
        coming_bytes: Booked for fetches under way.
        budget_bytes: How many both together may be; 0: as many as the disk takes.
    """

    stored_bytes: int
    coming_bytes: int
    budget_bytes: int

    @property
    def over_bytes(self) -> int:
        """How many there are too many; 0: none."""
        if not self.budget_bytes:
            return 0
        return max(0, self.stored_bytes + self.coming_bytes - self.budget_bytes)


class ArtifactStore:
    """Owns ``artifacts/`` and ``staging/`` of a node. One process; any of its threads.

    It survives being killed at any moment: what is not complete does not count, and is removed by
    the next `open`.
    """

    def __init__(
        self, node_dir: Path, clock: Callable[[], float] = time.time, *, budget_bytes: int = 0
    ) -> None:
        """Store the node's folder; `open` does the work.

        Args:
            node_dir: The node's folder.
            clock: Epoch seconds.
            budget_bytes: Most bytes of artifacts that are there or booked; 0: no such limit.
        """
        self._artifacts = node_dir / "artifacts"
        self._staging = node_dir / "staging"
        self._clock = clock
        self._lock = threading.Lock()
        self._budget_bytes = budget_bytes
        self._counting = threading.Lock()  # never held while anything is read or written
        self._sizes: dict[str, int] = {}
        self._coming: dict[Path, int] = {}

    def open(self) -> None:
        """Make the folders; remove what a killed process left. The owner calls it once, at start.

        Raises:
            StoreError: The folder cannot be used, or a newer release wrote into it.
        """
        with _as_store_error("be opened"):
            self._artifacts.mkdir(parents=True, exist_ok=True)
            self._staging.mkdir(parents=True, exist_ok=True)
            for leftover in self._staging.iterdir():
                remove(leftover)
            complete = self.all()
            for entry in list(self._artifacts.iterdir()):
                if _owner(entry.name) not in complete:
                    remove(entry)
        with self._counting:
            self._sizes = {one.digest: one.size_bytes for one in complete.values()}

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Lend a path for one fetch: not existing yet, in an own folder that is removed after.

        What was booked for it is given back with it, however the fetch ended.

        Raises:
            StoreError: The disk refused.
        """
        with _as_store_error("lend a staging folder"):
            own = Path(tempfile.mkdtemp(dir=self._staging))
        path = own / "artifact"
        try:
            yield path
        finally:
            remove(own)
            with self._counting:
                self._coming.pop(path, None)

    def book(self, folder: Path, total_bytes: int) -> int:
        """Keep room for ``total_bytes`` in all at a path of `staging`, if the budget has it.

        Returns:
            0: it is kept until the bytes are taken, or the path is given back. Else how many bytes
            are lacking, and nothing has changed.
        """
        with self._counting:
            others = sum(size for path, size in self._coming.items() if path != folder)
            use = StoreUse(sum(self._sizes.values()), others + total_bytes, self._budget_bytes)
            if use.over_bytes == 0:
                self._coming[folder] = total_bytes
            return use.over_bytes

    def use(self) -> StoreUse:
        """Return how full it is. Reads nothing: cheap enough for any occasion."""
        with self._counting:
            stored, coming = sum(self._sizes.values()), sum(self._coming.values())
            return StoreUse(stored, coming, self._budget_bytes)

    def free_bytes(self) -> int:
        """Return how many bytes are free on the file system.

        Raises:
            StoreError: It cannot be asked.
        """
        with _as_store_error("tell how much room there is"):
            return shutil.disk_usage(self._artifacts).free

    def add(
        self, fetched: Fetched, description: Mapping[str, Any], pin: Pin | None = None
    ) -> StoredArtifact:
        """Take a fetched folder (moved away from staging), fsynced and read-only.

        Idempotent: an artifact that is there already only gains the pin.

        Raises:
            StoreError: The disk refused.
        """
        digest = fetched.manifest.digest
        with self._lock, _as_store_error("take an artifact"):
            present = self.get(digest)
            if present is None:
                self._move_in(fetched)
                present = StoredArtifact(
                    digest=digest,
                    path=self._folder(digest),
                    size_bytes=fetched.size_bytes,
                    description=dict(description),
                    pins=(),
                    stored_at=self._clock(),
                )
                self._write(present if pin is None else _pinned(present, pin))
            elif pin is not None:
                self._write(_pinned(present, pin))
        stored = self.get(digest)
        if stored is None:
            raise StoreError(f"the artifact {digest} disappeared from the store")
        return stored

    def get(self, digest: str) -> StoredArtifact | None:
        """Return a complete artifact, or None.

        Raises:
            StoreError: A newer release wrote it, or its record cannot be read.
        """
        with _as_store_error(f"read the record of {digest}"):
            try:
                record = json.loads(self._record(digest).read_bytes())
            except FileNotFoundError:
                return None
            return self._artifact(digest, record)

    def all(self) -> dict[str, StoredArtifact]:
        """Return every complete artifact by digest.

        Raises:
            StoreError: A newer release wrote one of them.
        """
        with _as_store_error("be listed"):
            names = [p.stem for p in self._artifacts.glob("*.json") if _is_hex(p.stem)]
        found = (self.get(f"sha256:{name}") for name in sorted(names))
        return {artifact.digest: artifact for artifact in found if artifact}

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest of an artifact.

        Raises:
            StoreError: It is not there, or its bytes do not have this digest.
        """
        with _as_store_error(f"read the manifest of {digest}"):
            text = self._manifest(digest).read_bytes().decode()
            manifest = Manifest.parse(text)
        if manifest.digest != digest:
            raise StoreError(f"the manifest kept for {digest} has the digest {manifest.digest}")
        return manifest

    def pin(self, digest: str, pin: Pin) -> None:
        """Record for whom an artifact is kept; replaces any other pin of the same version.

        Raises:
            StoreError: There is no such artifact.
        """
        with self._lock, _as_store_error("record a pin"):
            artifact = self.get(digest)
            if artifact is None:
                raise StoreError(f"there is no artifact {digest} to pin")
            self._write(_pinned(artifact, pin))

    def find_pin(self, model: str, version: int) -> tuple[str, Pin] | None:
        """Return digest and pin recorded for a version, or None.

        Where two artifacts have one, because the second was let in on purpose, the newer counts.
        """
        found = [
            (artifact.stored_at, artifact.digest, pin)
            for artifact in self.all().values()
            for pin in artifact.pins
            if (pin.model, pin.version) == (model, version)
        ]
        if not found:
            return None
        _, digest, pin = max(found, key=lambda each: each[:2])
        return digest, pin

    def remove(self, digest: str) -> None:
        """Remove an artifact; one that is not there is fine.

        Raises:
            StoreError: The disk refused.
        """
        with self._lock, _as_store_error(f"remove {digest}"):
            self._record(digest).unlink(missing_ok=True)
            _sync_folder(self._artifacts)
            self._manifest(digest).unlink(missing_ok=True)
            remove(self._folder(digest))
            with self._counting:  # only now: what could be removed by half takes room still
                self._sizes.pop(digest, None)

    # --- layout ---------------------------------------------------------------------------------

    def _folder(self, digest: str) -> Path:
        return self._artifacts / digest_hex(digest)

    def _manifest(self, digest: str) -> Path:
        return self._artifacts / f"{digest_hex(digest)}.manifest"

    def _record(self, digest: str) -> Path:
        return self._artifacts / f"{digest_hex(digest)}.json"

    def _move_in(self, fetched: Fetched) -> None:
        """Make the folder durable and read-only and give it its final name; then its manifest."""
        target = self._folder(fetched.manifest.digest)
        remove(target)  # without a record it is what a killed process left
        _seal(fetched.folder)
        fetched.folder.rename(target)
        with self._counting:  # what was booked is stored from here on: never counted twice
            self._coming.pop(fetched.folder, None)
            self._sizes[fetched.manifest.digest] = fetched.size_bytes
        target.chmod(_READ_ONLY_FOLDER)  # only now: a folder that cannot be written cannot move
        self._replace(self._manifest(fetched.manifest.digest), fetched.manifest.text().encode())

    def _artifact(self, digest: str, record: dict[str, Any]) -> StoredArtifact | None:
        """Turn a record into an artifact; None where its folder or manifest is gone."""
        written_by = record["format_version"]
        if written_by > DESCRIPTION_FORMAT_VERSION:
            raise StoreError(
                f"the artifact {digest} was stored by a newer release (format {written_by}, this "
                f"one knows {DESCRIPTION_FORMAT_VERSION}): run that release, or use another folder"
            )
        if not (self._folder(digest).is_dir() and self._manifest(digest).is_file()):
            return None
        pins = tuple(
            Pin(**{name: each[name] for name in Pin.__slots__ if name in each})
            for each in record.pop(_PINS)
        )
        return StoredArtifact(
            digest=digest,
            path=self._folder(digest),
            size_bytes=record["size_bytes"],
            stored_at=record.pop(_STORED_AT),
            description=record,
            pins=pins,
        )

    def _write(self, artifact: StoredArtifact) -> None:
        """Write the record: from then on the artifact counts."""
        record = {
            **artifact.description,
            "format_version": DESCRIPTION_FORMAT_VERSION,
            "digest": artifact.digest,
            "size_bytes": artifact.size_bytes,
            _STORED_AT: artifact.stored_at,
            _PINS: [asdict(pin) for pin in artifact.pins],
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
        self._replace(self._record(artifact.digest), text.encode())

    def _replace(self, path: Path, content: bytes) -> None:
        """Write a file durably: the whole new content is there, or the old one is."""
        part = self._staging / f"{path.name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(_READ_ONLY_FILE)
        part.replace(path)
        _sync_folder(self._artifacts)


def _pinned(artifact: StoredArtifact, pin: Pin) -> StoredArtifact:
    """Return the artifact with ``pin`` instead of an older one of the same version."""
    others = (p for p in artifact.pins if (p.model, p.version) != (pin.model, pin.version))
    return replace(artifact, pins=(*others, pin))


@contextmanager
def _as_store_error(what: str) -> Iterator[None]:
    """Turn what disk and JSON raise into a sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, UnsafePathError) as error:
        raise StoreError(f"the artifact store cannot {what}: {error}") from error


def _is_hex(name: str) -> bool:
    return len(name) == _HEX_LENGTH and _HEX_DIGITS.issuperset(name)


def _owner(name: str) -> str:
    """Return the digest that an entry of ``artifacts/`` belongs to, by its name."""
    return f"sha256:{name.partition('.')[0]}"


def _seal(folder: Path) -> None:
    """Fsync every file and folder and take away the right to write, but the top folder's."""
    for root, folders, files in os.walk(folder):
        for name in files:
            file = Path(root, name)
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fchmod(descriptor, _READ_ONLY_FILE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for name in folders:
            Path(root, name).chmod(_READ_ONLY_FOLDER)
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
