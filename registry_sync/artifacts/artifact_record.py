"""The record of a stored artifact: what it is, and for whom it was fetched. Pure.

It is the artifact's description (`registry_sync.describe`) with its size, its time and its pins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from gateway.system.files import AlteredError, seal, unseal_known
from registry_sync.artifacts.description import DESCRIPTION_FORMAT_VERSION

_PINS = "pinned_for"
_STORED_AT = "stored_at"


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
        accepted_at: Epoch seconds when the bytes were accepted for it; None: when the artifact came
            in.
    """

    model: str
    version: int
    listing: str | None
    expected_digest: str | None
    stamped: bool
    creation: str | None = None
    accepted_at: float | None = None


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

    def accepted_at(self, pin: Pin) -> float:
        """Return when its bytes were accepted for a version, in epoch seconds."""
        return self.stored_at if pin.accepted_at is None else pin.accepted_at

    def pinned(self, pin: Pin) -> StoredArtifact:
        """Return the artifact with ``pin`` instead of an older one of the same version."""
        others = (p for p in self.pins if (p.model, p.version) != (pin.model, pin.version))
        return replace(self, pins=(*others, pin))

    def dated(self, model: str, version: int, creation: str) -> StoredArtifact:
        """Return the artifact with this creation in the version's pin, if that has none yet."""
        pins = (
            replace(pin, creation=creation)
            if (pin.model, pin.version, pin.creation) == (model, version, None)
            else pin
            for pin in self.pins
        )
        return replace(self, pins=tuple(pins))


class _Members(BaseModel):
    """What this plane reads of a record. A description's other members are handed on unread."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format_version: int
    digest: str
    size_bytes: NonNegativeInt
    stored_at: float
    pinned_for: list[dict[str, Any]]
    requirements: list[str] | None = None
    signature: dict[str, Any] | None = None
    env_python: str | None = None


_TUPLE_OF_PINS = TypeAdapter(tuple[Pin, ...])


def read_record(content: bytes, digest: str, folder: Path) -> StoredArtifact:
    """Return the artifact that a record is about.

    Raises:
        AlteredError: The record is not as it was written, or another artifact's.
        NewerFormatError: A newer release wrote it.
    """
    record = unseal_known(content, DESCRIPTION_FORMAT_VERSION)
    try:
        members = _Members.model_validate(record)
        pins = _TUPLE_OF_PINS.validate_python(members.pinned_for)
    except ValidationError as error:
        raise AlteredError(f"is no record of an artifact ({error.error_count()} errors)") from error
    if members.digest != digest:
        raise AlteredError(f"is the record of {members.digest}")
    if not math.isfinite(members.stored_at):
        raise AlteredError("says no time")
    kept = {name: value for name, value in record.items() if name not in (_PINS, _STORED_AT)}
    return StoredArtifact(
        digest=digest,
        path=folder,
        size_bytes=members.size_bytes,
        stored_at=members.stored_at,
        description=kept,
        pins=pins,
    )


def record_of(artifact: StoredArtifact) -> bytes:
    """Return the record of an artifact, with its checksum."""
    record = {
        **artifact.description,
        "format_version": DESCRIPTION_FORMAT_VERSION,
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes,
        _STORED_AT: artifact.stored_at,
        _PINS: [asdict(pin) for pin in artifact.pins],
    }
    return seal(json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1).encode())
