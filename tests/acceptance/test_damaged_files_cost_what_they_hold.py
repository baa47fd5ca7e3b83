"""Files of a node go wrong while it is down: both planes start, and serve what they know still.

Every answer is checked. What is lost is in the log and in ``status``; what the registry has comes
again. The tests share one node, because its starts are what they take their time for: each takes
the node as the test before has left it, whether it runs or not.
"""

import asyncio
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.relay import Relay
from tests.acceptance.scale import DAMAGE_ROUNDS
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually, eventually_true
from tests.contracts.damage import DAMAGES, Damage
from tests.models.catalogue import LinearModel
from tests.servers import MlflowServer

ALIAS = "champion"
ROW = 3
SLOPES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
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
def wire(mlflow_registry: MlflowServer) -> Iterator[Relay]:
    """The node's way to the registry."""
    relay = Relay.to(mlflow_registry.url)
    yield relay
    relay.close()


@pytest.fixture(scope="module")
def module_node(wire: Relay, make_module_node: NodeMaker) -> Node:
    """The module's node, not started yet, which ends before its way to the registry does."""
    return make_module_node(registry_url=wire.url)


@pytest.fixture(scope="module")
def model(corner: Registry, module_node: Node) -> str:
    """A model of two versions that was promoted and rolled back: a hold, and two generations."""
    name = corner.name("damaged-files")
    for slope in SLOPES[:2]:
        corner.publish(name, LinearModel(slope))
    corner.point(name, ALIAS, 1)
    asyncio.run(rolled_back(module_node.start(), corner, name))
    return name


@pytest.fixture
def node(module_node: Node, model: str) -> Node:
    """The module's node, which knows the model: it may have been stopped."""
    assert model
    return module_node


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


