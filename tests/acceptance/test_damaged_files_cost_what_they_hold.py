"""Files of a node go wrong while it is down: both planes start, and serve what they know still.

Every answer is checked. What is lost is in the log and in ``status``; what the registry has comes
again.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import DAMAGE_ROUNDS
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually, eventually_true
from tests.contracts.damage import DAMAGES, Damage
from tests.models.catalogue import LinearModel
from tests.servers import MlflowServer

ALIAS = "champion"
ROW = 3
SLOPES = (1.0, 2.0)
EXPECTED = {number: row_answers(slope)[ROW] for number, slope in enumerate(SLOPES, 1)}

KINDS = [one for one in DAMAGES if one.name != "altered"]
"""One bit is noticed where there is a checksum only."""
LEDGER_KINDS = [one for one in KINDS if one.name != "linked to a copy"]
"""The ledger may be a link to where there is room."""
JOURNAL_KINDS = [
    *(one for one in KINDS if one.name in {"a pipe", "a folder", "a socket", "endless"}),
    *(one for one in KINDS if one.name in {"linked to nowhere", "linked to itself"}),
]
"""SQLite itself knows a plain file that is no journal."""
JOURNALS = ["ledger.db-journal", "ledger.db-wal", "ledger.db-shm"]
LOCKS = ["gateway.lock", "registry_sync.lock"]
EITHER = [
    ["table.json", "catalogue.json", "hot.json", "node_id", "holds.json"],
    ["table.changes", "catalogue.json", "hot.json", "node_id.copy", "ledger.db"],
]
"""What is damaged at once: of two files that are kept twice, one at a time."""


@pytest.fixture(scope="module")
def corner(mlflow_registry: MlflowServer) -> Iterator[Registry]:
    """This module's corner of the registry."""
    made = Registry(mlflow_registry.url)
    yield made
    made.forget()


@pytest.fixture(scope="module")
def model(corner: Registry, module_node: Node) -> str:
    """A model of two versions that was promoted and rolled back: a hold, and two generations."""
    name = corner.name("damaged-files")
    for slope in SLOPES:
        corner.publish(name, LinearModel(slope))
    corner.point(name, ALIAS, 1)
    asyncio.run(rolled_back(module_node.start(), corner, name))
    return name


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(4) as made:
        yield made


def stop(node: Node) -> None:
    """Stop what runs of a node."""
    node.stop_control()
    assert node.gateway is not None
    if node.gateway.running:
        assert node.gateway.stop() == 0


async def rolled_back(node: Node, registry: Registry, model: str) -> None:
    """Promote the second version, and go back by command."""
    async with client(4) as http:
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
    """Return what ``status`` is told, once the control plane knows the gateway."""

    async def look() -> dict[str, Any] | None:
        with suppress(httpx.TransportError):
            found: dict[str, Any] = await node.operations("GET", "/state")
            return found if found["generation"] is not None else None
        return None

    return await eventually(look, "the control plane knows the gateway")


def are_files(paths: list[Path]) -> bool:
    return all(path.is_file() for path in paths)


def record_of(node: Node, digest: str | None) -> Path:
    assert digest is not None
    return node.node_dir / "artifacts" / f"{digest.removeprefix('sha256:')}.json"


def given(
    files: Sequence[Path], kinds: Iterator[Damage], others: Mapping[str, Iterator[Damage]]
) -> list[tuple[Path, Damage]]:
    """Give each file the next kind of damage."""
    return [(path, next(others.get(path.name, kinds))) for path in files]


async def test_every_file_at_once_keeps_no_plane_from_starting(
    module_node: Node, http: httpx.AsyncClient, model: str
) -> None:
    node = module_node.start()
    other = (await answers(node, http, model, "2")).digest
    known = (await state(node))["node_id"]
    logs = {plane: node.folder / f"{plane}.log" for plane in ("gateway", "registry_sync")}
    before = {plane: len(log.read_text()) for plane, log in logs.items()}
    kinds, journal_kinds = itertools.cycle(KINDS), itertools.cycle(JOURNAL_KINDS)
    ledger_kinds = itertools.cycle(LEDGER_KINDS)
    others = {"ledger.db": ledger_kinds} | dict.fromkeys(JOURNALS, journal_kinds)
    covered: set[str] = set()
    for turn in range(DAMAGE_ROUNDS):
        stop(node)
        half = turn * 2 // DAMAGE_ROUNDS
        names, record = EITHER[half], record_of(node, other)
        proof = min((node.node_dir / "proofs").glob("*.json"))
        files = [*(node.node_dir / name for name in [*names, *LOCKS]), record, proof]
        if half:
            files += [node.node_dir / name for name in JOURNALS]
        for path, damage in given(files, kinds, others):
            covered.add(damage.name)
            damage.apply(path)

        # The gateway alone: each change of the table is in two files.
        node.start_gateway()
        assert (await answers(node, http, model, f"@{ALIAS}")).version == 1

        # With the control plane all is as it was: the rollback, by ledger or file; and the bytes.
        node.start_control()
        await node.active(http, model, ALIAS, 1)
        for selector, version in ((f"@{ALIAS}", 1), ("1", 1), ("2", 2)):
            assert (await answers(node, http, model, selector)).version == version
        told = await state(node)
        assert told["node_id"] == known
        (shown,) = [one for one in told["models"] if one["name"] == model]
        assert {one["alias"]: one["held_at"] for one in shown["aliases"]}[ALIAS] == 1
        problems = "\n".join(told["problems"])
        for name in names:
            assert f" {name} " in problems, problems
            assert 1 <= len(list(node.node_dir.glob(f"{name}.damaged-*"))) <= 3
        for name in JOURNALS if half else ():
            assert list(node.node_dir.glob(f"{name}.damaged-*"))
        assert record.is_file()
        assert not record.is_symlink()
        assert list(record.parent.glob("*.json.damaged-*"))
        paths = [node.node_dir / name for name in names]
        await eventually_true(partial(are_files, paths), f"{names} are written anew")
    assert covered == {one.name for one in KINDS} or DAMAGE_ROUNDS == 1
    for plane, log in logs.items():
        text = log.read_text()[before[plane] :]
        assert "file.damaged" in text
        assert "Traceback" not in text
