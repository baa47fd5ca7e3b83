"""The artifacts of this node: content-addressed, read-only, complete or not there.

::

    <node_dir>/artifacts/<hex>/          the artifact's folder
    <node_dir>/artifacts/<hex>.manifest  its manifest; the SHA-256 of this file is <hex>
    <node_dir>/artifacts/<hex>.json      its description and for whom it is pinned; written last
    <node_dir>/staging/                  where fetches work; same file system
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry_sync.fetch import Fetched
from registry_sync.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Pin:
    """For which version an artifact was fetched, and what was known then.

    Attributes:
        model: The registered model.
        version: Its version.
        listing: The remote listing at the fetch (`Fetched.listing`).
        expected_digest: What the bytes had to be: stamped, or pinned when first seen.
        stamped: Whether ``expected_digest`` came from the publisher.
    """

    model: str
    version: int
    listing: str | None
    expected_digest: str | None
    stamped: bool


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


class ArtifactStore:
    """Owns ``artifacts/`` and ``staging/`` of a node. One process; any of its threads.

    It survives being killed at any moment: what is not complete does not count, and is removed by
    the next `open`.
    """

    def __init__(self, node_dir: Path) -> None:
        """Store the node's folder; `open` does the work."""
        self._node_dir = node_dir

    def open(self) -> None:
        """Make the folders; remove what a killed process left. The owner calls it once, at start.

        Raises:
            StoreError: The folder cannot be used, or a newer release wrote into it.
        """
        raise NotImplementedError

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Lend a path for one fetch: not existing yet, in an own folder that is removed after."""
        raise NotImplementedError

    def add(
        self, fetched: Fetched, description: Mapping[str, Any], pin: Pin | None = None
    ) -> StoredArtifact:
        """Take a fetched folder (moved away from staging), fsynced and read-only.

        Idempotent: an artifact that is there already only gains the pin.

        Raises:
            StoreError: The disk refused.
        """
        raise NotImplementedError

    def get(self, digest: str) -> StoredArtifact | None:
        """Return a complete artifact, or None.

        Raises:
            StoreError: A newer release wrote it.
        """
        raise NotImplementedError

    def all(self) -> dict[str, StoredArtifact]:
        """Return every complete artifact by digest."""
        raise NotImplementedError

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest of an artifact.

        Raises:
            StoreError: It is not there, or its bytes do not have this digest.
        """
        raise NotImplementedError

    def pin(self, digest: str, pin: Pin) -> None:
        """Record for whom an artifact is kept; replaces an older pin of the same version.

        Raises:
            StoreError: There is no such artifact.
        """
        raise NotImplementedError

    def find_pin(self, model: str, version: int) -> tuple[str, Pin] | None:
        """Return the digest and pin last recorded for a version, or None."""
        raise NotImplementedError

    def remove(self, digest: str) -> None:
        """Remove an artifact; one that is not there is fine."""
        raise NotImplementedError

    def used_bytes(self) -> int:
        """Return the bytes of all complete artifacts."""
        raise NotImplementedError
