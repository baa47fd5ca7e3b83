"""Artifacts straight from S3, and six ways in which bytes turn wrong later: none is served.

The tests share one node, which reads the bucket.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.surface import Document, active_version, alias_of
from tests.acceptance.traffic import Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel
from tests.servers import Seaweed

ALIAS = "champion"
ENOUGH_ANSWERS = 20
WRONG_DIGEST = "sha256:" + "0" * 64
Files = dict[str, bytes]


def _flip(files: Files) -> None:
    path = _weights(files)
    content = bytearray(files[path])
    content[len(content) // 2] ^= 1
    files[path] = bytes(content)


def _add(files: Files) -> None:
    files["notes/extra.txt"] = b"nobody knows this file"


def _remove(files: Files) -> None:
    del files["requirements.txt"]


def _truncate(files: Files) -> None:
    path = _weights(files)
    files[path] = files[path][: len(files[path]) // 2]


def _weights(files: Files) -> str:
    return next(path for path in files if path.startswith("model."))


@dataclass(frozen=True)
class Wrong:
    """How version 2 of a model turns wrong, and what is said of it.

    Attributes:
        alter: Changes the files where they are kept; None: the publisher stamps another digest.
        says: What the reason must have in it.
        proxied: Kept by the MLflow server, whose storage tells no changes, instead of in S3.
    """

    alter: Callable[[Files], None] | None
    says: str
    proxied: bool = False


WAYS = {
    "flipped": Wrong(_flip, "changed: model."),
    "added": Wrong(_add, "added: notes/extra.txt"),
    "removed": Wrong(_remove, "missing: requirements.txt"),
    "truncated": Wrong(_truncate, "changed: model."),
    "stamped": Wrong(None, f"the publisher stamped {WRONG_DIGEST}"),
    "swapped": Wrong(_flip, "changed: model.", proxied=True),
}


@dataclass
class Publisher:
    """Where versions are kept, for whoever alters them behind the registry's back."""

    registry: Registry
    s3: Seaweed
    bucket: str
    experiment: str
    mlflow_root: Path

    def publish(self, model: str, wrong: Wrong, slope: float) -> int:
        experiment = "Default" if wrong.proxied else self.experiment
        return self.registry.publish(model, LinearModel(slope), experiment)

    def alter(self, model: str, version: int, wrong: Wrong) -> str:
        """Turn a version wrong; the digest of the bytes as they are kept from then on."""
        files = self._read(model, version, wrong)
        if wrong.alter is None:
            client = self.registry.client
            client.set_model_version_tag(model, str(version), "gateway.digest", WRONG_DIGEST)
        else:
            before = dict(files)
            wrong.alter(files)
            assert files != before
            self._write(model, version, wrong, before, files)
        lines = [
            f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n"
            for path in sorted(files, key=str.encode)
        ]
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()

    def _read(self, model: str, version: int, wrong: Wrong) -> Files:
        if wrong.proxied:
            folder = self.registry.proxied_files(model, version, self.mlflow_root)
            found = (path for path in folder.rglob("*") if path.is_file())
            return {str(path.relative_to(folder)): path.read_bytes() for path in found}
        prefix, s3 = self._prefix(model, version), self.s3.client()
        listed = s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)["Contents"]
        return {
            one["Key"].removeprefix(f"{prefix}/"): s3.get_object(
                Bucket=self.bucket, Key=one["Key"]
            )["Body"].read()
            for one in listed
        }

    def _write(self, model: str, version: int, wrong: Wrong, before: Files, files: Files) -> None:
        changed = {path: body for path, body in files.items() if before.get(path) != body}
        if wrong.proxied:
            folder = self.registry.proxied_files(model, version, self.mlflow_root)
            for path, body in changed.items():
                (folder / path).write_bytes(body)
            return
        prefix, s3 = self._prefix(model, version), self.s3.client()
        for path, body in changed.items():
            s3.put_object(Bucket=self.bucket, Key=f"{prefix}/{path}", Body=body)
        for path in before.keys() - files.keys():
            s3.delete_object(Bucket=self.bucket, Key=f"{prefix}/{path}")

    def _prefix(self, model: str, version: int) -> str:
        uri: str = self.registry.client.get_model_version_download_uri(model, str(version))
        assert uri.startswith(f"s3://{self.bucket}/"), uri
        return uri.removeprefix(f"s3://{self.bucket}/").rstrip("/")


