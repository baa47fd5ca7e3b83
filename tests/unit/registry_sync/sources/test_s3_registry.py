"""What a bucket's prefix means as a registry; the real storage is in the integration tests."""

import json
import threading
import time

import pytest
from botocore.exceptions import EndpointConnectionError

from registry_sync.artifacts.manifest import Manifest
from registry_sync.bootstrap import build_fetcher, build_registry
from registry_sync.errors import SourceError
from registry_sync.settings import SyncSettings
from registry_sync.sources import s3_registry
from registry_sync.sources.mlflow_registry import MlflowRegistry
from registry_sync.sources.s3_layout import ModelLocation, Root
from registry_sync.sources.s3_registry import S3Registry, connect_s3_registry
from tests.fakes.s3 import FakeS3, refusal

MANIFEST = Manifest.of({"MLmodel": "a" * 64})


@pytest.fixture
def s3():
    return FakeS3()


@pytest.fixture
def source(s3):
    return S3Registry(lambda: s3, Root("bucket", "reg/"), clock=lambda: 5.0)


def publish(s3, model, version, manifest=None):
    s3.put(f"reg/{model}/{version}/MLmodel", b"x")
    s3.put(f"reg/{model}/{version}.manifest", (manifest or MANIFEST.text()).encode())


def point(s3, model, text):
    s3.put(
        f"reg/{model}/aliases.json", text if isinstance(text, bytes) else json.dumps(text).encode()
    )


def test_published_versions_are_listed_with_their_stamp(s3, source):
    publish(s3, "a model", 2)
    publish(s3, "a model", 10)
    point(s3, "a model", {"champion": 2, "canary": "10", "gone": 9})
    aspired = source.aspired()
    found = aspired.models["a model"]
    assert found.aliases == {"champion": 2, "canary": 10}
    assert {n: (v.expected_digest, v.location) for n, v in found.versions.items()} == {
        n: (MANIFEST.digest, f"s3://bucket/reg/a model/{n}") for n in (2, 10)
    }
    assert found.versions[2].created_at == s3.now.timestamp()
    assert found.problems == ("the alias 'gone' points at version 9, which is not listed",)
    assert (found.unfollowed, aspired.problems, aspired.listed_at) == ({"gone"}, (), 5.0)


def test_what_has_no_manifest_is_not_listed(s3, source):
    publish(s3, "m", 1)
    s3.put("reg/m/2/MLmodel", b"still coming")
    s3.put("reg/new/1/MLmodel", b"still coming")
    s3.put("reg/readme.txt", b"nobody's")
    s3.put("elsewhere/n/1.manifest", MANIFEST.text().encode())
    aspired = source.aspired()
    assert {name: set(model.versions) for name, model in aspired.models.items()} == {"m": {1}}
    assert aspired.models["m"].aliases == {"latest": 1}


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"[" * 100_000, b" " * (2**20 + 1)])
def test_aliases_that_cannot_be_read_take_none_away(s3, source, text):
    publish(s3, "m", 1)
    point(s3, "m", text)
    found = source.aspired().models["m"]
    assert not found.aliases_known
    assert found.keeps_alias("champion")
    assert found.keeps_alias("latest")
    assert found.aliases == {}
    (problem,) = found.problems
    assert "s3://bucket/reg/m/aliases.json cannot be read" in problem


@pytest.mark.parametrize("text", ["", "nonsense\n", f"{'a' * 64}  ../evil\n", f"{'a' * 64}  /e\n"])
def test_version_with_an_unreadable_manifest_is_listed_with_a_problem(s3, source, text):
    publish(s3, "m", 1)
    publish(s3, "m", 2)
    s3.put("reg/m/2.manifest", text.encode())
    point(s3, "m", {"champion": 2})
    found = source.aspired().models["m"]
    assert (set(found.versions), found.aliases) == ({1, 2}, {"champion": 2})
    version = found.versions[2]
    assert (version.expected_digest, version.stamped) == (None, False)
    assert "2.manifest is not a manifest" in (version.stamp_problem or "")
    assert version.problems == (version.stamp_problem,)
    assert found.versions[1].stamp_problem is None


def test_names_that_are_none_are_problems(s3, source):
    for name in ("a:b", "..", "a\nb"):
        publish(s3, name, 1)
    s3.put("reg/m/1.manifest", MANIFEST.text().encode())
    for odd in ("01.manifest", "x.manifest", "0.manifest"):
        s3.put(f"reg/m/{odd}", b"")
    aspired = source.aspired()
    assert (list(aspired.models), len(aspired.problems)) == (["m"], 3)
    assert len(aspired.models["m"].problems) == 3


