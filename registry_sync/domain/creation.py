"""Creations of a version: a number that was made anew has other bytes. Pure."""

from __future__ import annotations

from dataclasses import replace

from registry_sync.domain.aspired import AspiredVersion
from registry_sync.domain.ledger_view import LedgerView
from registry_sync.domain.records import AcceptedDigest

FIRST_CREATION = "first"
"""Creation of a version without a mark, until it is gone and made anew."""
EARLIER_CREATION = "earlier"
"""A former creation that an older release recorded without a mark."""
_UNKNOWN_CREATION = "unknown"


def creation_of(listed: AspiredVersion, ledger: LedgerView) -> str:
    """Return the mark of a version's creation.

    Without a mark of the registry (S3), a version that two listings in a row lacked is another
    creation when it appears again.
    """
    if listed.creation is not None:
        return listed.creation
    known = ledger.accepted.get((listed.model, listed.version))
    if known is None:
        return FIRST_CREATION
    if known.gone_at is not None:
        return f"after-{known.gone_at:.3f}"
    return known.creation or FIRST_CREATION


def as_remembered(listed: AspiredVersion, ledger: LedgerView) -> AspiredVersion:
    """Return a version of a recorded listing, without what may be outdated.

    If a newer listing showed another creation, its mark and stamp are unknown: that listing may
    never have been written.
    """
    known = ledger.accepted.get((listed.model, listed.version))
    if known is None or not known.superseded or listed.creation is None:
        return listed
    if listed.creation != known.creation:
        return listed  # the later creation itself
    return replace(listed, creation=_UNKNOWN_CREATION, expected_digest=None)


def was_made_after(listed: AspiredVersion, known: AcceptedDigest) -> bool:
    """Whether a version was made after a digest without a creation was accepted.

    Compares the clocks of two machines; where they disagree, the bytes are fetched once more.
    """
    if known.creation is not None or known.accepted_at is None or listed.created_at is None:
        return False
    return listed.created_at > known.accepted_at


def is_of_creation(recorded: str | None, now: str) -> bool:
    """Whether a record applies to a creation; one without a creation applies to any."""
    return recorded is None or recorded == now


def accepted(listed: AspiredVersion, ledger: LedgerView) -> AcceptedDigest | None:
    """Return the digest accepted for a version's present creation, or None."""
    known = ledger.accepted.get((listed.model, listed.version))
    if known is None or (listed.creation is None and known.gone_at is not None):
        return None
    return known if is_of_creation(known.creation, creation_of(listed, ledger)) else None


def creation_of_bytes(ledger: LedgerView, model: str, version: int, digest: str) -> str | None:
    """Return the creation for which a digest was accepted, or None if unknown."""
    known = ledger.accepted.get((model, version))
    return known.creation if known is not None and known.digest == digest else None


def is_made_anew(listed: AspiredVersion, ledger: LedgerView) -> bool:
    """Whether the accepted digest belongs to an earlier creation of the version."""
    known = ledger.accepted.get((listed.model, listed.version))
    return known is not None and accepted(listed, ledger) is None
