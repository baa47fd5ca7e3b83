"""The expected digest of a version, and whether it may serve. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from gateway.contract import ArtifactRef
from registry_sync.domain import (
    Aspired,
    AspiredVersion,
    LedgerView,
    Quarantine,
    Rejection,
    accepted,
    creation_of,
    is_of_creation,
)


def expected_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return the digest that a version must have: stamped, else accepted, else None.

    The accepted digest prevails over a stamp that can never change: if they differ, the version was
    altered.
    """
    known = accepted(listed, ledger)
    if listed.stamp_fixed and known is not None:
        return known.digest
    return listed.expected_digest or (known.digest if known else None)


def admissible_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return the accepted digest, or None if the version may have other bytes now."""
    known = accepted(listed, ledger)
    if known is None or listed.expected_digest not in (None, known.digest):
        return None
    return None if listed.stamp_problem else known.digest


def why_other_bytes(
    listed: AspiredVersion, digest: str, ledger: LedgerView, *, of_creation: str | None = None
) -> str | None:
    """Return why a listed version no longer has the bytes with this digest, or None.

    ``of_creation`` is the creation of these bytes, or None if unknown.
    """
    if not is_of_creation(of_creation, creation_of(listed, ledger)):
        return made_anew(listed.version)
    expected = expected_digest(listed, ledger)
    return None if expected in (None, digest) else other_bytes(listed.version)


def other_bytes(version: int) -> str:
    """Return the sentence for users about a version whose bytes changed after it was chosen."""
    return (
        f"version {version} has other bytes in the registry now than when it was chosen: "
        f"{_as_it_is(version)}"
    )


def made_anew(version: int) -> str:
    """Return the sentence for users about a version that was made anew after it was chosen."""
    return (
        f"version {version} was made anew in the registry after it was chosen: {_as_it_is(version)}"
    )


def predecessor_is_over(version: int) -> str:
    """Return the sentence for users about a previous version with the active version's number."""
    return (
        f"the bytes that version {version} had before it was made anew or altered in the registry "
        "do not serve again once their successor has: point the alias at another version, or "
        "register these bytes as a new one"
    )


def _as_it_is(version: int) -> str:
    return f"`rollback --to {version}` or `pin` takes it as it is now, `unpin` follows the registry"


def quarantine_of(listed: AspiredVersion, ledger: LedgerView) -> Quarantine | None:
    """Return the quarantine of a version as it is listed, or None.

    A quarantine applies to one creation and one expected digest.
    """
    found = ledger.quarantines.get((listed.model, listed.version))
    if found is None or found.expected_digest != expected_digest(listed, ledger):
        return None
    return found if is_of_creation(found.creation, creation_of(listed, ledger)) else None


def is_quarantined(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether a quarantine covers a version as it is listed."""
    return quarantine_of(listed, ledger) is not None


def runs_in_own(
    aspired: Aspired, environments: AbstractSet[str], model: str, version: int, digest: str
) -> bool:
    """Whether a version runs in its own environment; if unlisted, whether that is built."""
    listed = aspired.models.get(model)
    if listed is None or version not in listed.versions:
        return digest in environments
    return listed.needs_own_environment(version)


def rejection(
    ledger: LedgerView, model: str, version: int, digest: str, *, own: bool
) -> Rejection | None:
    """Return the rejection in the version's own or in the shared environment, or None."""
    found = ledger.rejections.get(ArtifactRef(model, version, digest))
    return found if found is not None and found.own == own else None
