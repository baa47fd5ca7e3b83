"""One verdict, one reason."""

import pytest

from registry_sync.artifacts.manifest import Manifest
from registry_sync.artifacts.verify import Verdict, verify
from registry_sync.errors import DigestMismatchError, UnstampedError

FOUND = Manifest.of({"MLmodel": "0" * 64, "model.pkl": "1" * 64})
OTHER = Manifest.of({"MLmodel": "0" * 64, "model.pkl": "2" * 64})


@pytest.mark.parametrize(
    ("stamped", "pinned", "require", "verdict"),
    [
        (None, None, False, Verdict.FIRST_SEEN),
        (FOUND.digest, None, False, Verdict.STAMPED),
        (FOUND.digest, OTHER.digest, False, Verdict.STAMPED),  # stamped anew by the publisher
        (None, FOUND.digest, False, Verdict.PINNED),
        (OTHER.digest, None, False, Verdict.MISMATCH),
        (OTHER.digest, FOUND.digest, False, Verdict.MISMATCH),  # seen before is not enough
        (None, OTHER.digest, False, Verdict.MISMATCH),  # never trusted again silently
        (None, None, True, Verdict.UNSTAMPED),
        (None, FOUND.digest, True, Verdict.UNSTAMPED),
        (FOUND.digest, None, True, Verdict.STAMPED),
        (OTHER.digest, None, True, Verdict.MISMATCH),
    ],
)
def test_verdicts(stamped, pinned, require, verdict):
    result = verify(FOUND, stamped=stamped, accepted=pinned, require_digest=require)
    assert result.verdict is verdict
    assert result.accepted == (verdict not in (Verdict.MISMATCH, Verdict.UNSTAMPED))
    assert (result.error() is None) == result.accepted
    assert result.found == FOUND.digest


def test_a_mismatch_says_both_digests_and_the_files_that_differ():
    result = verify(FOUND, stamped=OTHER.digest, accepted=None, known=OTHER)
    assert result.reason == (
        f"the bytes have digest {FOUND.digest}, but the publisher stamped {OTHER.digest} "
        "(changed: model.pkl)"
    )
    error = result.error()
    assert isinstance(error, DigestMismatchError)
    assert (error.expected, error.found, error.transient) == (OTHER.digest, FOUND.digest, False)


def test_files_are_named_only_from_a_manifest_that_has_the_expected_digest():
    assert "(" not in verify(FOUND, stamped=None, accepted=OTHER.digest, known=FOUND).reason


def test_a_missing_stamp_is_an_error_of_its_own():
    result = verify(FOUND, stamped=None, accepted=None, require_digest=True)
    assert isinstance(result.error(), UnstampedError)
