"""How a model's versions and aliases stand: what is listed against what is remembered. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from registry_sync.aspired import Aspired, AspiredVersion
from registry_sync.records import LedgerView, Rejection


def find(aspired: Aspired, model: str, version: int) -> AspiredVersion | None:
    """Return a version that the registry lists, or None."""
    listed = aspired.models.get(model)
    return listed.versions.get(version) if listed else None


def expected_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return what the version's bytes must be: its stamp, else what was pinned, else None."""
    pin = ledger.pins.get((listed.model, listed.version))
    return listed.expected_digest or (pin.digest if pin else None)


def admissible_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return the digest accepted here before, if it is still the expected one."""
    pin = ledger.pins.get((listed.model, listed.version))
    return pin.digest if pin and pin.digest == expected_digest(listed, ledger) else None


def why_other_bytes(listed: AspiredVersion, digest: str, ledger: LedgerView) -> str | None:
    """Say that a version no longer has the bytes that are meant; None: nobody says so.

    The publisher has stamped others since, or they came here when these were gone.
    """
    expected = expected_digest(listed, ledger)
    return None if expected in (None, digest) else other_bytes(listed.version)


def other_bytes(version: int) -> str:
    """Return the sentence for users: a version has other bytes than the ones that are meant."""
    return (
        f"version {version} has other bytes in the registry now than when it was chosen: "
        f"`rollback --to {version}` or `pin` takes it as it is now, `unpin` follows the registry"
    )


def is_quarantined(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether the bytes were found wrong, and nobody has changed what they must be since."""
    found = ledger.quarantines.get((listed.model, listed.version))
    return found is not None and found.expected_digest == expected_digest(listed, ledger)


def runs_in_own(
    aspired: Aspired, environments: AbstractSet[str], model: str, version: int, digest: str
) -> bool:
    """Whether a version runs in its own environment; one that nobody lists, as it was built."""
    listed = aspired.models.get(model)
    if listed is None or version not in listed.versions:
        return digest in environments
    return listed.asks_own_environment(version)


def rejection(
    ledger: LedgerView, model: str, version: int, digest: str, *, own: bool
) -> Rejection | None:
    """Return the rejection that counts for a version in its own environment, or in ours."""
    found = ledger.rejections.get((model, version, digest))
    return found if found is not None and found.in_own == own else None


def aspired_version(aspired: Aspired, model: str, alias: str) -> int | None:
    """Return where the registry's alias points; None: at nothing that can be followed."""
    listed = aspired.models.get(model)
    return listed.aliases.get(alias) if listed else None


def is_unfollowed(aspired: Aspired, model: str, alias: str) -> bool:
    """Whether an alias is there without a version that can be followed: it goes on as it is."""
    listed = aspired.models.get(model)
    return listed is not None and listed.leaves_alone(alias)
