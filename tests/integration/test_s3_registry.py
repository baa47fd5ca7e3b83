"""A registry in a bucket of a real S3 server: published, listed, fetched; and its wire fails."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from registry_sync.errors import FetchTimeoutError, IncompleteArtifactError, PublishError
from registry_sync.sources.s3_layout import ModelLocation
from registry_sync.sources.s3_publisher import Publication, Publisher, read_folder
from registry_sync.sources.s3_registry import S3Registry, connect_s3_registry
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from registry_sync.sources.storage.s3 import connect_s3
from tests.integration.faulty_wire import FaultyWire
from tests.servers import Seaweed

pytestmark = pytest.mark.integration

BUCKET = "registry"
MLMODEL = b"flavors: {python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}}\n"
BIG_BYTES = 20 * 2**20
SMALL_LIMIT_S = 3.0
PATIENCE_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _bucket(s3: Seaweed) -> None:
    s3.make_bucket(BUCKET)


@pytest.fixture(autouse=True)
def _credentials(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def root() -> str:
    """A registry of the test's own."""
    return f"s3://{BUCKET}/{uuid4().hex}/models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model")


@pytest.fixture
def wire(s3: Seaweed) -> Iterator[FaultyWire]:
    with closing(FaultyWire.to(s3.url)) as made:
        assert isinstance(made, FaultyWire)
        yield made


def write(folder: Path, content: bytes = b"m" * 1000) -> Path:
    (folder / "deep er").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(MLMODEL)
    (folder / "model.pkl").write_bytes(content)
    (folder / "deep er" / "émpty").write_bytes(b"")
    return folder


def publish(
    uri: str, folder: Path, version: int | None = None, aliases: tuple[str, ...] = ()
) -> Publication:
    read = read_folder(folder, max_files=100, max_bytes=2**30, on_bytes=lambda *_: None)
    publisher = Publisher(connect_s3(os.environ), ModelLocation.at(uri))
    return publisher.publish(read, version, aliases, lambda *_: None)


def source(root: str) -> S3Registry:
    return connect_s3_registry(root, os.environ)


