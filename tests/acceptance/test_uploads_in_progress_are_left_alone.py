"""A version whose files are still being uploaded is never taken for a whole one, nor for a bad."""

import asyncio
import hashlib
import time
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


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_a_slow_upload_is_served_when_it_is_whole_and_not_before(
    make_node: NodeMaker,
    registry: Registry,
    s3_server: Seaweed,
    tmp_path: Path,
    *,
    stamped: bool,
) -> None:
    files = _whole(tmp_path / "model")
    assert len(files) == UPLOAD_FILES
    model, prefix = registry.name("slow"), "upload"
    bucket = s3_server.make_bucket(model)
    registry.client.create_registered_model(model)
    registry.client.create_model_version(
        model,
        source=f"s3://{bucket}/{prefix}",
        tags={"gateway.digest": _digest(files)} if stamped else {},
    )
    registry.point(model, ALIAS, 1)
    settings = {
        "REGISTRY_SYNC_POLL_INTERVAL_S": str(POLL_S),
        "REGISTRY_SYNC_SETTLE_S": str(SETTLE_S),
    }
    node = make_node(control=s3_server.environ | settings).start()
    s3 = s3_server.client()
    seen: list[tuple[float, str | None, int | None]] = []

    async def upload() -> float:
        """One file after the other; when the last one was there."""
        for path, body in files.items():
            await asyncio.to_thread(s3.put_object, Bucket=bucket, Key=f"{prefix}/{path}", Body=body)
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
