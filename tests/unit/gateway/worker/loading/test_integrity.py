import errno
import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest

from gateway.worker.loading import load
from gateway.worker.loading.integrity import IntegrityError, verify
from gateway.worker.protocol.messages import Load

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


@pytest.mark.parametrize("text", ["nonsense\n", f"{'0' * 64} one space\n", f"{'0' * 64}  \n"])
def test_a_malformed_manifest_is_refused(tmp_path, text):
    manifest = tmp_path / "manifest"
    manifest.write_text(text)
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(IntegrityError, match="line"):
        verify(tmp_path, manifest, digest)


def test_a_folder_that_is_not_there_is_refused(artifact, tmp_path):
    with pytest.raises(IntegrityError, match="cannot be read"):
        verify(tmp_path / "none", *artifact[1:])


# --- what the system does not let be read ---------------------------------------------------------


def refuses_to_open(patch, number, name):
    original = os.open

    def opened(path, flags):
        if Path(path).name == name:
            raise OSError(number, os.strerror(number), path)
        return original(path, flags)

    patch.setattr(os, "open", opened)


def fails_to_open(patch, number):
    refuses_to_open(patch, number, "MLmodel")


def fails_to_read(patch, number):
    def opened(descriptor, *_, **__):
        os.close(descriptor)
        file = mock.MagicMock()
        file.__enter__.return_value.read.side_effect = OSError(number, os.strerror(number))
        return file

    patch.setattr("builtins.open", opened)


def fails_to_scan(patch, number):
    def scanned(path):
        raise OSError(number, os.strerror(number), path)

    patch.setattr(os, "scandir", scanned)


def fails_to_look(patch, number):
    entry = mock.Mock(path="MLmodel")
    entry.name, entry.stat.side_effect = "MLmodel", OSError(number, os.strerror(number))
    scan = mock.MagicMock()
    scan.__enter__.return_value = [entry]
    patch.setattr(os, "scandir", lambda _: scan)


def fails_to_read_the_manifest(patch, number):
    refuses_to_open(patch, number, "manifest")


WAYS = [
    (fails_to_open, "'MLmodel' cannot be read"),
    (fails_to_read, "'MLmodel' cannot be read"),
    (fails_to_scan, "the artifact's folder cannot be read"),
    (fails_to_look, "'MLmodel' cannot be read"),
    (fails_to_read_the_manifest, "the manifest cannot be read"),
]


@pytest.mark.parametrize(
    "number",
    [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM],
    ids=errno.errorcode.get,
)
@pytest.mark.parametrize(("fails", "says"), WAYS)
def test_what_cannot_be_read_is_not_called_altered(artifact, number, fails, says):
    """Or a good copy would be dropped, or the version rejected, for a fault of the node."""
    folder, manifest, digest = artifact
    order = Load("m", 1, digest, str(folder), str(manifest), description={}, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        fails(patch, number)
        with pytest.raises(load.LoadFailedError) as failed:
            load.load(order, lambda _message: None)
    assert failed.value.report.failure == "unavailable"
    assert failed.value.report.message == f"{says}: {os.strerror(number)}"


@pytest.mark.parametrize(
    "number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP], ids=errno.errorcode.get
)
@pytest.mark.parametrize(("fails", "says"), WAYS)
def test_what_is_gone_or_of_another_kind_is(artifact, number, fails, says):
    with pytest.MonkeyPatch.context() as patch:
        fails(patch, number)
        with pytest.raises(IntegrityError, match=says):
            verify(*artifact)
