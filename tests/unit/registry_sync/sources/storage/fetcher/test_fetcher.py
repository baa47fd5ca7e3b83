"""Fetching from a folder: limits, completeness, and what is refused."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry_sync.errors import (
    ArtifactTooLargeError,
    FetchTimeoutError,
    ForbiddenUriError,
    IncompleteArtifactError,
    NoDiskRoomError,
    SourceError,
    UnsafePathError,
)
from registry_sync.sources.storage import fetcher as fetch_module
from registry_sync.sources.storage.fetcher import FetchedArtifact, Fetcher, FetchLimits
from registry_sync.sources.storage.local import LocalLocation
from registry_sync.sources.storage.location import NEVER, RemoteFile, RemoteListing
from tests.fakes.artifacts import FILES, fetched, write_files

ROOMY = {"disk_floor_bytes": 0, "stable_after_s": 0.0}


@pytest.fixture
def origin(tmp_path: Path):
    return write_files(tmp_path / "origin")


def fetcher(clock=None, **limits):
    return Fetcher(
        tracking_uri="http://127.0.0.1:9",
        limits=FetchLimits(**(ROOMY | limits)),
        environ={},
        clock=clock or (lambda: 0.0),
    )


def test_a_folder_is_copied_and_known(origin, tmp_path):
    progress: list[tuple[int, int | None]] = []
    result = fetcher().fetch(
        str(origin), tmp_path / "into", on_progress=lambda *seen: progress.append(seen)
    )
    known = fetched(tmp_path / "known")
    assert result.manifest == known.manifest
    assert result.size_bytes == known.size_bytes
    assert {p: (tmp_path / "into" / p).read_bytes() for p in FILES} == FILES
    assert progress[-1] == (known.size_bytes, known.size_bytes)
    assert result.listing == fetcher().remote_listing(origin.as_uri())


def test_what_mlflow_adds_is_neither_hashed_nor_stored(origin, tmp_path):
    clean = fetcher().fetch(str(origin), tmp_path / "one")
    (origin / "registered_model_meta").write_text("model_name: x\n")
    result = fetcher(max_files=len(FILES)).fetch(str(origin), tmp_path / "two")
    assert result.manifest.digest == clean.manifest.digest
    assert result.listing == clean.listing
    assert not (tmp_path / "two" / "registered_model_meta").exists()


@pytest.mark.parametrize("name", ["MLmodel", "data/model.bin"])
def test_the_listing_changes_with_the_bytes(origin, name):
    before = fetcher().remote_listing(str(origin))
    assert fetcher().remote_listing(str(origin)) == before
    status = (origin / name).stat()
    content = (origin / name).read_bytes()
    (origin / name).write_bytes(content[:-1] + b"?")
    os.utime(origin / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fetcher().remote_listing(str(origin)) != before


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_bytes": 1000}, ArtifactTooLargeError),
        ({"max_files": 2}, ArtifactTooLargeError),
        ({"disk_floor_bytes": 2**62}, NoDiskRoomError),
    ],
)
def test_limits_hold_before_a_byte_is_written(origin, tmp_path, limits, error):
    with pytest.raises(error):
        fetcher(**limits).fetch(str(origin), tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_time_is_limited(origin, tmp_path):
    clock = itertools.count(0, 2)
    with pytest.raises(FetchTimeoutError) as caught:
        fetcher(lambda: float(next(clock)), timeout_s=1).fetch(str(origin), tmp_path / "into")
    assert caught.value.transient


def test_what_has_no_mlmodel_is_incomplete(origin, tmp_path):
    (origin / "MLmodel").unlink()
    with pytest.raises(IncompleteArtifactError):
        fetcher().fetch(str(origin), tmp_path / "into")


def test_nothing_that_comes_is_read(origin, tmp_path):
    (origin / "MLmodel").write_text("[" * 5000)
    assert fetcher().fetch(str(origin), tmp_path / "into").manifest.files.keys() == FILES.keys()


def test_a_folder_that_is_not_there_is_the_sources_fault(tmp_path):
    with pytest.raises(SourceError):
        fetcher().fetch(str(tmp_path / "nowhere"), tmp_path / "into")


def test_a_place_that_is_not_asked_is_refused_for_good(tmp_path):
    with pytest.raises(ForbiddenUriError, match="gopher") as caught:
        fetcher().fetch("gopher://x/y", tmp_path / "into")
    assert not caught.value.transient


@pytest.mark.parametrize("name", ["a\\b", "line\nbreak"])
def test_unsafe_names_are_refused_before_a_byte_is_written(origin, tmp_path, name):
    (origin / name).touch()
    with pytest.raises(UnsafePathError):
        fetcher().fetch(str(origin), tmp_path / "into")
    assert not (tmp_path / "into").exists()


class Moving(LocalLocation):
    """A folder that somebody else writes to while it is read."""

    def read(self, files):
        yield from super().read(files)
        with (self.folder / files[0].path).open("ab") as late:
            late.write(b"more")


class Hostile:
    """A storage that lists what it likes, and sends other sizes than it lists."""

    def __init__(self, *listed: str, sent: bytes = b"1234", size: int | None = 4) -> None:
        self.listed = ("MLmodel", *listed)
        self.sent = sent
        self.size = size

    def files(self, max_files, left):
        return RemoteListing(tuple(RemoteFile(path, self.size, None) for path in self.listed))

    def read(self, files):
        return ((file, self.sent) for file in files)


@pytest.fixture
def serve(monkeypatch):
    def place(location):
        monkeypatch.setattr(fetch_module, "open_location", lambda *_, **__: location)

    return place


def test_an_upload_that_moves_is_incomplete(origin, tmp_path, serve):
    serve(Moving(origin))
    with pytest.raises(IncompleteArtifactError):
        fetcher().fetch("any", tmp_path / "into")


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "MLMODEL", ""])
def test_a_storage_cannot_choose_where_it_is_written(tmp_path, serve, path):
    serve(Hostile(path))
    with pytest.raises(UnsafePathError):
        fetcher().fetch("any", tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [b"123", b"12345"])
def test_other_sizes_than_listed_are_incomplete(tmp_path, serve, sent):
    serve(Hostile(sent=sent))
    with pytest.raises(IncompleteArtifactError, match="listed with 4 bytes"):
        fetcher().fetch("any", tmp_path / "into")


def test_bytes_are_counted_as_they_come_not_as_they_were_promised(tmp_path, serve):
    serve(Hostile(sent=b"x" * 5000))
    with pytest.raises(ArtifactTooLargeError):
        fetcher(max_bytes=4000).fetch("any", tmp_path / "into")


@pytest.mark.parametrize(("size", "asked"), [(16, [32]), (None, [16, 32])])
def test_known_sizes_are_reserved_before_the_first_byte(tmp_path, serve, size, asked):
    reserved: list[int] = []

    def reserve(total_bytes):
        written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert written == (reserved[-1] if reserved else 0)
        reserved.append(total_bytes)

    serve(Hostile("a", sent=b"flavors: {a: {}}", size=size))
    fetcher().fetch("any", tmp_path / "into", reserve=reserve)
    assert reserved == asked


@pytest.mark.parametrize("size", [4, None])
def test_no_room_ends_a_fetch_before_it_writes(tmp_path, serve, size):
    def reserve(_total_bytes):
        raise NoDiskRoomError("no")

    serve(Hostile("a", size=size))
    with pytest.raises(NoDiskRoomError):
        fetcher().fetch("any", tmp_path / "into", reserve=reserve)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


def test_a_storage_without_marks_has_no_listing_to_compare(serve):
    serve(Hostile("a"))
    assert fetcher().remote_listing("any") is None


@pytest.mark.parametrize("flaw", ["size", "name"])
def test_a_refusal_says_of_which_listing_it_is(origin, tmp_path, flaw):
    if flaw == "name":
        listing = None
        (origin / "a\\b").touch()
    else:
        listing = fetcher().remote_listing(str(origin))
    with pytest.raises((ArtifactTooLargeError, UnsafePathError)) as caught:
        fetcher(max_bytes=10).fetch(str(origin), tmp_path / "into")
    assert caught.value.listing
    assert listing in (None, caught.value.listing)


# --- whether an upload is done --------------------------------------------------------------------

SETTLE_S = 5.0


class Untimed(LocalLocation):
    """A folder behind a proxy, which tells sizes and no more."""

    def files(self, max_files, left=NEVER):
        found = super().files(max_files, left)
        files = (RemoteFile(file.path, file.size_bytes, None) for file in found.files)
        return RemoteListing(tuple(files))


@dataclass
class Uploading:
    """Fetches from a folder behind a proxy, as time goes by."""

    origin: Path
    into: Path
    now_s: float = 1000.0
    times: int = 0

    def __post_init__(self) -> None:
        self.fetcher = fetcher(lambda: self.now_s, stable_after_s=SETTLE_S)

    def fetch(self, *, judged: bool = False) -> FetchedArtifact | None:
        """None: it is not done yet."""
        self.times += 1
        try:
            into = self.into / str(self.times)
            found: FetchedArtifact = self.fetcher.fetch("any", into, judged=judged)
        except IncompleteArtifactError:
            return None
        return found


@pytest.fixture
def uploading(origin, tmp_path, serve) -> Uploading:
    serve(Untimed(origin))
    (tmp_path / "fetched").mkdir()
    return Uploading(origin, tmp_path / "fetched")


def test_upload_without_times_is_stable_after_equal_listings(uploading):
    for number in range(3):
        assert uploading.fetch() is None
        (uploading.origin / f"part-{number}").touch()
        uploading.now_s += SETTLE_S - 1
    assert uploading.fetch() is None
    uploading.now_s += SETTLE_S - 1
    assert uploading.fetch() is None
    uploading.now_s += 1
    found = uploading.fetch()
    assert found is not None
    assert found.stable
    assert len(found.manifest.files) == len(FILES) + 3


def test_what_something_else_judges_waits_for_nothing(uploading):
    found = uploading.fetch(judged=True)
    assert found is not None
    assert not found.stable
    again = uploading.fetch(judged=True)
    assert again is not None


def test_what_was_seen_moving_is_left_alone_until_it_rests(uploading):
    assert uploading.fetch(judged=True) is not None
    (uploading.origin / "late").touch()
    assert uploading.fetch(judged=True) is None
    uploading.now_s += SETTLE_S
    found = uploading.fetch(judged=True)
    assert found is not None
    assert found.stable


def test_a_folder_tells_how_old_it_is_whatever_its_copier_says(origin, tmp_path):
    for path in FILES:
        os.utime(origin / path, (0, 0))
    with pytest.raises(IncompleteArtifactError, match="the newest file is 0 s old"):
        fetcher(stable_after_s=3600).fetch(str(origin), tmp_path / "into")
