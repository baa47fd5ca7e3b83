"""A node's own copy of what serves is altered or lost: it is fetched and loaded again."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import httpx

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel

ALIAS = "champion"
ROW = 3


def _folder(node: Node, digest: str | None) -> Path:
    assert digest is not None
    return node.node_dir / "artifacts" / digest.removeprefix("sha256:")


def _alter(folder: Path) -> None:
    """Change one byte of the model in the artifact store, and no size."""
    file = max(folder.glob("model.*"), key=lambda one: one.stat().st_size)
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _lose(folder: Path) -> None:
    folder.with_name(f"{folder.name}.json").unlink()
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


async def _answers_again(http: httpx.AsyncClient, node: Node, call: Call) -> Answer:
    async def look() -> Answer | None:
        answer = await ask(http, node.url, call, row_body(ROW))
        return answer if answer.ok else None

    return await eventually(look, f"{call} is answered again")


async def test_it_answers_again_by_itself(make_node: NodeMaker, registry: Registry) -> None:
    model = registry.name("damaged")
    await asyncio.to_thread(registry.publish, model, LinearModel(1.0))
    registry.point(model, ALIAS, 1)
    node = make_node().start()
    call = Call(model, ROW, f"@{ALIAS}")
    async with client(2) as http:
        await node.active(http, model, ALIAS, 1)
        served = await ask(http, node.url, call, row_body(ROW))
        assert served.ok, served
        folder = _folder(node, served.digest)

        # Altered, and the gateway starts anew. Nobody is there to fetch it again: that is said.
        assert node.gateway is not None
        node.stop_control()
        node.gateway.stop()
        _alter(folder)
        node.start_gateway()
        refused = await ask(http, node.url, call, row_body(ROW))
        assert (refused.status, refused.code) == (503, "model_load_failed"), refused
        assert "is not the file of the manifest" in refused.body["detail"], refused
        assert "copy of its bytes is damaged" in refused.body["detail"], refused
        node.start_control()
        healed = await _answers_again(http, node, call)

        # Lost, and its worker dies.
        _lose(folder)
        (worker,) = node.workers()
        os.kill(worker, signal.SIGKILL)
        again = await _answers_again(http, node, call)
        assert folder.is_dir()

    for answer in (healed, again):
        assert (answer.version, answer.digest) == (1, served.digest)
        assert answer.predictions == [row_answers(1.0)[ROW]]
