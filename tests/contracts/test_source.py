"""What every `Source` does: registries in memory, a real MLflow server, a real S3 storage."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from registry_sync.artifacts.manifest import Manifest
from registry_sync.errors import SourceError
from registry_sync.sources.mlflow_registry import connect_mlflow
from registry_sync.sources.s3_layout import Root
from registry_sync.sources.s3_registry import S3Registry
from registry_sync.sources.source import Source
from tests.fakes.registry import FakeRegistry
from tests.fakes.s3 import FakeS3
from tests.servers import MlflowServer, Seaweed, seaweedfs

DIGEST = "sha256:" + "b" * 64
OTHER_DIGEST = "sha256:" + "c" * 64


class InMemory:
    """How a test publishes to the fake."""

    stamps_itself = False

    def __init__(self) -> None:
        self.source: Source = FakeRegistry()

    def publish(self, model: str, version: int) -> None:
        assert isinstance(self.source, FakeRegistry)
        self.source.publish(model, version, latest=False)

    def point(self, model: str, alias: str, version: int) -> None:
        assert isinstance(self.source, FakeRegistry)
        self.source.point(model, alias, version)


class Mlflow:
    """How a test publishes to a real registry."""

    stamps_itself = False

    def __init__(self, server: MlflowServer) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(server.url)
        self.source: Source = connect_mlflow(server.url, os.environ)

    def publish(self, model: str, version: int) -> None:
        if version == 1:
            self.client.create_registered_model(model)
        self.client.create_model_version(model, source=f"s3://nowhere/{model}/{version}")

    def point(self, model: str, alias: str, version: int) -> None:
        self.client.set_registered_model_alias(model, alias, str(version))


class Bucket:
    """How a test publishes to a prefix of a bucket: every version has its manifest."""

    stamps_itself = True

    def __init__(self, client: Any) -> None:
        self.client = client
        self.source: Source = S3Registry(lambda: client, Root("contract", "a/prefix/"))
        self.aliases: dict[str, dict[str, int]] = {}

    def publish(self, model: str, version: int) -> None:
        self._put(f"{model}/{version}/MLmodel", f"{model} {version}")
        self._put(f"{model}/{version}.manifest", self.manifest(version).text())

    def point(self, model: str, alias: str, version: int) -> None:
        pointed = self.aliases.setdefault(model, {})
        pointed[alias] = version
        self._put(f"{model}/aliases.json", json.dumps(pointed))

    def manifest(self, version: int) -> Manifest:
        return Manifest.of({"MLmodel": f"{version:064}"})

    def _put(self, path: str, text: str) -> None:
        self.client.put_object(Bucket="contract", Key=f"a/prefix/{path}", Body=text.encode())


Registry = InMemory | Mlflow | Bucket


@pytest.fixture(scope="session")
def s3_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweedfs(tmp_path_factory.mktemp("s3") / "server") as server:
        server.make_bucket("contract")
        yield server


@pytest.fixture(params=["in memory", "mlflow", "bucket in memory", "bucket"])
def registry(request: pytest.FixtureRequest) -> Registry:
    match request.param:
        case "in memory":
            return InMemory()
        case "mlflow":
            return Mlflow(request.getfixturevalue("mlflow_registry"))
        case "bucket in memory":
            return Bucket(FakeS3())
        case _:
            return Bucket(request.getfixturevalue("s3_storage").client())


@pytest.fixture
def name(registry: Registry) -> Iterator[str]:
    made = f"contract {uuid.uuid4().hex[:8]}"
    registry.publish(made, 1)
    registry.publish(made, 2)
    registry.point(made, "champion", 1)
    yield made
    if isinstance(registry, Mlflow):  # the server is the session's: other nodes would fetch it
        registry.client.delete_registered_model(made)


def test_a_listing_has_every_version_and_alias(registry: Registry, name: str) -> None:
    listed = registry.source.aspired().models[name]
    assert set(listed.versions) == {1, 2}
    assert dict(listed.aliases) == {"champion": 1}
    assert {one.version: (one.model, one.stamped) for one in listed.versions.values()} == {
        1: (name, registry.stamps_itself),
        2: (name, registry.stamps_itself),
    }


def test_a_moved_alias_is_in_the_next_listing(registry: Registry, name: str) -> None:
    registry.point(name, "champion", 2)
    assert registry.source.aspired().models[name].aliases["champion"] == 2


def test_a_stamp_is_in_the_next_listing(registry: Registry, name: str) -> None:
    digest = registry.manifest(2).digest if isinstance(registry, Bucket) else DIGEST
    registry.source.stamp(name, 2, digest)
    listed = registry.source.aspired().models[name].versions
    assert listed[2].expected_digest == digest
    assert listed[1].expected_digest != digest
    assert registry.source.version(name, 2).expected_digest == digest


def test_another_stamp_counts_or_is_refused(registry: Registry, name: str) -> None:
    if isinstance(registry, Bucket):
        before = registry.source.version(name, 2).expected_digest
        with pytest.raises(SourceError, match="publish the other bytes as a new version"):
            registry.source.stamp(name, 2, DIGEST)
        assert registry.source.version(name, 2).expected_digest == before
        return
    for digest in (DIGEST, OTHER_DIGEST):
        registry.source.stamp(name, 2, digest)
        assert registry.source.version(name, 2).expected_digest == digest


def test_a_listing_after_another_one_has_what_has_changed_since(
    registry: Registry, name: str
) -> None:
    before = registry.source.aspired()
    registry.point(name, "champion", 2)
    registry.publish(name, 3)
    after = registry.source.aspired(before).models[name]
    assert dict(after.aliases) == {"champion": 2}
    assert registry.source.aspired(before).listed_at >= before.listed_at


def test_one_model_is_listed_as_in_the_whole(registry: Registry, name: str) -> None:
    assert registry.source.model(name) == registry.source.aspired().models[name]
    assert registry.source.model("nobody") is None


def test_a_version_says_where_it_is(registry: Registry, name: str) -> None:
    assert registry.source.locate(name, 1) != registry.source.locate(name, 2)


@pytest.mark.parametrize("ask", [lambda s, m: s.version(m, 9), lambda s, m: s.locate(m, 9)])
def test_a_version_that_is_not_there_is_a_source_error(
    registry: Registry, name: str, ask: Callable[[Source, str], object]
) -> None:
    with pytest.raises(SourceError):
        ask(registry.source, name)