@pytest.fixture
def publisher(
    registry: Registry, s3_server: Seaweed, mlflow_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Publisher:
    for key, value in s3_server.environ.items():
        monkeypatch.setenv(key, value)  # the publisher's own access
    names = [registry.name(word) for word in ("bytes", "kept")]
    for name in names:
        registry.forget_name(name)
    bucket, experiment = s3_server.make_bucket(names[0]), names[1]
    registry.client.create_experiment(experiment, artifact_location=f"s3://{bucket}/runs")
    return Publisher(registry, s3_server, bucket, experiment, mlflow_root)


@pytest.fixture(scope="module")
def node(make_module_node: NodeMaker, s3_server: Seaweed) -> Node:
    """The module's node, which has access to S3."""
    return make_module_node(
        gateway={"GATEWAY_MAX_RESIDENT": str(2 * len(WAYS) + 1)},
        control=s3_server.environ | {"REGISTRY_SYNC_UPLOAD_STABLE_S": "0"},
    ).start()


async def _quarantined(
    node: Node, http: httpx.AsyncClient, model: str, version: int = 2
) -> Document:
    async def look() -> Document | None:
        document = await node.version(http, model, version)
        return document if document.get("state") == "quarantined" else None

    return await eventually(look, f"{model}/{version} is quarantined")


async def test_an_artifact_is_fetched_straight_from_s3_and_checked(
    node: Node, registry: Registry, publisher: Publisher
) -> None:
    model, wrong = registry.name("s3"), WAYS["flipped"]
    with node.control_paused():
        for slope in (1.0, 2.0):
            await asyncio.to_thread(publisher.publish, model, wrong, slope)
        registry.point(model, ALIAS, 1)
    uri = registry.client.get_model_version_download_uri(model, "1")
    assert uri.startswith(f"s3://{publisher.bucket}/"), uri
    async with client(2) as http:
        for version, slope in ((1, 1.0), (2, 2.0)):
            registry.point(model, ALIAS, version)
            await node.active(http, model, ALIAS, version)
            answer = await ask(http, node.url, Call(model, 4), row_body(4))
            assert answer.predictions == [row_answers(slope)[4]], answer
        # A third version is altered in the bucket after the publisher stamped it.
        with node.control_paused():
            await asyncio.to_thread(publisher.publish, model, wrong, 3.0)
            stamp = await asyncio.to_thread(node.command, "stamp", f"models:/{model}/3")
            assert stamp.returncode == 0, stamp.stderr
            await asyncio.to_thread(publisher.alter, model, 3, wrong)
            registry.point(model, ALIAS, 3)
        refused = await _quarantined(node, http, model, 3)
        assert refused["reason"]
        assert active_version(await node.model(http, model), ALIAS) == 2


async def test_bytes_that_change_after_registration_are_quarantined_and_the_old_ones_go_on(
    node: Node, registry: Registry, publisher: Publisher
) -> None:
    models = {registry.name(word): wrong for word, wrong in WAYS.items()}
    moulds: dict[bool, str] = {}  # the first versions are never altered: their bytes are shared
    with node.control_paused():
        for model, wrong in models.items():
            mould = moulds.setdefault(wrong.proxied, model)
            if mould == model:
                await asyncio.to_thread(publisher.publish, model, wrong, 1.0)
            else:
                registry.client.create_registered_model(model)
                registry.publish_as(model, mould, 1)
            await asyncio.to_thread(publisher.publish, model, wrong, 2.0)
            registry.point(model, ALIAS, 1)
    async with client(2 * len(models)) as http, client(2) as watching:
        for model in models:
            await node.active(watching, model, ALIAS, 1)
            answer = await ask(watching, node.url, Call(model, 3, "2"), row_body(3))
            assert answer.predictions == [row_answers(2.0)[3]], answer  # sound, as registered
        found = {
            model: await asyncio.to_thread(publisher.alter, model, 2, wrong)
            for model, wrong in models.items()
        }
        callers = [asks(model, f"@{ALIAS}") for model in models]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            for model in models:
                registry.point(model, ALIAS, 2)
            refused = {model: await _quarantined(node, watching, model) for model in models}
            seen = Counter(answer.call.model for answer in traffic.answers)

            def everybody_goes_on() -> bool:
                now = Counter(answer.call.model for answer in traffic.answers)
                return all(now[model] > seen[model] + ENOUGH_ANSWERS for model in models)

            await eventually_true(everybody_goes_on, "callers of every model go on")
        shown = {model: alias_of(await node.model(watching, model), ALIAS) for model in models}

    wrong_answers = [a for a in traffic.answers if not a.ok or a.version != 1]
    assert not wrong_answers, describe(wrong_answers)
    right = row_answers(1.0)
    assert all(a.predictions == [right[a.call.row]] for a in traffic.answers)
    for model, wrong in models.items():
        reason = refused[model]["reason"]
        assert wrong.says in reason, (model, reason)
        # Nobody could know this digest without having fetched and hashed the bad bytes.
        assert found[model] in reason, (model, reason, found[model])
        assert (shown[model]["active"], shown[model]["why"]) == (1, reason), shown[model]
    assert len({document["reason"] for document in refused.values()}) == len(models)
