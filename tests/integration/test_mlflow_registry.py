"""The MLflow registry as a source, and its artifact proxy, against a real server."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.contract.catalogue import Policy
from registry_sync.artifacts.description import describe
from registry_sync.artifacts.verify import verify
from registry_sync.domain import LedgerView
from registry_sync.domain.aspired import Aspired
from registry_sync.domain.tags import DIGEST_TAG
from registry_sync.errors import FetchTimeoutError, IncompleteArtifactError, SourceError
from registry_sync.planning.catalogue import KnownState, describe_model
from registry_sync.sources import mlflow_registry
from registry_sync.sources.mlflow_registry import MlflowRegistry, connect_mlflow
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from tests.integration.faulty_wire import FaultyWire
from tests.models.catalogue import LinearModel
from tests.servers import MlflowServer, free_ports

pytestmark = pytest.mark.integration

MLMODEL = b"flavors: {python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}}\n"
LIMIT_S = 3.0


@pytest.fixture
def client(mlflow: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow.url)


@pytest.fixture
def registry(mlflow: MlflowServer) -> MlflowRegistry:
    return connect_mlflow(mlflow.url, os.environ)


@pytest.fixture
def fetcher(mlflow: MlflowServer) -> Fetcher:
    limits = FetchLimits(disk_floor_bytes=0, timeout_s=120, stable_after_s=0)
    return Fetcher(tracking_uri=mlflow.url, limits=limits, environ=os.environ)


@pytest.fixture
def name() -> str:
    return f"caf\u00e9 %2F? {uuid4().hex[:8]}"


def on_disk(artifacts: Path, uri: str) -> Path:
    return artifacts / uri.removeprefix("mlflow-artifacts:/")


def test_a_registry_is_listed_whole(registry, client, name, mlflow, monkeypatch):
    import mlflow as mlflow_library

    monkeypatch.setattr(mlflow_registry, "_MODELS_PER_PAGE", 2)
    monkeypatch.setattr(mlflow_registry, "_VERSIONS_PER_PAGE", 2)
    names = [f"{name}-{n}" for n in range(5)]
    for each in names:
        client.create_registered_model(each, tags={"gateway.load": "preload"})
    digest = "sha256:" + "5" * 64
    for version in range(1, 6):
        client.create_model_version(
            names[0], "s3://nowhere/at-all", tags={DIGEST_TAG: digest} if version == 2 else None
        )
    client.set_registered_model_alias(names[0], "champion", "2")
    client.set_registered_model_alias(names[0], "7", "2")
    client.set_registered_model_alias(names[0], "\u751f\u7523", "3")
    mlflow_library.set_tracking_uri(mlflow.url)
    mlflow_library.genai.register_prompt(f"prompt-{uuid4().hex}", "Hello {{who}}")

    models = registry.aspired().models
    assert set(names) <= set(models)
    assert not any(each.startswith("prompt-") for each in models)
    found = models[names[0]]
    assert sorted(found.versions) == [1, 2, 3, 4, 5]
    assert found.aliases == {"champion": 2, "\u751f\u7523": 3}
    assert found.tags == {"gateway.load": "preload"}
    assert found.versions[2].expected_digest == digest
    assert not found.versions[1].stamped
    assert found.versions[1].created_at > 1_600_000_000
    assert len(found.problems) == 1
    assert models[names[1]].versions == {}


def test_a_stamp_that_cannot_be_read_is_no_missing_one(registry, client, name):
    client.create_registered_model(name)
    for tag in (DIGEST_TAG, "Gateway.Digest"):
        client.create_model_version(name, "s3://nowhere/at-all", tags={tag: "md5:123"})
    found = registry.aspired().models[name].versions
    assert all(found[n].stamp_problem and not found[n].stamped for n in (1, 2))
    assert registry.version(name, 1).stamp_problem == found[1].stamp_problem
    client.set_model_version_tag(name, "1", DIGEST_TAG, "sha256:" + "c" * 64)
    assert registry.aspired().models[name].versions[1].stamp_problem is None


def test_an_impossible_row_leaves_out_itself_only(registry, client, name, mlflow):
    others = f"{name}-other"
    for each in (name, others):
        client.create_registered_model(each)
        for _ in range(2):
            client.create_model_version(each, "s3://nowhere/at-all")
        client.set_registered_model_alias(each, "champion", "1")
    client.set_registered_model_alias(name, "canary", "2")
    impossible = 2**53 + 1
    with sqlite3.connect(mlflow.group.folder / "mlflow.db") as database:
        for table in ("model_versions", "registered_model_aliases"):
            moved = database.execute(
                f"UPDATE {table} SET version = ? WHERE name = ? AND version = 2",
                (impossible, name),
            )
            assert moved.rowcount == 1
    database.close()
    models = registry.aspired().models
    assert sorted(models[name].versions) == [1]
    assert models[name].aliases == {"champion": 1}
    assert models[name].unfollowed == {"canary"}
    assert [str(impossible) in problem for problem in models[name].problems] == [True, True]
    assert models[others].aliases == {"champion": 1}
    hinted = registry.model(name)
    assert hinted is not None
    assert hinted.aliases == models[name].aliases
    client.delete_registered_model(name)


def test_an_alias_that_moves_is_seen_at_once(registry, client, name):
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, "s3://nowhere/at-all")
    for target in (1, 2, 1):
        client.set_registered_model_alias(name, "champion", str(target))
        assert registry.aspired().models[name].aliases["champion"] == target
    client.delete_model_version(name, "1")
    found = registry.aspired().models[name]
    assert (sorted(found.versions), found.aliases) == ([2], {"latest": 2})


def test_a_creation_has_one_mark_however_it_is_asked_for(registry, client, name, mlflow):
    LinearModel(slope=3).register(name, mlflow.url)
    client.create_model_version(name, "s3://nowhere/at-all")
    listed = registry.aspired().models[name].versions
    alone = registry.model(name).versions
    for number in (1, 2):
        mark = registry.version(name, number).creation
        assert mark == listed[number].creation == alone[number].creation
    assert listed[1].creation != listed[2].creation
    client.set_model_version_tag(name, "1", "any", "tag")
    client.update_model_version(name, "1", description="other words")
    client.set_registered_model_alias(name, "champion", "1")
    assert registry.version(name, 1).creation == listed[1].creation


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_model_made_anew_has_other_creations_under_the_same_numbers(
    registry, client, name, mlflow, how
):
    for _ in range(2):
        client.create_registered_model(name)
        client.create_model_version(name, "s3://nowhere/at-all")
        listed = registry.aspired()
        before = listed.models[name].versions[1].creation
        if how == "deleted":
            client.delete_registered_model(name)
        else:
            other = f"{name} {uuid4().hex[:8]}"
            client.rename_registered_model(name, other)
            assert registry.aspired().models[other].versions[1].creation == before
        client.create_registered_model(name)
        client.create_model_version(name, "s3://nowhere/at-all")
        # A listing that takes over what shows no change sees it, too.
        now = registry.aspired(listed).models[name].versions[1].creation
        assert now != before
        client.delete_registered_model(name)


def test_a_proxied_artifact_is_fetched_stamped_and_described(
    registry, fetcher, name, mlflow, mlflow_artifacts, tmp_path
):
    model = LinearModel(slope=3)
    version = model.register(name, mlflow.url)
    uri = registry.locate(name, version)
    assert uri.startswith("mlflow-artifacts:/")
    assert fetcher.remote_listing(uri) is None

    fetched = fetcher.fetch(uri, tmp_path / "into")
    same = fetcher.fetch(str(on_disk(mlflow_artifacts, uri)), tmp_path / "same")
    assert fetched.manifest == same.manifest
    assert fetched.size_bytes == same.size_bytes

    registry.stamp(name, version, fetched.manifest.digest)
    listed = registry.aspired().models[name].versions[version]
    assert listed.expected_digest == fetched.manifest.digest
    assert registry.version(name, version) == listed

    description = describe(fetched)
    assert description["flavor"] == "sklearn"
    assert [column["name"] for column in description["signature"]["inputs"]] == ["x1", "x2"]
    assert description["example"]["serving"] == model.payload(3)


def test_mlflow_says_of_its_logged_models_whether_they_are_whole(registry, client, name, mlflow):
    version = LinearModel().register(name, mlflow.url)
    listed = registry.version(name, version)
    assert registry.is_whole(listed)
    by_hand = client.create_model_version(name, "s3://somewhere/else")
    assert not registry.is_whole(registry.version(name, int(by_hand.version)))
    pending = client.create_logged_model(experiment_id="0")
    for location in (f"models:/{pending.model_id}", "models:/m-" + "0" * 32):
        assert not registry.is_whole(replace(listed, location=location))


def test_bytes_altered_after_the_stamp_are_told_by_file(
    registry, fetcher, name, mlflow, mlflow_artifacts, tmp_path
):
    version = LinearModel(slope=2).register(name, mlflow.url)
    uri = registry.locate(name, version)
    good = fetcher.fetch(uri, tmp_path / "good").manifest
    file = next(on_disk(mlflow_artifacts, uri).glob("model.*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    bad = fetcher.fetch(uri, tmp_path / "bad").manifest
    result = verify(bad, stamped=good.digest, accepted=None, known=good)
    assert not result.accepted
    assert f"(changed: {file.name})" in result.reason


def test_names_that_urls_must_quote_are_fetched(
    registry, fetcher, name, mlflow, mlflow_artifacts, tmp_path
):
    version = LinearModel().register(name, mlflow.url)
    uri = registry.locate(name, version)
    folder = on_disk(mlflow_artifacts, uri)
    (folder / "code").mkdir()
    (folder / "code" / "a b+c=d@e \u00fc.txt").write_text("x")
    fetched = fetcher.fetch(uri, tmp_path / "into")
    assert "code/a b+c=d@e \u00fc.txt" in fetched.manifest.files


def test_a_version_without_bytes_is_tried_again(
    registry, fetcher, name, mlflow, mlflow_artifacts, tmp_path
):
    version = LinearModel().register(name, mlflow.url)
    uri = registry.locate(name, version)
    shutil.rmtree(on_disk(mlflow_artifacts, uri))
    assert registry.aspired().models[name].aliases == {"latest": version}
    with pytest.raises((IncompleteArtifactError, SourceError)):
        fetcher.fetch(uri, tmp_path / "into")


def test_what_does_not_exist_is_the_sources_error(registry, name):
    for ask in (registry.version, registry.locate):
        with pytest.raises(SourceError):
            ask(name, 1)
    with pytest.raises(SourceError):
        registry.stamp(name, 1, "sha256:" + "0" * 64)


def test_a_dead_registry_is_said_to_be_dead():
    registry = connect_mlflow(f"http://127.0.0.1:{free_ports(1)[0]}", os.environ)
    with pytest.raises(SourceError, match=r"could not be listed: .*\(Connection refused\)$"):
        registry.aspired()


def test_a_server_that_dies_in_the_middle_of_a_fetch(
    registry, fetcher, name, mlflow, mlflow_artifacts, tmp_path
):
    version = LinearModel().register(name, mlflow.url)
    uri = registry.locate(name, version)
    with (on_disk(mlflow_artifacts, uri) / "big.bin").open("wb") as big:
        big.truncate(256 * 2**20)

    def kill(so_far: int, _in_all: int | None) -> None:
        if so_far > 2**20 and mlflow.group.process is not None:
            mlflow.group.kill()

    try:
        with pytest.raises((SourceError, IncompleteArtifactError)):
            fetcher.fetch(uri, tmp_path / "into", on_progress=kill)
        with pytest.raises(SourceError):
            registry.aspired()
    finally:
        if mlflow.group.process is None:
            mlflow.start()
    assert name in registry.aspired().models


def test_a_proxy_that_drips_ends_at_the_time_limit(
    mlflow: MlflowServer, mlflow_artifacts: Path, tmp_path: Path
) -> None:
    folder = mlflow_artifacts / "dripping"
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_bytes(MLMODEL)
    (folder / "model.pkl").write_bytes(os.urandom(2**20))
    limits = FetchLimits(timeout_s=LIMIT_S, disk_floor_bytes=0, stable_after_s=0)
    uri = "mlflow-artifacts:/dripping"
    whole = Fetcher(tracking_uri=mlflow.url, limits=limits, environ=os.environ)
    assert whole.fetch(uri, tmp_path / "whole").size_bytes == 2**20 + len(MLMODEL)
    with closing(FaultyWire.to(mlflow.url)) as wire:  # new connections: the listing comes at once
        assert isinstance(wire, FaultyWire)
        wire.drips_after = 2**19
        fetcher = Fetcher(tracking_uri=wire.url, limits=limits, environ=os.environ)
        began = time.monotonic()
        with pytest.raises(FetchTimeoutError):
            fetcher.fetch(uri, tmp_path / "into")
        assert time.monotonic() - began < LIMIT_S + 2


def test_an_ordinary_poll_makes_at_most_two_calls(client, name, mlflow):
    for number in range(30):
        client.create_registered_model(f"{name}-{number}")
        client.create_model_version(f"{name}-{number}", source=f"s3://nowhere/{number}")
        client.set_registered_model_alias(f"{name}-{number}", "champion", "1")
    calls: list[str] = []
    registry = connect_mlflow(mlflow.url, os.environ, on_call=calls.append)
    before = registry.aspired()
    calls.clear()
    again = registry.aspired(before)
    assert again.models == before.models
    assert len(calls) <= 2
    # What nothing of the model shows is found by a thorough poll, and what the model shows at once.
    client.set_model_version_tag(f"{name}-3", "1", DIGEST_TAG, "sha256:" + "c" * 64)
    client.create_model_version(f"{name}-4", source="s3://nowhere/new")
    calls.clear()
    seen = registry.aspired(again)
    assert len(calls) <= 3
    assert sorted(seen.models[f"{name}-4"].versions) == [1, 2]
    assert registry.aspired().models[f"{name}-3"].versions[1].stamped


def test_a_tag_on_a_version_reaches_its_policy_with_a_thorough_poll(registry, client, name):
    client.create_registered_model(name, tags={"gateway.timeout_s": "2", "gateway.laod": "lazy"})
    for _ in range(2):
        client.create_model_version(name, "s3://nowhere/at-all")
    before = registry.aspired()
    assert policies(before, name) == [(1, None), (2, None)]
    client.set_model_version_tag(name, "2", "gateway.timeout_s", "9.5")
    client.set_model_version_tag(name, "1", "gateway.keep_resident", True)
    # An ordinary poll sees only what a model shows; one model is asked for whole after a webhook.
    assert policies(registry.aspired(before), name) == [(1, None), (2, None)]
    after = [(1, Policy(keep_resident=True)), (2, Policy(timeout_s=9.5))]
    assert policies(registry.aspired(), name) == after
    hinted = registry.model(name)
    assert policies(Aspired({name: hinted}, 1.0), name) == after
    listed = describe_model(name, hinted, LedgerView(), KnownState({}))
    assert listed
    assert listed.policy.timeout_s == 2.0
    assert [one.split(":")[0] for one in listed.policy.problems] == [
        "the tag gateway.laod is unknown, and ignored"
    ]


def policies(aspired: Aspired, name: str) -> list[tuple[int, Policy | None]]:
    """The versions of a model with the policy of their own, as the gateway is told."""
    listed = describe_model(name, aspired.models[name], LedgerView(), KnownState({}))
    assert listed
    return [(one.version, one.policy) for one in listed.versions]
