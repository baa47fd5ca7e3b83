"""Files of a node go wrong while it is down: both planes start, and serve what they know still.

Every answer is checked. What is lost is in the log and in ``status``; what the registry has comes
again.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sealed import seal
from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import DAMAGE_ROUNDS
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually
from tests.contracts.damage import DAMAGES
from tests.models.catalogue import LinearModel
from tests.servers import free_ports

ALIAS = "champion"
ROW = 3
EXPECTED = {1: row_answers(1.0)[ROW], 2: row_answers(2.0)[ROW]}
SAID = ["table.json", "catalogue.json", "hot.json", "node_id", "holds.json"]
DAMAGED = [*SAID, "gateway.lock", "registry_sync.lock"]
NAMES = (
    *("empty", "truncated", "nested", "foreign JSON", "linked to a copy", "endless", "a pipe"),
    "a folder",
)
KINDS = [one for name in NAMES for one in DAMAGES if one.name == name]


@pytest.fixture
async def model(registry: Registry) -> str:
    """A model of two versions, of which the alias means the second."""
    name = registry.name("damaged-files")
    for slope in (1.0, 2.0):
        await asyncio.to_thread(registry.publish, name, LinearModel(slope))
    registry.point(name, ALIAS, 1)
    return name


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(4) as made:
        yield made


def stop(node: Node) -> None:
    node.stop_control()
    assert node.gateway is not None
    assert node.gateway.stop() == 0


async def rolled_back(node: Node, http: httpx.AsyncClient, registry: Registry, model: str) -> None:
    """Promote the second version and go back by command: there are a hold, and two generations."""
    await node.active(http, model, ALIAS, 1)
    await node.active(http, model, "latest", 2)
    registry.point(model, ALIAS, 2)
    await node.active(http, model, ALIAS, 2)
    done = await asyncio.to_thread(node.command, "rollback", f"{model}@{ALIAS}")
    assert done.returncode == 0, done.stdout + done.stderr
    await node.active(http, model, ALIAS, 1)


async def answers(node: Node, http: httpx.AsyncClient, model: str, selector: str) -> Answer:
    async def look() -> Answer | None:
        answer = await ask(http, node.url, Call(model, ROW, selector), row_body(ROW))
        return answer if answer.ok else None

    answer = await eventually(look, f"{model} {selector} is answered")
    assert answer.predictions == [EXPECTED[answer.version or 0]], answer
    return answer


async def state(node: Node) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        done = await asyncio.to_thread(node.command, "status", "--json")
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return found if found.get("generation") is not None else None

    return await eventually(look, "the control plane knows the gateway")


def record_of(node: Node, digest: str | None) -> Path:
    assert digest is not None
    return node.node_dir / "artifacts" / f"{digest.removeprefix('sha256:')}.json"


async def test_every_file_at_once_keeps_no_plane_from_starting(
    make_node: NodeMaker, registry: Registry, http: httpx.AsyncClient, model: str
) -> None:
    node = make_node().start()
    await rolled_back(node, http, registry, model)
    digest = (await answers(node, http, model, f"@{ALIAS}")).digest
    known = (await state(node))["node_id"]
    for turn in range(DAMAGE_ROUNDS):
        stop(node)
        files = [*(node.node_dir / name for name in DAMAGED), record_of(node, digest)]
        for number, path in enumerate(files):
            damage = KINDS[(3 * turn + number) % len(KINDS)]
            if path.stat().st_size or damage.name != "truncated":
                damage.apply(path)

        # The gateway alone: the table before counts, which is one change old.
        node.start_gateway()
        found = await answers(node, http, model, f"@{ALIAS}")
        assert found.version == 2, "the table before the rollback counts"

        # With the control plane all is as it was: the rollback, by the ledger; and the bytes.
        node.start_control()
        await node.active(http, model, ALIAS, 1)
        for selector, version in ((f"@{ALIAS}", 1), ("1", 1), ("2", 2)):
            assert (await answers(node, http, model, selector)).version == version
        told = await state(node)
        assert told["node_id"] == known
        (shown,) = [one for one in told["models"] if one["name"] == model]
        assert {one["alias"]: one["held_at"] for one in shown["aliases"]}[ALIAS] == 1
        problems = "\n".join(told["problems"])
        for name in SAID:
            assert f"{name} " in problems, problems
            assert 1 <= len(list(node.node_dir.glob(f"{name}.damaged-*"))) <= 3
        assert record_of(node, digest).is_file()
        assert not record_of(node, digest).is_symlink()
        assert list(record_of(node, digest).parent.glob("*.json.damaged-*"))
    for plane in ("gateway", "registry_sync"):
        text = (node.folder / f"{plane}.log").read_text()
        assert "file.damaged" in text
        assert "Traceback" not in text

    # And the next start finds nothing wrong any more.
    stop(node)
    node.start()
    assert (await answers(node, http, model, f"@{ALIAS}")).version == 1
    assert (await state(node))["problems"] == []


async def test_files_that_the_system_does_not_let_be_read(
    make_node: NodeMaker, registry: Registry, http: httpx.AsyncClient, model: str
) -> None:
    names = ["table.json", "catalogue.json", "hot.json", "node_id", "holds.json"]
    unreadable = {"ACCEPTANCE_UNREADABLE": ",".join(names)}
    node = make_node().start()
    await rolled_back(node, http, registry, model)
    stop(node)
    node.start_gateway(unreadable)
    assert (await answers(node, http, model, f"@{ALIAS}")).version == 2
    node.start_control(unreadable)
    await node.active(http, model, ALIAS, 1)
    assert (await answers(node, http, model, f"@{ALIAS}")).version == 1
    problems = "\n".join((await state(node))["problems"])
    assert "table.json cannot be read: Permission denied" in problems


@pytest.mark.parametrize(
    ("name", "member"),
    [("catalogue.json", "contract_version"), ("hot.json", "format_version")],
)
async def test_a_cache_of_a_newer_release_is_ignored(
    make_node: NodeMaker, http: httpx.AsyncClient, model: str, name: str, member: str
) -> None:
    node = make_node().start()
    await node.active(http, model, ALIAS, 1)
    await answers(node, http, model, f"@{ALIAS}")
    stop(node)
    path = node.node_dir / name
    path.write_text(json.dumps({**json.loads(path.read_text()), member: 99, "models": "others"}))
    node.start_gateway()
    assert (await answers(node, http, model, f"@{ALIAS}")).version == 1
    node.start_control()
    await node.passes(http)
    assert (await answers(node, http, model, "1")).version == 1


async def test_a_table_of_a_newer_release_is_refused_with_a_sentence(
    make_node: NodeMaker, http: httpx.AsyncClient, model: str
) -> None:
    node = make_node().start()
    await node.active(http, model, ALIAS, 1)
    stop(node)
    path = node.node_dir / "table.json"
    before = path.read_text()
    newer = {name: one for name, one in json.loads(before).items() if name != "sha256"}
    path.write_bytes(seal(json.dumps({**newer, "format_version": 2}, indent=1).encode()))
    gateway = node.launch_gateway()
    assert await asyncio.to_thread(gateway.process.wait, 60) == 1
    assert "it was written by a newer version; start that one" in gateway.tail()
    assert "Traceback" not in gateway.tail()
    path.write_text(before)
    node.start_gateway()
    assert (await answers(node, http, model, f"@{ALIAS}")).version == 1


async def test_a_full_disk_keeps_no_plane_from_starting(
    make_node: NodeMaker, registry: Registry, http: httpx.AsyncClient, model: str
) -> None:
    node = make_node().start()
    await rolled_back(node, http, registry, model)
    await answers(node, http, model, "2")
    stop(node)
    (node.node_dir / "hot.json").write_text("{")
    (node.node_dir / "node_id").write_text("no id")
    full = {"ACCEPTANCE_FULL_DISK": "1"}
    node.start_gateway(full)
    for selector, version in ((f"@{ALIAS}", 1), ("1", 1), ("2", 2)):
        assert (await answers(node, http, model, selector)).version == version
    node.start_control(full)
    told = await state(node)
    assert "node_id holds no id" in "\n".join(told["problems"])
    for selector, version in ((f"@{ALIAS}", 1), ("1", 1), ("2", 2)):
        assert (await answers(node, http, model, selector)).version == version
    stop(node)
    node.start()
    assert (await answers(node, http, model, f"@{ALIAS}")).version == 1


@pytest.mark.parametrize("part", ["record", "manifest", "folder"])
async def test_a_copy_that_is_damaged_while_the_registry_is_away_is_told_of(
    make_node: NodeMaker, registry: Registry, http: httpx.AsyncClient, model: str, part: str
) -> None:
    node = make_node().start()
    await node.active(http, model, ALIAS, 1)
    await node.active(http, model, "latest", 2)
    served = await answers(node, http, model, f"@{ALIAS}")
    stop(node)
    record = record_of(node, served.digest)
    if part == "record":
        record.unlink()
        record.write_text("[" * 100_000)
    elif part == "manifest":
        record.with_suffix(".manifest").unlink()
    else:
        record.with_suffix("").chmod(0o755)
        record.with_suffix("").rename(node.folder / "elsewhere")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    node.start_gateway()
    node.start_control({"REGISTRY_SYNC_TRACKING_URI": nobody})
    assert (await answers(node, http, model, "2")).version == 2, "it concerns that artifact only"
    refused = await ask(http, node.url, Call(model, ROW, f"@{ALIAS}"), row_body(ROW))
    assert (refused.status, refused.code) == (503, "model_load_failed"), refused
    assert "copy of its bytes is damaged" in refused.body["detail"], refused

    async def problem() -> str | None:
        said = "\n".join((await state(node))["problems"])
        return said if f"this node's copy is damaged: its {part}" in said else None

    assert "it is fetched again when the registry answers" in await eventually(problem, "status")
    done = await asyncio.to_thread(node.command, "explain", model, f"@{ALIAS}", "--json")
    assert "this node's copy is damaged" in json.loads(done.stdout)["selectors"][0]["reason"]
    shown = await node.model(http, model)
    assert shown is not None
    assert "this node's copy of its bytes is damaged" in shown["aliases"][ALIAS]["why"]

    node.stop_control()
    node.start_control()
    again = await answers(node, http, model, f"@{ALIAS}")
    assert (again.version, again.digest) == (1, served.digest)
