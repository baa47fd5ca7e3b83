"""Objects come in parts, side by side; broken connections are gone on with; changes are noticed."""

import hashlib
import io
import threading
import time

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from botocore.utils import parse_timestamp
from urllib3.exceptions import ProtocolError

from registry_sync.errors import (
    ArtifactTooLargeError,
    FetchTimeoutError,
    IncompleteArtifactError,
    SourceError,
    UnsafePathError,
)
from registry_sync.sources.storage import fetcher as fetch_module, s3_parts
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from registry_sync.sources.storage.s3 import S3Location, _parse_timestamp
from registry_sync.sources.storage.watched_reads import parts_in_order
from tests.fakes.s3 import FakeS3, refusal

MLMODEL = b"flavors: {python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}}\n"
PART = 1000
BIG = bytes(number % 251 for number in range(10 * PART + 7))
PATIENCE_S = 10.0


class Torn(io.BytesIO):
    """A body whose connection breaks after some bytes."""

    def __init__(self, content, after, error=None):
        super().__init__(content[:after])
        self.error = error or ProtocolError("Connection broken")

    def read1(self, size=-1):
        piece = super().read1(size)
        if not piece:
            raise self.error
        return piece


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setattr(s3_parts, "PART_BYTES", PART)
    monkeypatch.setattr(s3_parts, "_RESUME_AFTER_S", 0.001)
    storage = FakeS3()
    for path, content in {"MLmodel": MLMODEL, "model.pkl": BIG, "data/empty": b""}.items():
        storage.put(f"m/1/{path}", content)
    return storage


@pytest.fixture
def fetch(s3, monkeypatch, tmp_path):
    location = S3Location(s3, "bucket", "m/1/")
    monkeypatch.setattr(fetch_module, "open_location", lambda *_, **__: location)

    def bring(clock=None, on_progress=None, **limits):
        fetcher = Fetcher(
            tracking_uri="",
            limits=FetchLimits(**({"disk_floor_bytes": 0, "stable_after_s": 0} | limits)),
            environ={},
            clock=clock or (lambda: 0.0),
        )
        return fetcher.fetch("s3://bucket/m/1", tmp_path / "into", on_progress=on_progress)

    return bring


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


def test_parts_become_files(s3, fetch):
    fetched = fetch()
    assert dict(fetched.manifest.files) == {
        "MLmodel": digest_of(MLMODEL),
        "data/empty": digest_of(b""),
        "model.pkl": digest_of(BIG),
    }
    assert (fetched.folder / "model.pkl").read_bytes() == BIG
    assert (fetched.folder / "data/empty").read_bytes() == b""
    assert s3.asked.count(("get_object", "m/1/model.pkl")) == 11
    assert fetched.size_bytes == len(BIG) + len(MLMODEL)


def test_parts_come_side_by_side(s3, fetch):
    together = threading.Barrier(4)

    def meet(name, key):
        if key.endswith("model.pkl") and s3.asked.count(("get_object", key)) <= 4:
            together.wait(PATIENCE_S)  # breaks, and fails the fetch, unless four are under way

    s3.before = meet
    fetch()


@pytest.mark.parametrize(
    "error", [ProtocolError("x"), ConnectionResetError(), ReadTimeoutError(endpoint_url="x"), None]
)
def test_a_broken_connection_is_gone_on_with_where_it_broke(s3, fetch, error):
    sizes = []

    def torn(content):
        sizes.append(len(content))
        return io.BytesIO(content[:300]) if error is None else Torn(content, 300, error)

    s3.bodies = torn
    fetched = fetch()
    assert fetched.manifest.files["model.pkl"] == digest_of(BIG)
    assert sum(sizes) == 10 * (1000 + 700 + 400 + 100) + len(MLMODEL) + 7  # no byte came twice


def test_a_storage_that_only_breaks_off_is_the_sources_error(s3, fetch):
    bodies = iter([300, *[0] * 100])
    s3.bodies = lambda content: Torn(content, next(bodies) if len(content) > 7 else 99)
    with pytest.raises(SourceError, match="Connection broken"):
        fetch()


@pytest.mark.parametrize("error", [EndpointConnectionError(endpoint_url="x"), refusal("SlowDown")])
def test_a_storage_that_does_not_answer_is_the_sources_error_at_once(s3, fetch, error):
    def down(name, key):
        if name == "get_object":
            raise error

    s3.before = down
    with pytest.raises(SourceError):
        fetch()
    assert s3.count("get_object") <= 4


def change(s3, key):
    s3.put(key, bytes(reversed(BIG)))


def remove(s3, key):
    s3.objects.pop(key, None)


