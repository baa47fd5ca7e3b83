"""Creations of a version: the same number, made anew, has bytes of its own. Pure."""

from __future__ import annotations

from dataclasses import replace

from registry_sync.domain.aspired import AspiredVersion
from registry_sync.domain.records import LedgerView, PinnedVersion

FIRST_CREATION = "first"
"""The creation of a version whose registry has no mark of it, until it was gone and came again."""


EARLIER_CREATION = "earlier"
"""A creation that an older release left without a mark, and that is over."""


_UNKNOWN_CREATION = "unknown"


def creation_of(listed: AspiredVersion, ledger: LedgerView) -> str:
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
    return pin if is_of_creation(pin.creation, creation_of(listed, ledger)) else None


def creation_of_bytes(ledger: LedgerView, model: str, version: int, digest: str) -> str | None:
    """Return the creation for which bytes were accepted; None: that is not known any more."""
    pin = ledger.pins.get((model, version))
    return pin.creation if pin is not None and pin.digest == digest else None


def is_made_anew(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether the bytes that were accepted here belong to an earlier creation of the version."""
    known = ledger.pins.get((listed.model, listed.version))
    return known is not None and accepted(listed, ledger) is None
