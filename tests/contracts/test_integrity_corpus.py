"""Every implementation of integrity notices the same changes, and reads the same manifests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gateway.worker.loading import integrity
from registry_sync.artifacts.manifest import Manifest
from registry_sync.artifacts.verify import verify
from registry_sync.errors import ArtifactError, UnsafePathError
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from tests.contracts.integrity_corpus import CHANGES, FILES, Change, write_artifact

FETCHER = Fetcher(
    tracking_uri="", limits=FetchLimits(disk_floor_bytes=0, stable_after_s=0), environ={}
)


def known_manifest(folder: Path, scratch: Path) -> Manifest:
    return FETCHER.fetch(str(folder), scratch / "known").manifest


def control_plane_refuses(folder: Path, known: Manifest, scratch: Path) -> bool:
    """Fetch the folder again, and compare with the digest that it had."""
    try:
        found = FETCHER.fetch(str(folder), scratch / "again").manifest
    except ArtifactError:
        return True
    return not verify(found, stamped=known.digest, accepted=None, known=known).accepted


def worker_refuses(folder: Path, known: Manifest, scratch: Path) -> bool:
    """Check the folder against its manifest, as before every load."""
    path = scratch / "manifest"
    path.write_bytes(known.text().encode())
    try:
        integrity.verify(folder, path, known.digest)
    except integrity.IntegrityError:
        return True
    return False


Refuses = Callable[[Path, Manifest, Path], bool]


@pytest.mark.parametrize("refuses", [control_plane_refuses, worker_refuses])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_harmful_changes_are_refused_and_others_are_not(
    change: Change, refuses: Refuses, tmp_path: Path
) -> None:
    folder = write_artifact(tmp_path / "artifact")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    known = known_manifest(folder, scratch)
    assert set(known.files) == set(FILES)
    change.apply(folder)
    assert refuses(folder, known, scratch) is change.harmful


@given(
    st.dictionaries(st.text(min_size=1, max_size=30), st.binary(min_size=32, max_size=32)),
)
def test_the_worker_reads_every_manifest_that_the_control_plane_writes(files) -> None:
    try:
        manifest = Manifest.of({path: digest.hex() for path, digest in files.items()})
    except UnsafePathError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest")
        path.write_bytes(manifest.text().encode())
        assert integrity.read_manifest(path, manifest.digest) == manifest.files


@pytest.mark.parametrize("place", [0, 63, 64, 66, 80, -1])
def test_an_altered_manifest_is_refused_by_the_worker(place: int, tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    known = known_manifest(folder, tmp_path)
    altered = bytearray(known.text().encode())
    altered[place] ^= 1
    path = tmp_path / "manifest"
    path.write_bytes(altered)
    with pytest.raises(integrity.IntegrityError):
        integrity.verify(folder, path, known.digest)
