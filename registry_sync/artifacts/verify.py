"""Whether fetched bytes are the ones that they must be: one verdict, one reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from registry_sync.artifacts.manifest import Manifest, differences
from registry_sync.errors import ArtifactError, DigestMismatchError, UnstampedError


class Verdict(StrEnum):
    """What was found out about the bytes.

    ``STAMPED``: what the publisher stamped. ``PINNED``: what was seen here first. ``FIRST_SEEN``:
    nobody said what they must be; they are pinned from now on. ``MISMATCH``: not what was expected.
    ``UNSTAMPED``: a stamp is required and there is none.
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
        verdict: What was found out.
        found: The digest of the bytes.
        expected: The digest that they were compared with; None: there was none.
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
        """Return the refusal as an error; None: there is none."""
        if self.verdict is Verdict.MISMATCH and self.expected is not None:
            return DigestMismatchError(self.reason, expected=self.expected, found=self.found)
        return UnstampedError(self.reason) if self.verdict is Verdict.UNSTAMPED else None


def verify(
    found: Manifest,
    *,
    stamped: str | None,
    pinned: str | None,
    stamp_fixed: bool = False,
    require_digest: bool = False,
    known: Manifest | None = None,
) -> Verification:
    """Compare fetched bytes with what they must be.

    The publisher's stamp goes before the pin: it is a statement, the pin only a memory. A stamp
    that cannot change under its number was altered where it differs from the pin.

    Args:
        found: The manifest of what was fetched.
        stamped: The digest that the publisher stamped; None: none.
        pinned: The digest that this version had when first seen; None: never seen.
        stamp_fixed: Whether the stamp cannot change under the version's number.
        require_digest: Refuse what is not stamped, pinned or not.
        known: A manifest of the same version from before, to name the files that differ.
    """
    if stamped is None and require_digest:
        reason = "the publisher stamped no digest, and this node requires one"
        return Verification(Verdict.UNSTAMPED, found.digest, pinned, reason)
    if stamp_fixed and pinned is not None and stamped not in (None, pinned):
        reason = (
            f"the manifest was altered: it says {stamped}, and this node accepted {pinned} under "
            "this number, which was never gone"
        )
        return Verification(Verdict.MISMATCH, found.digest, pinned, reason)
    expected = stamped or pinned
    if expected is None:
        reason = "no digest was stamped; these bytes are pinned as first seen"
        return Verification(Verdict.FIRST_SEEN, found.digest, None, reason)
    if expected != found.digest:
        reason = _mismatch(found, expected, known, by_stamp=stamped is not None)
        return Verification(Verdict.MISMATCH, found.digest, expected, reason)
    if stamped:
        return Verification(
            Verdict.STAMPED, found.digest, stamped, "the bytes have the digest that was stamped"
        )
    return Verification(
        Verdict.PINNED, found.digest, pinned, "the bytes are those that were first seen"
    )


def _mismatch(found: Manifest, expected: str, known: Manifest | None, *, by_stamp: bool) -> str:
    """Say what was expected, what was found, and which files differ where that is known."""
    whose = "the publisher stamped" if by_stamp else "this node first saw"
    sentence = f"the bytes have digest {found.digest}, but {whose} {expected}"
    named = differences(known, found) if known and known.digest == expected else ""
    return f"{sentence} ({named})" if named else sentence
