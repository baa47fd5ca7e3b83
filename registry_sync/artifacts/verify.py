"""Whether fetched bytes are the right ones. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from registry_sync.artifacts.manifest import Manifest, differences


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of the verification of one artifact.

    Attributes:
        found: Digest of the bytes.
        expected: The expected digest, or None.
        reason: Why the bytes are refused, a sentence for users, or empty if they are accepted.
    """

    found: str
    expected: str | None
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the bytes may be stored and served."""
        return not self.reason


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
    expected = stamped or accepted
    if stamped is None and require_digest:
        reason = "the publisher stamped no digest, and this node requires one"
    elif stamp_fixed and accepted is not None and stamped not in (None, accepted):
        expected = accepted
        reason = (
            f"the manifest was altered: it says {stamped}, and this node accepted {accepted} under "
            "this number, which was never gone"
        )
    elif expected is not None and expected != found.digest:
        reason = _mismatch(found, expected, known, by_stamp=stamped is not None)
    else:
        reason = ""
    return Verification(found.digest, expected, reason)


def _mismatch(found: Manifest, expected: str, known: Manifest | None, *, by_stamp: bool) -> str:
    """Return a sentence with both digests and, if known, the files that differ."""
    whose = "the publisher stamped" if by_stamp else "this node accepted"
    sentence = f"the bytes have digest {found.digest}, but {whose} {expected}"
    named = differences(known, found) if known and known.digest == expected else ""
    return f"{sentence} ({named})" if named else sentence
