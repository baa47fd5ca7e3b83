"""How a model's versions and aliases stand: what is listed against what is remembered. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from registry_sync.domain import (
    Aspired,
    AspiredVersion,
    LedgerView,
    PinnedVersion,
    Quarantine,
    Rejection,
)

FIRST_CREATION = "first"
"""The creation of a version whose registry has no mark of it, until it was gone and came again."""
EARLIER_CREATION = "earlier"
"""A creation that an older release left without a mark, and that is over."""

_UNKNOWN_CREATION = "unknown"


def find(aspired: Aspired, model: str, version: int) -> AspiredVersion | None:
    """Return a version that the registry lists, or None."""
    listed = aspired.models.get(model)
    return listed.versions.get(version) if listed else None


def creation(listed: AspiredVersion, ledger: LedgerView) -> str:
    """Return what tells this creation of a version from any other under its number.

    A registry without such a mark (S3) has two listings in a row instead: a version that both
    lacked, and that appears after them, is another creation.
    """
    if listed.creation is not None:
        return listed.creation
    pin = ledger.pins.get((listed.model, listed.version))
    if pin is None:
        return FIRST_CREATION
    if pin.gone_at is not None:
        return f"after-{pin.gone_at:.3f}"
    return pin.creation or FIRST_CREATION


def as_remembered(listed: AspiredVersion, ledger: LedgerView) -> AspiredVersion:
    """Return a version that was listed in the past, as far as it still counts.

    If a newer listing has shown another creation since, which one is not known, nor its stamp: that
    listing itself may not have been written, because the process ended or the ledger refused.
    """
    pin = ledger.pins.get((listed.model, listed.version))
    if pin is None or not pin.superseded or listed.creation is None:
        return listed
    if listed.creation != pin.creation:
        return listed  # it is the creation that followed
    return replace(listed, creation=_UNKNOWN_CREATION, expected_digest=None)


def was_made_after(listed: AspiredVersion, known: PinnedVersion) -> bool:
    """Whether a version was made after bytes without a mark of their creation were accepted.

    By the clocks of two machines: where they disagree, the bytes are fetched once more.
    """
    if known.creation is not None or known.accepted_at is None or listed.created_at is None:
        return False
    return listed.created_at > known.accepted_at


def is_of_creation(recorded: str | None, now: str) -> bool:
    """Whether a record is about this creation; one without a mark is about any."""
    return recorded is None or recorded == now


def accepted(listed: AspiredVersion, ledger: LedgerView) -> PinnedVersion | None:
    """Return what was accepted here for this very creation; None: nothing was."""
    pin = ledger.pins.get((listed.model, listed.version))
    if pin is None or (listed.creation is None and pin.gone_at is not None):
        return None
    return pin if is_of_creation(pin.creation, creation(listed, ledger)) else None


def creation_of_bytes(ledger: LedgerView, model: str, version: int, digest: str) -> str | None:
    """Return the creation for which bytes were accepted; None: that is not known any more."""
    pin = ledger.pins.get((model, version))
    return pin.creation if pin is not None and pin.digest == digest else None


def is_made_anew(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether the bytes that were accepted here belong to an earlier creation of the version."""
    known = ledger.pins.get((listed.model, listed.version))
    return known is not None and accepted(listed, ledger) is None


def expected_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return what the version's bytes must be: its stamp, else what was accepted, else None.

    A stamp that cannot change under its number is worth less than what was accepted: where they
    differ, somebody has altered the version.
    """
    known = accepted(listed, ledger)
    if listed.stamp_fixed and known is not None:
        return known.digest
    return listed.expected_digest or (known.digest if known else None)


def admissible_digest(listed: AspiredVersion, ledger: LedgerView) -> str | None:
    """Return the digest accepted here before, if nothing says that the bytes are others now."""
    known = accepted(listed, ledger)
    if known is None or listed.expected_digest not in (None, known.digest):
        return None
    return None if listed.stamp_problem else known.digest


def why_other_bytes(
    listed: AspiredVersion, digest: str, ledger: LedgerView, *, of_creation: str | None = None
) -> str | None:
    """Say that a version no longer has the bytes that are meant; None: nothing says so.

    Args:
        listed: The version, as the registry lists it now.
        digest: The bytes that are meant.
        ledger: What is remembered.
        of_creation: The creation that was meant; None: unknown.
    """
    if not is_of_creation(of_creation, creation(listed, ledger)):
        return made_anew(listed.version)
    expected = expected_digest(listed, ledger)
    return None if expected in (None, digest) else other_bytes(listed.version)


def other_bytes(version: int) -> str:
    """Return the sentence for users: a version has other bytes than the ones that are meant."""
    return (
        f"version {version} has other bytes in the registry now than when it was chosen: "
        f"{_as_it_is(version)}"
    )


def made_anew(version: int) -> str:
    """Return the sentence for users: the version that is meant was deleted and made anew."""
    return (
        f"version {version} was made anew in the registry after it was chosen: {_as_it_is(version)}"
    )


def predecessor_is_over(version: int) -> str:
    """Return the sentence for users: what an alias meant before has the number of what it means."""
    return (
        f"the bytes that version {version} had before it was made anew or altered in the registry "
        "do not serve again once their successor has: point the alias at another version, or "
        "register these bytes as a new one"
    )


def _as_it_is(version: int) -> str:
    return f"`rollback --to {version}` or `pin` takes it as it is now, `unpin` follows the registry"


def quarantine_of(listed: AspiredVersion, ledger: LedgerView) -> Quarantine | None:
    """Return the quarantine that covers a version as it is listed; None: none does.

    Of another creation, or of another expectation, it says nothing.
    """
    found = ledger.quarantines.get((listed.model, listed.version))
    if found is None or found.expected_digest != expected_digest(listed, ledger):
        return None
    return found if is_of_creation(found.creation, creation(listed, ledger)) else None


def is_quarantined(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether the bytes were found wrong, and what they must be is still the same."""
    return quarantine_of(listed, ledger) is not None


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
