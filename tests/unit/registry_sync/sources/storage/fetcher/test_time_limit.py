"""Whatever a storage does with a listing or a download, a fetch ends within its time."""

import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry_sync.errors import (
    ArtifactTooLargeError,
    FetchTimeoutError,
    NoDiskRoomError,
    SourceError,
)
from registry_sync.sources.storage import fetcher as fetch_module, watched_reads
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from registry_sync.sources.storage.local import LocalLocation
from registry_sync.sources.storage.location import NEVER
from registry_sync.sources.storage.mlflow_artifacts import RepositoryLocation
from registry_sync.system.threads import StoppedError
from tests.fakes.artifacts import FILES, write_files

LIMIT_S = 0.05
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _quick_beats(monkeypatch):
    monkeypatch.setattr(watched_reads, "BEAT_S", 0.005)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """The system's folder for temporary files, which is not on the disk that is watched."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is no such folder"))


@pytest.fixture
def staging(tmp_path):
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def downloads(staging):
    return [one for one in staging.iterdir() if one.name != "into"]


@pytest.fixture
def serve(monkeypatch):
    def place(location):
        monkeypatch.setattr(fetch_module, "open_location", lambda *_, **__: location)

    return place


def fetcher(timeout_s=LIMIT_S, clock=time.monotonic):
    limits = FetchLimits(disk_floor_bytes=0, stable_after_s=0, timeout_s=timeout_s)
    return Fetcher(tracking_uri="", limits=limits, environ={}, clock=clock)


def stop(_arrived, _total):
    raise StoppedError


@dataclass
class Slow:
    """Lets calls through until ``after`` of them, and the others when it is told to."""

    after: int = 0
    calls: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        self.calls += 1
        if self.calls > self.after:
            assert self.gate.wait(PATIENCE_S)
            self.ended.set()

    def clock(self) -> float:
        """Let the time be over once a call hangs."""
        return LIMIT_S + 1 if self.calls > self.after else 0.0


class SlowListing(LocalLocation):
    slow = Slow()

    def files(self, max_files, left=NEVER):
        self.slow.wait()
        return super().files(max_files, left)


@pytest.mark.parametrize("after", [0, 1], ids=["before", "after the bytes"])
def test_a_listing_that_hangs_ends_the_fetch_in_time(tmp_path, serve, after):
    location = SlowListing(write_files(tmp_path / "origin"))
    SlowListing.slow = Slow(after)
    serve(location)
    with pytest.raises(FetchTimeoutError):
        fetcher(clock=SlowListing.slow.clock).fetch("any", tmp_path / "into")
    SlowListing.slow.gate.set()
    assert SlowListing.slow.ended.wait(PATIENCE_S)


def test_a_stop_ends_a_listing_that_hangs(tmp_path, serve):
    SlowListing.slow = Slow()
    serve(SlowListing(tmp_path))
    with pytest.raises(StoppedError):
        fetcher(3600).fetch("any", tmp_path / "into", on_progress=stop)
    with pytest.raises(StoppedError):
        fetcher(3600).remote_listing("any", on_progress=stop)
    SlowListing.slow.gate.set()


def test_a_listing_alone_ends_in_time_too(tmp_path, serve):
    SlowListing.slow = Slow()
    serve(SlowListing(tmp_path))
    with pytest.raises(SourceError, match="did not list"):
        fetcher().remote_listing("any")
    SlowListing.slow.gate.set()


def test_a_place_that_has_to_be_asked_for_is_asked_for_in_time(tmp_path, monkeypatch):
    slow = Slow()
    monkeypatch.setattr(fetch_module, "open_location", lambda *_, **__: slow.wait())
    with pytest.raises(FetchTimeoutError):
        fetcher().fetch("any", tmp_path / "into")
    slow.gate.set()


@dataclass
class Repository:
    """As much of one of MLflow's artifact repositories as is used: of a folder."""

    folder: Path
    listing: Slow
    download: Slow

    def list_artifacts(self, folder):
        self.listing.wait()
        here = self.folder / (folder or "")
        return [
            SimpleNamespace(
                path=str(one.relative_to(self.folder)), is_dir=one.is_dir(), file_size=None
            )
            for one in sorted(here.iterdir())
        ]

    def download_artifacts(self, path, dst_path):
        self.download.wait()
        target = Path(dst_path, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.folder / path).read_bytes())
        return str(target)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    made = Repository(write_files(tmp_path / "origin"), Slow(10**9), Slow(10**9))
    monkeypatch.setattr(
        fetch_module,
        "open_location",
        lambda *_, scratch, **__: RepositoryLocation(made, scratch),
    )
    return made


def test_what_only_mlflow_can_read_is_fetched_file_by_file(repository, staging):
    fetched = fetcher(60).fetch("gs://any", staging / "into")
    assert fetched.size_bytes == sum(map(len, FILES.values()))
    assert {p: (staging / "into" / p).read_bytes() for p in FILES} == FILES
    assert not downloads(staging)


def test_no_folder_is_listed_that_nobody_waits_for(repository, tmp_path):
    repository.listing = Slow(after=1)
    with pytest.raises(FetchTimeoutError):
        fetcher().fetch("gs://any", tmp_path / "into")
    repository.listing.gate.set()
    assert repository.listing.ended.wait(PATIENCE_S)
    time.sleep(0.01)
    assert repository.listing.calls == 2  # of three


def test_a_download_that_hangs_ends_the_fetch_in_time_and_leaves_nothing(repository, staging):
    repository.download = Slow(after=1)
    with pytest.raises(FetchTimeoutError):
        fetcher(clock=repository.download.clock).fetch("gs://any", staging / "into")
    assert repository.download.calls == 2
    assert not downloads(staging)
    repository.download.gate.set()
    assert repository.download.ended.wait(PATIENCE_S)
    give_up_at = time.monotonic() + PATIENCE_S
    while downloads(staging):  # the download that nobody waited for removes its own
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@pytest.mark.parametrize("limit", ["max_bytes", "disk_floor_bytes"])
def test_a_download_that_grows_without_end_is_ended_as_it_grows(
    repository, staging, monkeypatch, limit
):
    grown = threading.Event()

    def download_artifacts(_path, dst_path):
        Path(dst_path, "MLmodel.part").write_bytes(b"x" * 5000)
        grown.set()
        assert repository.download.gate.wait(PATIENCE_S)
        return str(Path(dst_path, "MLmodel.part"))

    def disk_usage(_disk):
        return SimpleNamespace(free=0 if grown.is_set() else 10**9)

    monkeypatch.setattr(repository, "download_artifacts", download_artifacts)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    limits = {"max_bytes": 10**6, "disk_floor_bytes": 0, limit: 2000}
    with pytest.raises((ArtifactTooLargeError, NoDiskRoomError)):
        Fetcher(tracking_uri="", limits=FetchLimits(stable_after_s=0, **limits), environ={}).fetch(
            "gs://any", staging / "into"
        )
    assert not downloads(staging)
    repository.download.gate.set()
