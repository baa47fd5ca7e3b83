"""The verdict on fetched bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from registry_sync.artifacts.manifest import Manifest, differences
from registry_sync.errors import ArtifactError, DigestMismatchError, UnstampedError


class Verdict(StrEnum):
    """The result of a verification.

    ``STAMPED``: the stamped digest. ``PINNED``: the accepted digest. ``FIRST_SEEN``: no digest was
    expected, so this one is accepted. ``MISMATCH``: not the expected digest. ``UNSTAMPED``: a stamp
    is required and missing.
    """

    STAMPED = "stamped"
    PINNED = "pinned"
    FIRST_SEEN = "first_seen"
    MISMATCH = "mismatch"
    UNSTAMPED = "unstamped"


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict on one artifact.

    Attributes:
        verdict: The result.
        found: Digest of the bytes.
        expected: The expected digest, or None.
        reason: A sentence for users.
    """

    verdict: Verdict
    found: str
    expected: str | None
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the bytes may be stored and served."""
        return self.verdict not in (Verdict.MISMATCH, Verdict.UNSTAMPED)

    def error(self) -> ArtifactError | None:
        """Return the error of bytes that are not accepted, or None."""
        if self.verdict is Verdict.MISMATCH and self.expected is not None:
            return DigestMismatchError(self.reason, expected=self.expected, found=self.found)
        return UnstampedError(self.reason) if self.verdict is Verdict.UNSTAMPED else None


def verify(
    found: Manifest,
    *,
    stamped: str | None,
    accepted: str | None,
    stamp_fixed: bool = False,
    require_digest: bool = False,
    known: Manifest | None = None,
) -> Verification:
    """Compare fetched bytes with the stamped digest, or else with the accepted one.

    Args:
        found: The manifest of the fetched bytes.
        stamped: The stamped digest, or None.
        accepted: The digest accepted before, or None.
        stamp_fixed: Whether the stamp can never change, so that a changed one was altered.
        require_digest: Whether to refuse bytes without a stamp.
        known: A former manifest of the version, to name the files that differ, or None.
    """
    if stamped is None and require_digest:
        reason = "the publisher stamped no digest, and this node requires one"
        return Verification(Verdict.UNSTAMPED, found.digest, accepted, reason)
    if stamp_fixed and accepted is not None and stamped not in (None, accepted):
        reason = (
            f"the manifest was altered: it says {stamped}, and this node accepted {accepted} under "
            "this number, which was never gone"
        )
        return Verification(Verdict.MISMATCH, found.digest, accepted, reason)
    expected = stamped or accepted
    if expected is None:
        reason = "no digest was stamped; these bytes are the first, and are accepted"
        return Verification(Verdict.FIRST_SEEN, found.digest, None, reason)
    if expected != found.digest:
        reason = _mismatch(found, expected, known, by_stamp=stamped is not None)
        return Verification(Verdict.MISMATCH, found.digest, expected, reason)
    if stamped:
        return Verification(
            Verdict.STAMPED, found.digest, stamped, "the bytes have the digest that was stamped"
        )
    return Verification(
        Verdict.PINNED, found.digest, accepted, "the bytes have the accepted digest"
    )


def _mismatch(found: Manifest, expected: str, known: Manifest | None, *, by_stamp: bool) -> str:
    """Return a sentence with both digests and, if known, the files that differ."""
    whose = "the publisher stamped" if by_stamp else "this node accepted"
    sentence = f"the bytes have digest {found.digest}, but {whose} {expected}"
    named = differences(known, found) if known and known.digest == expected else ""
    return f"{sentence} ({named})" if named else sentence
