"""The record of a stored artifact: its description, size, time and acceptances. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
)

from gateway.system.files import AlteredError, seal, unseal_known
from registry_sync.artifacts.description import DESCRIPTION_FORMAT_VERSION

_ACCEPTED = "accepted_for"
_FORMERLY_ACCEPTED = "pinned_for"
"""The name of that member before the first release."""
_STORED_AT = "stored_at"
_OF_THE_STORE = frozenset({_ACCEPTED, _FORMERLY_ACCEPTED, _STORED_AT})


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The acceptance of an artifact's digest for a version.

    Attributes:
        listing: Mark of the remote listing at the fetch (`FetchedArtifact.listing`).
        expected_digest: The stamped or formerly accepted digest, or None.
        stamped: Whether ``expected_digest`` came from the publisher.
        creation: Creation of the version, or None if an older release recorded it.
        accepted_at: Epoch seconds of the acceptance, or None for the artifact's ``stored_at``.
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
        description: See `registry_sync.artifacts.description`.
        accepted: Acceptances, at most one per (model, version).
        stored_at: Epoch seconds of its addition to the store.
    """

    digest: str
    path: Path
    size_bytes: int
    description: Mapping[str, Any]
    accepted: tuple[Acceptance, ...]
    stored_at: float

    def accepted_at(self, one: Acceptance) -> float:
        """Return the time of an acceptance, in epoch seconds."""
        return self.stored_at if one.accepted_at is None else one.accepted_at

    def with_acceptance(self, new: Acceptance) -> StoredArtifact:
        """Return the artifact with an acceptance in place of the version's former one."""
        version = (new.model, new.version)
        others = (one for one in self.accepted if (one.model, one.version) != version)
        return replace(self, accepted=(*others, new))

    def with_creation(self, model: str, version: int, creation: str) -> StoredArtifact:
        """Return the artifact with a creation in the version's acceptance, if that lacks one."""
        accepted = (
            replace(one, creation=creation)
            if (one.model, one.version, one.creation) == (model, version, None)
            else one
            for one in self.accepted
        )
        return replace(self, accepted=tuple(accepted))


class _Members(BaseModel):
    """The members of a record that the control plane reads."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format_version: int
    digest: str
    size_bytes: NonNegativeInt
    stored_at: float
    accepted_for: list[dict[str, Any]] = Field(
        validation_alias=AliasChoices(_ACCEPTED, _FORMERLY_ACCEPTED)
    )
    requirements: list[str] | None = None
    signature: dict[str, Any] | None = None
    env_python: str | None = None


_ACCEPTANCES = TypeAdapter(tuple[Acceptance, ...])


def read_record(content: bytes, digest: str, folder: Path) -> StoredArtifact:
    """Return the artifact of a record.

    Raises:
        AlteredError: The record was altered, or belongs to another artifact.
        NewerFormatError: A newer release wrote the record.
    """
    record = unseal_known(content, DESCRIPTION_FORMAT_VERSION)
    try:
        members = _Members.model_validate(record)
        accepted = _ACCEPTANCES.validate_python(members.accepted_for)
    except ValidationError as error:
        raise AlteredError(
            f"is not a record of an artifact ({error.error_count()} errors)"
        ) from error
    if members.digest != digest:
        raise AlteredError(f"is the record of {members.digest}")
    if not math.isfinite(members.stored_at):
        raise AlteredError("has no valid time")
    kept = {name: value for name, value in record.items() if name not in _OF_THE_STORE}
    return StoredArtifact(
        digest=digest,
        path=folder,
        size_bytes=members.size_bytes,
        stored_at=members.stored_at,
        description=kept,
        accepted=accepted,
    )


def record_of(artifact: StoredArtifact) -> bytes:
    """Return the record of an artifact, with its checksum."""
    record = {
        **artifact.description,
        "format_version": DESCRIPTION_FORMAT_VERSION,
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes,
        _STORED_AT: artifact.stored_at,
        _ACCEPTED: [asdict(one) for one in artifact.accepted],
    }
    return seal(json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1).encode())