def fetcher(endpoint: str = "", **limits: float) -> Fetcher:
    bounded = FetchLimits(**({"disk_floor_bytes": 0, "stable_after_s": 0} | limits))  # type: ignore[arg-type]  # numbers
    environ = dict(os.environ) | ({"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {})
    return Fetcher(tracking_uri="", limits=bounded, environ=environ)


@pytest.mark.parametrize("model", ["plain", "a name, ünïcode & 100 %?+#"])
def test_what_is_published_is_listed_and_fetched_with_its_digest(root, folder, tmp_path, model):
    done = publish(f"{root}/{model}", folder, aliases=("champion",))
    assert (done.version, done.guarded) == (1, True), "this server keeps conditions"
    aspired = source(root).aspired()
    found = aspired.models[model]
    assert (list(aspired.models), aspired.problems, found.problems) == ([model], (), ())
    assert found.aliases == {"champion": 1}
    assert found.versions[1].expected_digest == done.manifest.digest
    uri = source(root).locate(model, 1)
    assert uri == found.versions[1].location
    fetched = fetcher().fetch(uri, tmp_path / "into")
    assert fetched.manifest.digest == done.manifest.digest


def test_an_unfinished_upload_is_not_listed_and_a_later_publication_passes_it_by(s3, root, folder):
    publish(f"{root}/m", folder)
    prefix = root.removeprefix(f"s3://{BUCKET}/")
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/m/2/MLmodel", Body=b"half")
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/new/1/MLmodel", Body=b"half")
    aspired = source(root).aspired()
    assert {name: set(model.versions) for name, model in aspired.models.items()} == {"m": {1}}
    (folder / "model.pkl").write_bytes(b"another")
    assert publish(f"{root}/m", folder).version == 3
    assert set(source(root).aspired().models["m"].versions) == {1, 3}


def test_a_published_version_is_not_overwritten(root, folder):
    first = publish(f"{root}/m", folder, version=4)
    assert not publish(f"{root}/m", folder, version=4).uploaded
    (folder / "model.pkl").write_bytes(b"another")
    with pytest.raises(PublishError, match="with other bytes"):
        publish(f"{root}/m", folder, version=4)
    assert source(root).version("m", 4).expected_digest == first.manifest.digest


def test_publications_at_the_same_time_lose_no_version_and_no_alias(root, tmp_path):
    count = 3
    folders = [write(tmp_path / str(n), str(n).encode()) for n in range(count)]
    done: dict[int, Publication] = {}
    together = threading.Barrier(count)

    def one(number: int) -> None:
        together.wait(PATIENCE_S)
        done[number] = publish(f"{root}/m", folders[number], aliases=(f"of-{number}", "last"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert len(done) == count
    found = source(root).aspired().models["m"]
    versions = {number: each.version for number, each in done.items()}
    assert len(set(versions.values())) == count
    assert {n: found.aliases[f"of-{n}"] for n in versions} == versions
    for number, each in done.items():
        stamp = found.versions[each.version].expected_digest
        assert stamp == each.manifest.digest
        fetched = fetcher().fetch(found.versions[each.version].location, tmp_path / f"got-{number}")
        assert fetched.manifest.digest == stamp


# --- the wire -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big_content() -> bytes:
    return os.urandom(BIG_BYTES)


@pytest.fixture
def big(s3: Seaweed, root: str, tmp_path: Path, big_content: bytes) -> str:
    """The URI of a version of several parts."""
    done = publish(f"{root}/m", write(tmp_path / "big", big_content))
    return done.location.uri(done.location.files(done.version))


def test_connections_that_break_again_and_again_are_gone_on_with(wire, big, big_content, tmp_path):
    wire.breaks_after = 3 * 2**20
    fetched = fetcher(wire.url).fetch(big, tmp_path / "into")
    assert fetched.manifest.files["model.pkl"] == hashlib.sha256(big_content).hexdigest()
    assert wire.broken >= 5
    assert wire.passed < 1.25 * BIG_BYTES, "nothing was begun again"


def test_a_wire_that_is_cut_for_a_while_only_delays(wire, big, big_content, tmp_path):
    cut = threading.Event()

    def cut_once(done: int, _total: int | None) -> None:
        if done and not cut.is_set():
            cut.set()
            wire.cut()
            wire.join()

    fetched = fetcher(wire.url).fetch(big, tmp_path / "into", on_progress=cut_once)
    assert cut.is_set()
    assert fetched.manifest.files["model.pkl"] == hashlib.sha256(big_content).hexdigest()


def test_a_drip_ends_at_the_time_limit(wire, big, tmp_path):
    wire.drips_after = 4 * 2**20
    began = time.monotonic()
    with pytest.raises(FetchTimeoutError):
        fetcher(wire.url, timeout_s=SMALL_LIMIT_S).fetch(big, tmp_path / "into")
    assert time.monotonic() - began < SMALL_LIMIT_S + 2


def test_an_object_that_changes_between_its_parts_is_noticed(s3, big, tmp_path):
    key = big.removeprefix(f"s3://{BUCKET}/") + "/model.pkl"
    changed = threading.Event()

    def meanwhile(done: int, _total: int | None) -> None:
        if done and not changed.is_set():
            changed.set()
            s3.client().put_object(Bucket=BUCKET, Key=key, Body=os.urandom(BIG_BYTES))

    with pytest.raises(IncompleteArtifactError, match="changed while"):
        fetcher().fetch(big, tmp_path / "into", on_progress=meanwhile)


def test_aliases_written_by_hand_count_and_broken_ones_change_nothing(s3, root, folder):
    publish(f"{root}/m", folder, aliases=("champion",))
    registry = source(root)
    key = f"{root.removeprefix(f's3://{BUCKET}/')}/m/aliases.json"
    for text, aliases, known in (
        (json.dumps({"champion": 1, "by-hand": "1"}), {"champion", "by-hand"}, True),
        ("{", set(), False),
    ):
        s3.client().put_object(Bucket=BUCKET, Key=key, Body=text.encode())
        found = registry.aspired().models["m"]
        assert (set(found.aliases), found.aliases_known) == (aliases, known)
