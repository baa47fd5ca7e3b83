"""Fetching from a real S3 server."""

from __future__ import annotations

import io
import os
from uuid import uuid4

import pytest

from registry_sync.artifacts.description import check_complete
from registry_sync.errors import (
    ArtifactTooLargeError,
    IncompleteArtifactError,
    SourceError,
    UnsafePathError,
)
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from tests.servers import Seaweed

pytestmark = pytest.mark.integration

MLMODEL = b"flavors: {python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}}\n"
FILES = {"MLmodel": MLMODEL, "model.pkl": b"m" * 3_000_000, "data/empty": b""}


BUCKET = "artifacts"  # one for all: every bucket costs the server several volumes


@pytest.fixture(scope="module", autouse=True)
def _bucket(s3: Seaweed) -> None:
    s3.make_bucket(BUCKET)


@pytest.fixture
def prefix() -> str:
    """Return a prefix of the test's own."""
    return f"{uuid4().hex}/one"


def put(s3: Seaweed, prefix: str, files: dict[str, bytes] | None = None) -> str:
    client = s3.client()
    for path, content in (FILES if files is None else files).items():
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=content)
    return f"s3://{BUCKET}/{prefix}"


def fetcher(s3: Seaweed, environ: dict[str, str] | None = None, **limits: float) -> Fetcher:
    bounded = FetchLimits(**({"disk_floor_bytes": 0, "stable_after_s": 0} | limits))  # type: ignore[arg-type]  # numbers
    return Fetcher(tracking_uri="", limits=bounded, environ=s3.environ | (environ or {}))


@pytest.fixture(autouse=True)
def _credentials(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boto3 itself reads the credentials from the process's environment."""
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)


def test_objects_become_the_same_artifact_as_files(s3, prefix, tmp_path):
    uri = put(s3, prefix)
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/data/", Body=b"")  # a folder's mark
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}-and-a-half/x", Body=b"")
    result = fetcher(s3).fetch(uri + "/", tmp_path / "into")
    for path, content in FILES.items():
        assert (tmp_path / "into" / path).read_bytes() == content
    same = fetcher(s3).fetch(str(tmp_path / "into"), tmp_path / "again")
    assert result.manifest == same.manifest
    assert result.size_bytes == sum(map(len, FILES.values()))
    assert result.listing == fetcher(s3).remote_listing(uri)


@pytest.mark.parametrize(
    "change",
    [{"model.pkl": b"n" * 3_000_000}, {"added": b""}],
    ids=["same size, other bytes", "added"],
)
def test_the_listing_tells_a_change_without_fetching(s3, prefix, change):
    uri = put(s3, prefix)
    before = fetcher(s3).remote_listing(uri)
    assert before is not None
    assert fetcher(s3).remote_listing(uri) == before
    put(s3, prefix, change)
    assert fetcher(s3).remote_listing(uri) != before


@pytest.mark.parametrize("path", ["model.pkl", "data/empty", "new"])
def test_an_upload_that_moves_while_it_is_fetched_is_incomplete(s3, prefix, tmp_path, path):
    uri = put(s3, prefix)

    def meanwhile(_so_far: int, in_all: int | None) -> None:
        if in_all is not None:  # it has been listed
            put(s3, prefix, {path: b"moved"})

    with pytest.raises(IncompleteArtifactError):
        fetcher(s3).fetch(uri, tmp_path / "into", on_progress=meanwhile)


def test_an_object_that_disappears_is_incomplete(s3, prefix, tmp_path):
    uri = put(s3, prefix)

    def meanwhile(_so_far: int, in_all: int | None) -> None:
        if in_all is not None:  # it has been listed
            s3.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/model.pkl")

    with pytest.raises(IncompleteArtifactError):
        fetcher(s3).fetch(uri, tmp_path / "into", on_progress=meanwhile)


def test_a_fresh_upload_must_settle(s3, prefix, tmp_path):
    uri = put(s3, prefix)
    with pytest.raises(IncompleteArtifactError, match="the newest file is"):
        fetcher(s3, stable_after_s=3600).fetch(uri, tmp_path / "into")


@pytest.mark.parametrize("missing", ["MLmodel", "model.pkl"])
def test_a_missing_file_is_incomplete(s3, prefix, tmp_path, missing):
    uri = put(s3, prefix, {p: c for p, c in FILES.items() if p != missing})
    with pytest.raises(IncompleteArtifactError, match=missing):
        check_complete(fetcher(s3).fetch(uri, tmp_path / "into").folder)


def test_an_empty_prefix_is_incomplete_and_a_missing_bucket_the_sources_error(s3, prefix, tmp_path):
    with pytest.raises(IncompleteArtifactError):
        fetcher(s3).fetch(f"s3://{BUCKET}/{prefix}", tmp_path / "into")
    with pytest.raises(SourceError):
        fetcher(s3).fetch("s3://no-such-bucket-at-all/x", tmp_path / "into")


def test_more_than_one_page_is_listed(s3, prefix):
    uri = put(s3, prefix, {f"part-{n:04}": b"" for n in range(1005)})
    assert fetcher(s3, max_files=1005).remote_listing(uri)
    with pytest.raises(ArtifactTooLargeError):
        fetcher(s3, max_files=1004).remote_listing(uri)


def test_limits_hold(s3, prefix, tmp_path):
    uri = put(s3, prefix)
    with pytest.raises(ArtifactTooLargeError):
        fetcher(s3, max_bytes=1_000_000).fetch(uri, tmp_path / "into")


@pytest.mark.parametrize("path", ["Mlmodel", "line\nbreak"])
def test_unsafe_keys_are_refused_before_a_byte_is_written(s3, prefix, tmp_path, path):
    uri = put(s3, prefix, FILES | {path: b"x"})
    with pytest.raises(UnsafePathError):
        fetcher(s3).fetch(uri, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_objects_uploaded_in_parts_are_fetched(s3, prefix, tmp_path):
    from boto3.s3.transfer import TransferConfig

    uri = put(s3, prefix)
    content = os.urandom(12 * 2**20)
    config = TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20)
    key = f"{prefix}/big"
    s3.client().upload_fileobj(io.BytesIO(content), BUCKET, key, Config=config)
    fetcher(s3).fetch(uri, tmp_path / "into")
    assert (tmp_path / "into" / "big").read_bytes() == content


def test_a_wrong_secret_is_the_sources_error(s3, prefix, tmp_path, monkeypatch):
    uri = put(s3, prefix)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something else")
    with pytest.raises(SourceError):
        fetcher(s3).fetch(uri, tmp_path / "into")


def test_the_endpoint_comes_from_aws_own_variable_too(s3, prefix, tmp_path, monkeypatch):
    uri = put(s3, prefix)
    monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL")
    environ = {"AWS_ENDPOINT_URL_S3": s3.url}
    plain = Fetcher(
        tracking_uri="", limits=FetchLimits(stable_after_s=0, disk_floor_bytes=0), environ=environ
    )
    assert plain.remote_listing(uri) == fetcher(s3).remote_listing(uri)
