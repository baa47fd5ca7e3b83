"""Which bytes are accepted, and why others are not."""

import pytest

from registry_sync.artifacts.manifest import Manifest
from registry_sync.artifacts.verify import verify

FOUND = Manifest.of({"MLmodel": "0" * 64, "model.pkl": "1" * 64})
OTHER = Manifest.of({"MLmodel": "0" * 64, "model.pkl": "2" * 64})
OTHERS = "the bytes have digest"


@pytest.mark.parametrize(
    ("stamped", "pinned", "require", "expected", "refusal"),
    [
        (None, None, False, None, ""),
        (FOUND.digest, None, False, FOUND.digest, ""),
        (FOUND.digest, OTHER.digest, False, FOUND.digest, ""),  # stamped anew by the publisher
        (None, FOUND.digest, False, FOUND.digest, ""),
        (OTHER.digest, None, False, OTHER.digest, OTHERS),
        (OTHER.digest, FOUND.digest, False, OTHER.digest, OTHERS),  # seen before is not enough
        (None, OTHER.digest, False, OTHER.digest, OTHERS),  # never trusted again silently
        (None, None, True, None, "the publisher stamped no digest"),
        (None, FOUND.digest, True, FOUND.digest, "the publisher stamped no digest"),
        (FOUND.digest, None, True, FOUND.digest, ""),
        (OTHER.digest, None, True, OTHER.digest, OTHERS),
    ],
)
def test_which_bytes_are_refused(stamped, pinned, require, expected, refusal):
    result = verify(FOUND, stamped=stamped, accepted=pinned, require_digest=require)
    assert result.reason.startswith(refusal)
    assert result.accepted == (not refusal)
    assert (result.found, result.expected) == (FOUND.digest, expected)


def test_a_mismatch_says_both_digests_and_the_files_that_differ():
    result = verify(FOUND, stamped=OTHER.digest, accepted=None, known=OTHER)
    assert result.reason == (
        f"the bytes have digest {FOUND.digest}, but the publisher stamped {OTHER.digest} "
        "(changed: model.pkl)"
    )


def test_files_are_named_only_from_a_manifest_that_has_the_expected_digest():
    assert "(" not in verify(FOUND, stamped=None, accepted=OTHER.digest, known=FOUND).reason
