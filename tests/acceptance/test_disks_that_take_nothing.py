"""A node whose disk is full, then read-only: it starts, serves and obeys, and loses nothing.

The node's folder is a small file system in memory, which takes a test that runs as root.
"""

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import SOAK
from tests.acceptance.surface import active_version
from tests.acceptance.traffic import Call, ask, client
from tests.acceptance.waiting import eventually
from tests.models.catalogue import LinearModel, ScriptedModel

ALIAS = "champion"
SIZE = "8m"
REFUSED_WITHIN_S = 60.0
"""Less than the load budget of these nodes: whoever waits for what cannot come is told so."""
CHUNK_BYTES = 4096


class Disk:
    """A small file system, which may be filled, and made read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs")

    def fill(self) -> None:
        """Take every byte that is left."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(CHUNK_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink()

    def remount(self, how: str) -> None:
        """Make it read-only (``ro``) or not (``rw``)."""
        self._mount("-o", f"remount,{how}")

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, str(self.path)], check=True)


@pytest.fixture(scope="module")
def disk(short_folder: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root only")
    try:
        made = Disk(short_folder / "disk")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def node(disk: Disk, make_module_node: NodeMaker, short_folder: Path) -> Node:
    """A node on that disk, with its sockets in another folder."""
    folder, sockets = disk.path / "node", short_folder / "run"
    made = make_module_node(
        gateway={
            "GATEWAY_NODE_DIR": str(folder),
            "GATEWAY_RUNTIME_DIR": str(sockets),
            "GATEWAY_PROBE_INTERVAL_S": "2",
        },
        control={
            "REGISTRY_SYNC_NODE_DIR": str(folder),
            "REGISTRY_SYNC_RUNTIME_DIR": str(sockets),
            "REGISTRY_SYNC_DISK_FLOOR_BYTES": "0",
        },
    )
    made.node_dir, made.sockets = folder, sockets
    return made.start()


async def _command(node: Node, *words: str, exits: int = 0) -> tuple[str, str]:
    """Run a command; what it wrote to stdout and to stderr."""
    done = await asyncio.to_thread(node.command, *words)
    assert done.returncode == exits, (words, done.stdout, done.stderr, node.logs())
    return done.stdout, done.stderr


async def _state(node: Node) -> dict[str, Any]:
    return dict(await node.operations("GET", "/state"))


async def _restart(node: Node, *, between: Callable[[], None] | None = None) -> None:
    """End both planes, and start them."""
    node.stop_control()
    assert node.gateway is not None
    assert node.gateway.stop() == 0, node.gateway.tail()
    if between is not None:
        between()
    node.start()

    async def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await _state(node))["gateway_error"] is None
        return False

    await eventually(answers, "both planes answer")


def _commands(model: str) -> list[tuple[str, ...]]:
    """What an operator decides on a full disk, but for the rollback that waits for room."""
    name = f"{model}@{ALIAS}"
    pins: list[tuple[str, ...]] = [("pin", name, "1"), ("unpin", name)]
    return [*(pins if SOAK else []), ("freeze",)]


async def _assert_all_answer(
    node: Node, http: httpx.AsyncClient, expected: dict[tuple[str, str], tuple[int, float]]
) -> None:
    """Every model of the node answers, and rightly."""
    for (model, selector), (version, slope) in expected.items():
        answer = await ask(http, node.url, Call(model, 3, selector), row_body(3))
        assert answer.ok, (model, selector, answer, node.logs())
        assert (answer.version, answer.predictions) == (version, [row_answers(slope)[3]])


async def _whats(node: Node) -> list[str]:
    """What history says that operators decided, the oldest first."""
    entries = await node.operations("GET", "/history", limit="500")
    asked = [one for one in entries["entries"] if one["asked_by"] == "operator"]
    return [one["what"] for one in reversed(asked) if one["what"] not in {"activate", "fetch"}]


async def _reject(node: Node, http: httpx.AsyncClient, registry: Registry, model: str) -> str:
    """Have a version rejected; return its name."""
    broken = ScriptedModel(scale=1.0, needs_module="no_such_module")
    version = await asyncio.to_thread(registry.publish, model, broken)
    registry.point(model, "trial", version)

    async def rejected() -> bool:
        shown = (await node.model(http, model) or {}).get("aliases", {}).get("trial", {})
        return "retry" in str(shown.get("why"))

    await eventually(rejected, f"version {version} is rejected")
    return f"{model}/{version}"


async def _quarantine(
    node: Node, http: httpx.AsyncClient, registry: Registry, model: str, root: Path
) -> str:
    """Have a version quarantined, whose bytes were altered after it came; return its name."""
    version = await asyncio.to_thread(registry.publish, model, LinearModel(4.0))
    registry.point(model, "before", version)
    await node.active(http, model, "before", version)
    (registry.proxied_files(model, version, root) / "requirements.txt").write_text("altered\n")
    registry.point(model, "altered", version)

    async def quarantined() -> bool:
        return bool((await node.version(http, model, version)).get("state") == "quarantined")

    await eventually(quarantined, f"version {version} is quarantined")
    return f"{model}/{version}"


