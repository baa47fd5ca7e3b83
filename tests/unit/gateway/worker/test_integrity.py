import hashlib
import os
from pathlib import Path

import pytest

from gateway.worker.integrity import IntegrityError, verify

FILES = {"MLmodel": b"flavors: {}\n", "data/model.bin": b"\x00" * 5000, "\u00fcber name.txt": b""}


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[Path, Path, str]:
    folder = tmp_path / "artifact"
    lines = []
    for name in sorted(FILES, key=str.encode):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(FILES[name])
        lines.append(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n")
    manifest = tmp_path / "manifest"
    manifest.write_bytes("".join(lines).encode())
    return folder, manifest, "sha256:" + hashlib.sha256(manifest.read_bytes()).hexdigest()


def test_the_folder_of_the_manifest_passes(artifact):
    verify(*artifact)


def test_an_empty_folder_more_is_no_file_more(artifact):
    (artifact[0] / "empty").mkdir()
    verify(*artifact)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (
            lambda f: (f / "data" / "model.bin").write_bytes(b"\x00" * 4999 + b"\x01"),
            "not the file",
        ),
        (lambda f: (f / "MLmodel").unlink(), "'MLmodel' is missing"),
        (lambda f: (f / "data" / "x").write_bytes(b""), "'data/x' is not in the manifest"),
        (lambda f: (f / "MLmodel").rename(f / "mlmodel"), "missing"),
        (lambda f: ((f / "MLmodel").unlink(), (f / "MLmodel").symlink_to("/dev/null")), "link"),
        (lambda f: (f / "more").symlink_to("data"), "link"),
        (lambda f: os.mkfifo(f / "pipe"), "special"),
    ],
)
def test_any_difference_is_named(artifact, harm, reason):
    harm(artifact[0])
    with pytest.raises(IntegrityError, match=reason):
        verify(*artifact)


def test_another_manifest_is_refused_by_the_digest(artifact):
    folder, manifest, digest = artifact
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    with pytest.raises(IntegrityError, match="digest"):
        verify(folder, manifest, digest)


@pytest.mark.parametrize("text", ["nonsense\n", f"{'0' * 64} one space\n", f"{'0' * 64}  \n"])
def test_a_malformed_manifest_is_refused(tmp_path, text):
    manifest = tmp_path / "manifest"
    manifest.write_text(text)
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(IntegrityError, match="line"):
        verify(tmp_path, manifest, digest)


def test_a_manifest_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="cannot be read"):
        verify(tmp_path, tmp_path / "none", "sha256:" + "0" * 64)