@pytest.mark.parametrize("page", [1, 2, 3, 5, 7, 50, 1000])
def test_however_long_a_page_is_a_listing_is_complete(s3, source, page):
    s3.page = page
    for model, versions in (("a", 2), ("a-b", 1), ("a.b", 3), ("big", 4), ("z", 1)):
        for version in range(1, versions + 1):
            publish(s3, model, version)
        point(s3, model, {"champion": versions})
    for number in range(40):
        s3.put(f"reg/big/3/part-{number:02}", b"x")
        s3.put(f"reg/big/part-{number:02}", b"of nobody")
    s3.put("reg/beside", b"of nobody")
    models = source.aspired().models
    assert {name: sorted(one.versions) for name, one in models.items()} == {
        "a": [1, 2],
        "a-b": [1],
        "a.b": [1, 2, 3],
        "big": [1, 2, 3, 4],
        "z": [1],
    }
    assert all(one.aliases["champion"] == max(one.versions) for one in models.values())


def test_of_a_model_with_many_files_only_its_folder_is_listed(s3, source):
    publish(s3, "a", 1)
    for version in range(1, 21):
        publish(s3, "big", version)
        for number in range(1000):
            s3.put(f"reg/big/{version}/part-{number:04}", b"x")
    publish(s3, "c", 1)
    assert sorted(source.aspired().models) == ["a", "big", "c"]
    assert s3.count("list_objects_v2") <= 5, "of 20,000 objects"


def test_an_ordinary_listing_is_one_call_for_a_thousand_objects(s3, source):
    for number in range(500):
        publish(s3, f"m{number}", 1)
        point(s3, f"m{number}", {"champion": 1})
    threads = threading.active_count()
    assert len(source.aspired().models) == 500
    assert threading.active_count() <= threads + 20
    s3.asked.clear()
    source.aspired()
    assert s3.asked == [("list_objects_v2", "reg/")] * 2, "of 1,500 objects"
    point(s3, "m3", {"champion": 1, "canary": 1})
    assert source.aspired().models["m3"].aliases["canary"] == 1
    assert s3.count("get_object") == 1


def test_a_listing_of_too_many_pages_ends(s3, source):
    s3.page = 1
    for number in range(1, 102):
        publish(s3, "m", number)
    with pytest.raises(SourceError, match="pages"):
        source.aspired()


def test_a_listing_is_whole_or_an_error(s3, source):
    publish(s3, "m", 1)
    publish(s3, "n", 1)

    def down(name, key):
        if key.startswith("reg/n"):
            raise EndpointConnectionError(endpoint_url="http://s3")

    s3.before = down
    with pytest.raises(SourceError, match="s3://bucket/reg could not be listed"):
        source.aspired()


@pytest.mark.parametrize("slow", ["reg/", "reg/m/1.manifest"])
def test_a_storage_that_never_comes_to_an_end_makes_no_listing(s3, source, monkeypatch, slow):
    publish(s3, "m", 1)
    released = threading.Event()

    def stand(_name, key):
        if key == slow:
            released.wait(30)

    s3.before = stand
    monkeypatch.setattr(s3_registry, "_LISTING_LIMIT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(SourceError, match="did not answer within"):
        source.aspired()
    assert time.monotonic() - began < 10
    released.set()


def test_a_manifest_that_changes_while_it_is_listed_makes_no_listing(s3, source):
    publish(s3, "m", 1)

    def meanwhile(name, key):
        if name == "get_object":
            s3.put(key, b"another")

    s3.before = meanwhile
    with pytest.raises(SourceError, match="changed while"):
        source.aspired()


def test_version_is_read_alone(s3, source):
    publish(s3, "m", 1)
    assert source.version("m", 1) == source.aspired().models["m"].versions[1]
    s3.put("reg/m/1.manifest", b"nonsense")
    with pytest.raises(SourceError, match="not a manifest"):
        source.version("m", 1)
    with pytest.raises(SourceError, match=r"not published: there is no s3://bucket/reg/m/2\.manif"):
        source.version("m", 2)
    s3.before = lambda *_: (_ for _ in ()).throw(refusal("AccessDenied"))
    with pytest.raises(SourceError, match="AccessDenied"):
        source.locate("m", 1)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x"])
def test_a_uri_without_a_bucket_is_refused(uri):
    with pytest.raises(SourceError, match="is not s3://bucket/prefix"):
        connect_s3_registry(uri, {})


def test_a_prefix_may_be_empty(s3):
    assert Root.at("s3://b") == Root.at("s3://b/") == Root("b", "")
    assert ModelLocation.at("s3://b/m") == ModelLocation(Root("b", ""), "m")
    assert ModelLocation.at("s3://b/x/y/m/") == ModelLocation(Root("b", "x/y/"), "m")
    s3.put("m/1.manifest", MANIFEST.text().encode())
    found = S3Registry(lambda: s3, Root("b", "")).aspired().models["m"].versions[1]
    assert found.location == "s3://b/m/1"


@pytest.mark.parametrize(
    ("uri", "kind", "stable_after_s"),
    [("s3://bucket/reg", S3Registry, 0.0), ("http://127.0.0.1:9", MlflowRegistry, 5.0)],
)
def test_tracking_uri_selects_the_source(monkeypatch, uri, kind, stable_after_s):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("REGISTRY_SYNC_TRACKING_URI", uri)
    settings = SyncSettings()
    assert isinstance(build_registry(settings), kind)
    assert build_fetcher(settings)._limits.stable_after_s == stable_after_s