async def _kept_away(
    node: Node, http: httpx.AsyncClient, registry: Registry, model: str, root: Path
) -> list[tuple[str, str]]:
    """Have versions kept away; return the commands that end it, and what each says without room."""
    rejected = await _reject(node, http, registry, model)
    altered = await _quarantine(node, http, registry, model, root)
    return [
        (f"retry {rejected}", f"{rejected} stays rejected, since its end is not recorded"),
        (f"quarantine retry {altered}", f"{altered} stays quarantined, since its end is"),
        (f"quarantine accept {altered}", f"{altered} stays quarantined: "),
    ]


async def test_a_full_and_then_a_read_only_disk(
    node: Node, disk: Disk, registry: Registry, mlflow_root: Path
) -> None:
    first, second = registry.name("first"), registry.name("second")
    for model, slope in ((first, 1.0), (first, 2.0), (second, 3.0)):
        await asyncio.to_thread(registry.publish, model, LinearModel(slope))
        registry.point(model, ALIAS, 1)
    async with client(2) as http:
        await node.active(http, first, ALIAS, 1)
        registry.point(first, ALIAS, 2)
        await node.active(http, first, ALIAS, 2)
        await node.active(http, second, ALIAS, 1)
        expected = {
            (first, f"@{ALIAS}"): (2, 2.0),
            (first, "1"): (1, 1.0),
            (second, f"@{ALIAS}"): (1, 3.0),
        }
        await _assert_all_answer(node, http, expected)
        kept = await _kept_away(node, http, registry, second, mlflow_root) if SOAK else []

        disk.fill()
        await _restart(node, between=lambda: _leave_no_room_for_a_change(node, disk))
        await _assert_all_answer(node, http, expected)
        await _assert_what_cannot_come_is_refused(node, http, registry, first)
        # An alias cannot move, and an operator who wants it to is told why.
        going_back = asyncio.create_task(
            asyncio.to_thread(node.command, "rollback", f"{first}@{ALIAS}", "--to", "1")
        )
        await _assert_not_written(node, first)
        for command, says in kept:
            _, said = await _command(node, *command.split(), exits=1)
            assert says in said, (command, said)
            assert "again" in said, (command, said)
        shown, _ = await _command(node, "sync", first, exits=4)
        assert "the route table cannot be written" in " ".join(shown.split()), shown
        for words in _commands(second):
            _, said = await _command(node, *words)
            assert "not recorded yet" in said, (words, said)
            assert "waits in memory" in said, (words, said)
        assert (await _state(node))["frozen"]

        disk.empty()
        gone_back = await going_back
        assert gone_back.returncode in {0, 4}, gone_back
        assert "It is in force, and not recorded yet" in gone_back.stderr, gone_back
        await node.active(http, first, ALIAS, 1)
        await _assert_nothing_waits(node)
        decided = ["hold", *(words[0] for words in _commands(second))]
        assert sorted(await _whats(node)) == sorted(decided)

        await _restart(node, between=lambda: disk.remount("ro"))
        expected[first, f"@{ALIAS}"] = (1, 1.0)
        await _assert_all_answer(node, http, expected)
        assert (await _state(node))["frozen"]
        _, said = await _command(node, "unfreeze")
        assert "waits in memory" in said
        assert (await _state(node))["frozen"] is None
        disk.remount("rw")
        await _assert_nothing_waits(node)
        assert sorted(await _whats(node)) == sorted([*decided, "unfreeze"])
        await _assert_all_answer(node, http, expected)


def _leave_no_room_for_a_change(node: Node, disk: Disk) -> None:
    """Let what is due to be written need a file of its own: a change fits into a last block."""
    (node.node_dir / "table.changes.copy").unlink()
    disk.fill()


async def _assert_what_cannot_come_is_refused(
    node: Node, http: httpx.AsyncClient, registry: Registry, model: str
) -> None:
    """A version that finds no room is shown with the reason, and its callers do not wait."""
    version = await asyncio.to_thread(registry.publish, model, LinearModel(3.0))

    async def failed() -> bool:
        await asyncio.wait_for(
            ask(http, node.url, Call(model, 0, str(version)), row_body(0)), REFUSED_WITHIN_S
        )
        return bool((await node.version(http, model, version)).get("state") == "failed")

    await eventually(failed, "its fetch has failed")
    answer = await asyncio.wait_for(
        ask(http, node.url, Call(model, 0, str(version)), row_body(0)), REFUSED_WITHIN_S
    )
    assert (answer.status, answer.code) == (503, "model_load_failed"), answer


async def _assert_not_written(node: Node, model: str) -> None:
    """Status says which files the disk refuses, and why the alias stays where it is."""

    async def said() -> bool:
        state = await _state(node)
        (found,) = [one for one in state["models"] if one["name"] == model]
        assert active_version({"aliases": {a["alias"]: a for a in found["aliases"]}}, ALIAS) == 2
        reasons = [one["reason"] or "" for one in found["aliases"] if one["alias"] == ALIAS]
        return "the route table cannot be written" in reasons[0] and all(
            any(name in problem for problem in state["problems"])
            for name in ("table.changes", "catalogue.json", "holds.json")
        )

    await eventually(said, "status says what cannot be written")


async def _assert_nothing_waits(node: Node) -> None:
    async def well() -> bool:
        state = await _state(node)
        return not state["ledger_error"] and not any(
            "written" in one or "recorded" in one for one in state["problems"]
        )

    await eventually(well, "all is written")
