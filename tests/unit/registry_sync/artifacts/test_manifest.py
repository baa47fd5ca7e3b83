"""The manifest: one digest per set of files, and no path that could hurt."""

import hashlib

import pytest
from hypothesis import given, strategies as st

from registry_sync.artifacts.manifest import Manifest, check_paths, differences
from registry_sync.errors import UnsafePathError

A, B, C = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b", b"c"))

names = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


@st.composite
def safe_files(draw):
    """Draw files whose paths are not confusable."""
    files = draw(st.dictionaries(paths, digests, min_size=1, max_size=8))
    kept: dict[str, str] = {}
    for path, digest in files.items():
        try:
            check_paths([*kept, path])
        except UnsafePathError:
            continue
        kept[path] = digest
    return kept


def test_text_and_digest_are_what_the_format_says():
    manifest = Manifest.of({"b/x": B, "a": A, "b-": C})
    assert manifest.text() == f"{A}  a\n{C}  b-\n{B}  b/x\n"
    assert manifest.digest == "sha256:" + hashlib.sha256(manifest.text().encode()).hexdigest()


@given(safe_files())
def test_order_of_files_does_not_matter(files):
    backwards = dict(reversed(files.items()))
    assert Manifest.of(files).digest == Manifest.of(backwards).digest


@given(safe_files())
def test_text_is_parsed_back_and_sorted_by_bytes(files):
    manifest = Manifest.of(files)
    assert Manifest.parse(manifest.text()) == manifest
    encoded = [path.encode() for path in manifest.files]
    assert encoded == sorted(encoded)


@given(safe_files(), digests, st.data())
def test_any_other_content_or_name_is_another_digest(files, other, data):
    path = data.draw(st.sampled_from(sorted(files)))
    digest = Manifest.of(files).digest
    changed = files | {path: other}
    assert (Manifest.of(changed).digest == digest) == (files[path] == other)
    renamed = {p + ("~renamed" if p == path else ""): d for p, d in files.items()}
    assert Manifest.of(renamed).digest != digest
    rest = {p: d for p, d in files.items() if p != path}
    assert Manifest.of(rest).digest != digest


@given(safe_files(), st.integers(min_value=0), st.integers(0, 255))
def test_a_damaged_manifest_is_refused_or_has_another_digest(files, place, byte):
    manifest = Manifest.of(files)
    damaged = bytearray(manifest.text().encode())
    damaged[place % len(damaged)] = byte
    try:
        parsed = Manifest.parse(damaged.decode())
    except (ValueError, UnsafePathError):
        return
    assert (parsed.digest == manifest.digest) == (damaged == manifest.text().encode())


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "../a",
        "./a",
        "a/.",
        "a//b",
        "a/",
        "a\\b",
        "..\\a",
        "a\nb",
        "a\0b",
        "a\u2028b",
        "a\x85b",
        "\ud800",
        "x" * 256,
        "/".join(["x" * 200] * 6),
    ],
)
def test_unsafe_paths_are_refused(path):
    with pytest.raises(UnsafePathError):
        Manifest.of({path: A})


@pytest.mark.parametrize(
    "confused",
    [
        ("model", "MODEL"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00e9", "e\u0301"),
        ("data/a", "Data/b"),
        ("data", "data/a"),
        ("data/a", "data"),
    ],
)
def test_paths_that_a_file_system_may_confuse_are_refused(confused):
    with pytest.raises(UnsafePathError):
        check_paths(confused)


@given(st.lists(st.text(max_size=20), max_size=5))
def test_what_is_accepted_stays_in_its_folder(candidates):
    try:
        check_paths(candidates)
    except UnsafePathError:
        return
    for path in candidates:
        parts = path.split("/")
        assert all(parts)
        assert not {".", ".."} & set(parts)
        assert not set("\\\n\r\0") & set(path)


def test_differences_name_what_changed_and_count_the_rest():
    known = Manifest.of({"a": A, "b": B, "gone": C})
    found = Manifest.of({"a": A, "b": C} | {f"new{n}": A for n in range(5)})
    assert differences(known, found) == (
        "changed: b; added: new0, new1, new2 and 2 more; missing: gone"
    )
    assert differences(known, known) == ""
