"""Files of the node, read and written guarded: the same by both planes, which share no module."""

import errno
import os
from pathlib import Path
from types import ModuleType

import pytest

from gateway.system import files as sync_read
from gateway.system.files import atomic_files as gateway_files
from gateway.system.files import atomic_files as sync_files
from gateway.system.files import sealed as gateway_sealed
from gateway.system.files import sealed as sync_sealed
from gateway.worker.process import guarded_read as worker_read
from tests.contracts.damage import NESTED

MOST = 1000


@pytest.fixture(params=[worker_read, sync_read], ids=["gateway", "registry_sync"])
def guarded(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture(params=[gateway_files, sync_files], ids=["gateway", "registry_sync"])
def files(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture(params=[gateway_sealed, sync_sealed], ids=["gateway", "registry_sync"])
def sealed(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.mark.parametrize(
    ("one", "other"),
    [(worker_read, sync_read), (gateway_files, sync_files), (gateway_sealed, sync_sealed)],
)
def test_both_planes_have_the_same_code(one: ModuleType, other: ModuleType) -> None:
    def code(module: ModuleType) -> str:
        text = Path(module.__file__ or "").read_text()
        return text[text.index("from __future__") :]

    assert code(one) == code(other)


# --- reading --------------------------------------------------------------------------------------


def test_a_plain_file_is_read_up_to_the_limit(guarded: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MOST)
    assert guarded.read(path, MOST) == b"x" * MOST
    path.write_bytes(b"")
    assert guarded.read(path, MOST) == b""
    with pytest.raises(FileNotFoundError):
        guarded.read(tmp_path / "none", MOST)


def test_what_is_no_plain_file_is_not_read(guarded: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (MOST + 1))
    for name in ("link", "endless", "loop", "folder", "pipe", "large"):
        with pytest.raises(guarded.DamagedFileError):
            guarded.read(tmp_path / name, MOST)
    with pytest.raises(guarded.DamagedFileError, match="special file"):
        guarded.read(Path("/dev/zero"), MOST)


def test_a_file_that_grows_while_it_is_read_is_bounded(
    guarded: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(os, "read", lambda _, size: b"x" * size)
    with pytest.raises(guarded.DamagedFileError, match="more than 1000 bytes"):
        guarded.read(tmp_path / "file", MOST)


def test_what_the_system_does_not_let_be_read_is_no_damage(
    guarded: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", refuse)
    with pytest.raises(OSError, match="Input/output"):
        guarded.read(tmp_path / "file", MOST)


# --- writing --------------------------------------------------------------------------------------


def test_a_file_is_replaced_and_nothing_else_is_left(files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for content in (b"one", b"two"):
        files.replace(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_does_not_come_to_disk_leaves_the_file_as_it_was(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = tmp_path / "known.json", tmp_path / "new.json"
    files.replace(known, b"one")

    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_folder", refuse)
        for path in (known, new):
            with pytest.raises(OSError, match="Input/output"):
                files.replace(path, b"two")
    assert list(tmp_path.iterdir()) == [known]
    assert known.read_bytes() == b"one"


def test_a_disk_without_second_names_takes_a_file_all_the_same(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for content in (b"one", b"two"):
        files.replace(tmp_path / "file.json", content)
        assert (tmp_path / "file.json").read_bytes() == content


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_file_as_it_was(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.json"
    files.replace(path, b"one")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            files.replace(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_in_the_way_of_a_file_is_set_aside(files: ModuleType, tmp_path: Path) -> None:
    path, victim = tmp_path / "file.json", tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "file.json.part").symlink_to(victim)
    path.mkdir()
    files.replace(path, b"one")
    assert (path.read_bytes(), victim.read_text()) == (b"one", "kept")
    assert (tmp_path / "file.json.damaged-1").is_dir()
    (tmp_path / "file.json.part").mkdir()
    files.replace(path, b"two")
    assert path.read_bytes() == b"two"
    os.mkfifo(tmp_path / "file.json.part")
    path.unlink()
    path.symlink_to(victim)
    files.replace(path, b"three")
    assert (path.read_bytes(), path.is_symlink(), victim.read_text()) == (b"three", False, "kept")


def test_what_is_set_aside_does_not_pile_up(files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for number in range(1, 13):
        path.write_text(str(number))
        assert files.set_aside(path) == tmp_path / f"file.json.damaged-{number}"
    aside = sorted(tmp_path.iterdir(), key=lambda one: int(one.read_text()))
    assert [one.read_text() for one in aside] == ["10", "11", "12"]
    assert files.set_aside(path) is None, "there is nothing to set aside"


# --- sealing --------------------------------------------------------------------------------------

DOCUMENT = b'{\n "format_version": 1,\n "name": "x"\n}'


def test_a_sealed_document_says_the_same(sealed: ModuleType) -> None:
    content = sealed.seal(DOCUMENT)
    assert sealed.is_sealed(content)
    assert sealed.unseal(content) == {"format_version": 1, "name": "x"}


def test_no_byte_of_a_document_changes_unnoticed(sealed: ModuleType) -> None:
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


def test_what_an_older_release_wrote_has_no_checksum(sealed: ModuleType) -> None:
    assert not sealed.is_sealed(DOCUMENT)
    assert sealed.unseal(DOCUMENT) == {"format_version": 1, "name": "x"}


def test_only_a_right_checksum_shows_a_newer_release(sealed: ModuleType) -> None:
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
def test_what_is_no_document_is_none(sealed: ModuleType, content: bytes) -> None:
    with pytest.raises(sealed.AlteredError):
        sealed.unseal(content)