@pytest.mark.parametrize("alter", [change, remove])
def test_an_object_that_changes_between_two_parts_is_noticed(s3, fetch, alter):
    def meanwhile(name, key):
        if s3.asked.count(("get_object", "m/1/model.pkl")) == 3:
            alter(s3, "m/1/model.pkl")

    s3.before = meanwhile
    with pytest.raises(IncompleteArtifactError, match="changed while it was fetched"):
        fetch()


def test_a_storage_that_does_not_answer_ranges_gives_no_wrong_bytes(s3, fetch):
    ranged = s3.get_object
    s3.get_object = lambda **asked: ranged(**{k: v for k, v in asked.items() if k != "Range"})
    with pytest.raises(IncompleteArtifactError, match="the answer has others"):
        fetch()


def test_a_slow_drip_does_not_outlast_the_time_limit(s3, fetch):
    """The drip never stops and never fills a part: only the reader's own clock can end it."""
    now = [0.0]

    class Drip(io.BytesIO):
        def read1(self, size=-1):
            time.sleep(0.001)
            return super().read1(1)

    def later(_done, _total):
        now[0] += 50.0

    s3.bodies = Drip
    began = time.monotonic()
    with pytest.raises(FetchTimeoutError):
        fetch(clock=lambda: now[0], on_progress=later, timeout_s=100.0)
    assert time.monotonic() - began < 10 * PART * 0.001, "it did not wait for the bytes"
    assert_readers_end()


def test_who_stops_listening_ends_what_is_on_its_way(s3, fetch):
    released, came = threading.Event(), threading.Event()

    def stand(name, key):
        if name == "get_object":
            came.set()
            released.wait(PATIENCE_S)

    class Enough(Exception):  # noqa: N818 - as the control plane's own, it is no failure
        pass

    def stop(_done, _total):
        if came.is_set():
            raise Enough

    s3.before = stand
    began = time.monotonic()
    with pytest.raises(Enough):
        fetch(on_progress=stop)
    assert time.monotonic() - began < PATIENCE_S, "it was asked while nothing came"
    released.set()
    assert_readers_end()


def assert_readers_end():
    for reader in [thread for thread in threading.enumerate() if thread.name == "read-ahead"]:
        reader.join(PATIENCE_S)
        assert not reader.is_alive()


def test_parts_that_wait_are_bounded():
    started = []

    def load(number, _left):
        started.append(number)
        return b"x"

    reading = parts_in_order(range(100), load, at_once=3)
    for number in range(10):
        while (came := next(reading)) == (number, None):
            pass
        assert came == (number, b"x")
        assert max(started) <= number + 3
    reading.close()


def test_what_a_part_raises_is_raised_in_its_turn():
    def load(number, _left):
        if number == 1:
            raise TimeoutError("its own")
        return b"x"

    reading = parts_in_order(range(3), load, at_once=3)
    assert next(reading) == (0, b"x")
    with pytest.raises(TimeoutError, match="its own"):
        list(reading)


def test_the_marks_of_folders_are_no_files(s3, fetch):
    for key in ("m/1/", "m/1/data/", "m/1/data/deep/"):
        s3.put(key, b"")
    assert "" not in fetch().manifest.files


def test_what_has_an_empty_name_and_content_is_refused(s3, fetch):
    s3.put("m/1/", b"content")
    with pytest.raises(UnsafePathError):
        fetch()


def test_a_listing_of_nothing_but_folders_ends(s3, fetch):
    for number in range(3000):
        s3.put(f"m/1/{number}/", b"")
    with pytest.raises(ArtifactTooLargeError, match="folders"):
        fetch(max_files=500)
    assert s3.count("list_objects_v2") == 2  # of four


def test_no_page_of_folders_is_asked_for_that_nobody_waits_for(s3):
    left = threading.Event()
    s3.page = 1
    for number in range(9):
        s3.put(f"m/2/{number}/", b"")
    s3.before = lambda _name, _key: left.set()
    S3Location(s3, "bucket", "m/2/").files(9, left)
    assert s3.count("list_objects_v2") == 1


@pytest.mark.parametrize(
    "told",
    [
        "2026-11-23T03:31:49.778Z",
        "2026-11-23T03:31:49Z",
        "2026-11-23T04:31:49.778+01:00",
        "Mon, 23 Nov 2026 03:31:49 GMT",
        "1795404709",
        1795404709,
    ],
)
def test_times_are_parsed_as_botocore_does(told: str | float) -> None:
    assert _parse_timestamp(told).timestamp() == parse_timestamp(str(told)).timestamp()
