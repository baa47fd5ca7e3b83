"""A version whose files are still being uploaded is never taken for a whole one, nor for a bad."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import UPLOAD_FILES, UPLOAD_S
from tests.acceptance.surface import active_version
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel
from tests.servers import Seaweed

ALIAS = "champion"
POLL_S = 1.0
SETTLE_S = 2.0
"""Longer than the pause between two files: an upload that goes on is never settled."""


def _whole(folder: Path) -> dict[str, bytes]:
    """All files of a model, those that its flavors name first, and many more behind them."""
    LinearModel(3.0).save(folder)
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"), key=lambda path: (path.name != "MLmodel", path.name))
        if path.is_file()
    }
    for number in range(UPLOAD_FILES - len(files)):
        files[f"vocabulary/part-{number:03}.txt"] = f"words of part {number}".encode() * 1000
    return files


def _digest(files: dict[str, bytes]) -> str:
    lines = [
        f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n"
        for path in sorted(files, key=str.encode)
    ]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


Put = Callable[[str, bytes], None]
"""Puts one file of the upload there: its path and its content."""


@dataclass(frozen=True)
class Storage:
    """Where a model is uploaded to: its URI, what a node needs to read it, and how to write it."""

    uri: str
    put: Put
    access: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None


def _bucket(request: pytest.FixtureRequest, _: Registry, model: str) -> Storage:
    server: Seaweed = request.getfixturevalue("s3_server")
    bucket, s3 = server.make_bucket(model), server.client()

    def put(path: str, body: bytes) -> None:
        s3.put_object(Bucket=bucket, Key=f"upload/{path}", Body=body)

    return Storage(f"s3://{bucket}/upload", put, access=server.environ)


def _proxy(request: pytest.FixtureRequest, registry: Registry, model: str) -> Storage:
    """A run's artifacts, which the MLflow server hands through without their times."""
    run = registry.client.create_run("0", run_name=model).info
    root: Path = request.getfixturevalue("mlflow_root") / "artifacts"
    folder = root / run.artifact_uri.removeprefix("mlflow-artifacts:/") / "model"

    def put(path: str, body: bytes) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)

    return Storage(f"{run.artifact_uri}/model", put, run_id=run.run_id)


@dataclass
class Upload:
    """One version that is registered before its files are there, and what was seen of it."""

    model: str
    storage: Storage
    files: dict[str, bytes]
    stamped: bool
    seen: list[tuple[float, str | None, int | None]] = field(default_factory=list)

    def register(self, registry: Registry) -> None:
        registry.client.create_registered_model(self.model)
        registry.client.create_model_version(
            self.model,
            source=self.storage.uri,
            run_id=self.storage.run_id,
            tags={"gateway.digest": _digest(self.files)} if self.stamped else {},
        )
        registry.point(self.model, ALIAS, 1)

    async def put_all(self) -> float:
        """Put one file after the other; when the last one was there."""
        for path, body in self.files.items():
            await asyncio.to_thread(self.storage.put, path, body)
            await asyncio.sleep(UPLOAD_S / UPLOAD_FILES)
        return time.monotonic()

    async def follow(self, node: Node, http: httpx.AsyncClient) -> None:
        """Upload, watch until it is served, and look at what was seen before it was whole."""

        async def watch() -> bool:
            before = time.monotonic()
            document = await node.version(http, self.model, 1)
            active = active_version(await node.model(http, self.model), ALIAS)
            self.seen.append((before, document.get("state"), active))
            return active == 1

        await node.catalogue_shows(http, self.model, 1)
        uploading = asyncio.create_task(self.put_all())
        await eventually(watch, f"{self.storage.uri} is active", look_every_s=0.2)
        whole_at = await uploading
        answer = await ask(http, node.url, Call(self.model, 5, "1"), row_body(5))
        during = [one for one in self.seen if one[0] < whole_at]
        assert len(during) > UPLOAD_S, "it was looked at all the time"
        assert all(active is None for _, _, active in during), during
        assert "quarantined" not in {state for _, state, _ in self.seen}, self.seen
        assert answer.predictions == [row_answers(3.0)[5]], answer
        assert answer.digest == _digest(self.files)


@pytest.mark.soak(
    "unit/registry_sync/sources/storage/fetcher/test_fetcher.py",
    "unit/registry_sync/reconcile/steps/test_ingestion.py",
)
async def test_slow_uploads_are_served_when_they_are_whole_and_not_before(
    make_node: NodeMaker, registry: Registry, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    files = _whole(tmp_path / "model")
    assert len(files) == UPLOAD_FILES
    uploads: list[Upload] = []
    for store in (_bucket, _proxy):
        for stamped in (True, False):
            model = registry.name(f"slow-{len(uploads)}")
            uploads.append(Upload(model, store(request, registry, model), files, stamped))
            await asyncio.to_thread(uploads[-1].register, registry)
    settings = {
        "REGISTRY_SYNC_POLL_INTERVAL_S": str(POLL_S),
        "REGISTRY_SYNC_UPLOAD_STABLE_S": str(SETTLE_S),
    }
    for upload in uploads:
        settings |= upload.storage.access
    node = make_node(control=settings).start()
    async with client(4) as http:
        await asyncio.gather(*(upload.follow(node, http) for upload in uploads))
