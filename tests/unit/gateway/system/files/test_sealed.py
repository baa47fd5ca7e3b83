"""Sealed documents: any change of one is noticed."""

import pytest

from gateway.system.files import sealed
from tests.contracts.damage import NESTED

DOCUMENT = b'{\n "format_version": 1,\n "name": "x"\n}'


def test_sealed_document_has_the_same_members() -> None:
    content = sealed.seal(DOCUMENT)
    assert sealed.is_sealed(content)
    assert sealed.unseal(content) == {"format_version": 1, "name": "x"}


def test_no_byte_of_a_document_changes_unnoticed() -> None:
    content = sealed.seal(DOCUMENT)
    said = {"format_version": 1, "name": "x"}
    for place in range(len(content)):
        for other in (
            content[:place],
            content[:place] + content[place + 1 :],
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        ):
            try:
                found = sealed.unseal(other)
            except sealed.AlteredError:
                continue
            # The name of the checksum: then it is as if an older release had written it.
            assert found == said | {key: found[key] for key in found if key not in said}
            assert set(found) > set(said)


def test_what_an_older_release_wrote_has_no_checksum() -> None:
    assert not sealed.is_sealed(DOCUMENT)
    assert sealed.unseal(DOCUMENT) == {"format_version": 1, "name": "x"}


def test_only_a_right_checksum_shows_a_newer_release() -> None:
    assert sealed.unseal_known(DOCUMENT, 1) == sealed.unseal_known(sealed.seal(DOCUMENT), 1)
    with pytest.raises(sealed.NewerFormatError) as newer:
        sealed.unseal_known(sealed.seal(DOCUMENT), 0)
    assert newer.value.format_version == 1
    altered = sealed.seal(DOCUMENT).replace(b'"format_version": 1', b'"format_version": 3')
    for content in (DOCUMENT, altered):
        with pytest.raises(sealed.AlteredError):
            sealed.unseal_known(content, 0)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"3", b"\xff", NESTED, b'{"x": %b' % NESTED, b"9" * 10_000),
        *(b'{"x": NaN}', b'{"x": 1e999}', b'{"x": "\\ud800"}', b'{"x": 1} {"y": 2}'),
    ],
)
def test_malformed_document_is_refused(content: bytes) -> None:
    with pytest.raises(sealed.AlteredError):
        sealed.unseal(content)
