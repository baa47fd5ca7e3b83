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


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
@pytest.mark.parametrize("store", [_bucket, _proxy], ids=["s3", "proxied"])
async def test_a_slow_upload_is_served_when_it_is_whole_and_not_before(
    make_node: NodeMaker,
    registry: Registry,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    *,
    store: Callable[[pytest.FixtureRequest, Registry, str], Storage],
    stamped: bool,
) -> None:
    files = _whole(tmp_path / "model")
    assert len(files) == UPLOAD_FILES
    model = registry.name("slow")
    storage = store(request, registry, model)
    registry.client.create_registered_model(model)
    registry.client.create_model_version(
        model,
        source=storage.uri,
        run_id=storage.run_id,
        tags={"gateway.digest": _digest(files)} if stamped else {},
    )
    registry.point(model, ALIAS, 1)
    settings = {
        "REGISTRY_SYNC_POLL_INTERVAL_S": str(POLL_S),
        "REGISTRY_SYNC_SETTLE_S": str(SETTLE_S),
    }
    node = make_node(control=storage.access | settings).start()
    seen: list[tuple[float, str | None, int | None]] = []

    async def upload() -> float:
        """One file after the other; when the last one was there."""
        for path, body in files.items():
            await asyncio.to_thread(storage.put, path, body)
            await asyncio.sleep(UPLOAD_S / UPLOAD_FILES)
        return time.monotonic()

    async def watch(http: httpx.AsyncClient) -> bool:
        before = time.monotonic()
        document = await node.version(http, model, 1)
        active = active_version(await node.model(http, model), ALIAS)
        seen.append((before, document.get("state"), active))
        return active == 1

    async with client(4) as http:
        await node.catalogue_shows(http, model, 1)
        uploading = asyncio.create_task(upload())
        await eventually(lambda: watch(http), "the version is active", look_every_s=0.2)
        whole_at = await uploading
        answer = await ask(http, node.url, Call(model, 5, "1"), row_body(5))

    during = [one for one in seen if one[0] < whole_at]
    assert len(during) > UPLOAD_S  # it was looked at all the time
    assert all(active is None for _, _, active in during), during
    assert "quarantined" not in {state for _, state, _ in seen}, seen
    assert answer.predictions == [row_answers(3.0)[5]], answer
    assert answer.digest == _digest(files)