async def operations(node: Node, path: str, **query: str) -> dict[str, Any]:
    """What ``status`` and ``explain`` are told; nothing while the control plane does not answer."""
    # Without TLS there are no certificates to read, which takes longer than to ask.
    transport = httpx.AsyncHTTPTransport(uds=str(node.node_dir / "operations.sock"), verify=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://node", timeout=30) as told:
        with suppress(httpx.TransportError):
            answer = await told.get(path, params=query)
            found: dict[str, Any] = answer.json() if answer.is_success else {}
            return found
    return {}


async def state(node: Node) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await operations(node, "/state")
        return found if found.get("generation") is not None else None

    return await eventually(look, "the control plane knows the gateway")


def are_files(paths: list[Path]) -> bool:
    return all(path.is_file() for path in paths)


def record_of(node: Node, digest: str | None) -> Path:
    assert digest is not None
    return node.node_dir / "artifacts" / f"{digest.removeprefix('sha256:')}.json"


# --- every file at once ---------------------------------------------------------------------------


def given(
    files: Sequence[Path], kinds: Iterator[Damage], others: Mapping[str, Iterator[Damage]]
) -> list[tuple[Path, Damage]]:
    """Give each file the next kind of damage."""
    return [(path, next(others.get(path.name, kinds))) for path in files]


async def test_every_file_at_once_keeps_no_plane_from_starting(
    node: Node, http: httpx.AsyncClient, model: str
) -> None:
    node.start()
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


# --- copies ---------------------------------------------------------------------------------------

LOST = {
    "nested": (1, "its record is nested too deep"),
    "unmanifested": (2, "its manifest is gone"),
    "bare": (3, "its folder is gone"),
    "unrecorded": (4, "its record is gone"),
}
"""The version of each alias, and the damage done to it."""
ALTERED, ALTERED_VERSION = "altered", 5
"""One byte of this version's model differs; its record does not tell."""
WHOLE = 6


def lose(record: Path, alias: str, elsewhere: Path) -> None:
    if alias == "unmanifested":
        record.with_suffix(".manifest").unlink()
    elif alias == "bare":
        record.with_suffix("").chmod(0o755)
        record.with_suffix("").rename(elsewhere)
    else:
        record.unlink()
        if alias == "nested":
            record.write_text("[" * 100_000)


def alter(folder: Path) -> None:
    """Change one byte of the model in the artifact store, and no size."""
    file = max(folder.glob("model.*"), key=lambda one: one.stat().st_size)
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose_all(record: Path) -> None:
    """Remove a record and the folder that belongs to it."""
    record.unlink()
    folder = record.with_suffix("")
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.soak(
    "unit/registry_sync/reconcile/steps/test_damaged_copies.py",
    "unit/registry_sync/artifacts/store/test_damaged_store.py",
)
async def test_copies_that_are_damaged_while_the_registry_is_away_are_told_of_and_come_anew(
    node: Node, corner: Registry, http: httpx.AsyncClient, wire: Relay
) -> None:
    node.start()
    name = corner.name("damaged-copies")
    meant = {alias: version for alias, (version, _) in LOST.items()}
    meant |= {ALTERED: ALTERED_VERSION, "whole": WHOLE}
    with node.control_paused():
        for slope in SLOPES:
            await asyncio.to_thread(corner.publish, name, LinearModel(slope))
        for alias, version in meant.items():
            corner.point(name, alias, version)
    served = {}
    for alias, version in meant.items():
        await node.active(http, name, alias, version)
        served[alias] = await answers(node, http, name, f"@{alias}")
    await node.active(http, name, "whole", WHOLE)
    stop(node)
    for alias in LOST:
        lose(record_of(node, served[alias].digest), alias, node.folder / "elsewhere")
    altered = record_of(node, served[ALTERED].digest)
    alter(altered.with_suffix(""))

    # The gateway alone: no control plane is there to fetch the altered one again.
    node.start_gateway()
    refused = await is_refused(node, http, name, ALTERED)
    assert "is not the file of the manifest" in refused.body["detail"], refused

    # With a control plane that reaches no registry.
    await asyncio.to_thread(wire.cut)
    node.start_control()
    whole = await answers(node, http, name, str(WHOLE))
    assert whole.version == WHOLE, "it concerns those artifacts only"
    for alias, (_, reason) in LOST.items():
        await is_told(node, http, name, alias, reason)
    done = await asyncio.to_thread(node.command, "explain", name, "@unrecorded", "--json")
    assert "this node's copy is damaged" in json.loads(done.stdout)["selectors"][0]["reason"]

    await asyncio.to_thread(wire.join)
    for alias, before in served.items():
        await answers_as_before(node, http, name, alias, before)

    # Lost, and its worker dies: with all the others, as no name tells which one is its own.
    lose_all(altered)
    for worker in node.workers():
        os.kill(worker, signal.SIGKILL)
    await answers_as_before(node, http, name, ALTERED, served[ALTERED])
    assert altered.with_suffix("").is_dir()


async def answers_as_before(
    node: Node, http: httpx.AsyncClient, model: str, alias: str, before: Answer
) -> None:
    again = await answers(node, http, model, f"@{alias}")
    assert (again.version, again.digest) == (before.version, before.digest), alias


async def is_refused(node: Node, http: httpx.AsyncClient, model: str, alias: str) -> Answer:
    refused = await ask(http, node.url, Call(model, ROW, f"@{alias}"), row_body(ROW))
    assert (refused.status, refused.code) == (503, "model_load_failed"), refused
    assert "copy of its bytes is damaged" in refused.body["detail"], refused
    return refused


async def is_told(node: Node, http: httpx.AsyncClient, model: str, alias: str, reason: str) -> None:
    await is_refused(node, http, model, alias)

    async def problem() -> str | None:
        said: list[str] = (await state(node))["problems"]
        found = [one for one in said if f"this node's copy is damaged: {reason}" in one]
        return found[0] if found else None

    assert "it is fetched again when the registry answers" in await eventually(problem, "status")
    told = await operations(node, "/explain", model=model, selector=alias)
    assert "this node's copy is damaged" in told["selectors"][0]["reason"]
    shown = await node.model(http, model)
    assert shown is not None
    assert "this node's copy of its bytes is damaged" in shown["aliases"][alias]["why"]
