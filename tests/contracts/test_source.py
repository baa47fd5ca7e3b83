"""What every `Source` does: the registry in memory, and a real MLflow server."""

import os
import uuid
from collections.abc import Callable

import pytest

from registry_sync.errors import SourceError
from registry_sync.sources.mlflow_registry import connect
from registry_sync.sources.source import Source
from tests.fakes.registry import FakeRegistry
from tests.servers import MlflowServer

DIGEST = "sha256:" + "b" * 64


class InMemory:
    """How a test publishes to the fake."""

    def __init__(self) -> None:
        self.source: Source = FakeRegistry()

    def publish(self, model: str, version: int) -> None:
        assert isinstance(self.source, FakeRegistry)
        self.source.publish(model, version)

    def point(self, model: str, alias: str, version: int) -> None:
        assert isinstance(self.source, FakeRegistry)
        self.source.point(model, alias, version)


class Mlflow:
    """How a test publishes to a real registry."""

    def __init__(self, server: MlflowServer) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(server.url)
        self.source: Source = connect(server.url, os.environ)

    def publish(self, model: str, version: int) -> None:
        if version == 1:
            self.client.create_registered_model(model)
        self.client.create_model_version(model, source=f"s3://nowhere/{model}/{version}")

    def point(self, model: str, alias: str, version: int) -> None:
        self.client.set_registered_model_alias(model, alias, str(version))


Registry = InMemory | Mlflow


@pytest.fixture(params=["in memory", "mlflow"])
def registry(request: pytest.FixtureRequest) -> Registry:
    if request.param == "in memory":
        return InMemory()
    return Mlflow(request.getfixturevalue("mlflow_registry"))


@pytest.fixture
def name(registry: Registry) -> str:
    made = f"contract {uuid.uuid4().hex[:8]}"
    registry.publish(made, 1)
    registry.publish(made, 2)
    registry.point(made, "champion", 1)
    return made


def test_a_listing_has_every_version_and_alias_and_latest(registry: Registry, name: str) -> None:
    listed = registry.source.aspired().models[name]
    assert set(listed.versions) == {1, 2}
    assert dict(listed.aliases) == {"champion": 1, "latest": 2}
    assert {one.version: (one.model, one.stamped) for one in listed.versions.values()} == {
        1: (name, False),
        2: (name, False),
    }


def test_a_moved_alias_is_in_the_next_listing(registry: Registry, name: str) -> None:
    registry.point(name, "champion", 2)
    assert registry.source.aspired().models[name].aliases["champion"] == 2


def test_a_stamp_is_in_the_next_listing(registry: Registry, name: str) -> None:
    registry.source.stamp(name, 2, DIGEST)
    listed = registry.source.aspired().models[name].versions
    assert (listed[1].expected_digest, listed[2].expected_digest) == (None, DIGEST)
    assert registry.source.version(name, 2).expected_digest == DIGEST


def test_a_listing_after_another_one_has_what_has_changed_since(
    registry: Registry, name: str
) -> None:
    before = registry.source.aspired()
    registry.point(name, "champion", 2)
    registry.publish(name, 3)
    after = registry.source.aspired(before).models[name]
    assert dict(after.aliases) == {"champion": 2, "latest": 3}
    assert registry.source.aspired(before).listed_at >= before.listed_at


def test_one_model_is_listed_as_in_the_whole(registry: Registry, name: str) -> None:
    registry.source.stamp(name, 2, DIGEST)
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
