"""Pin, freeze, explain, sync and quarantine by command, on real servers, with traffic running."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import OUTAGE_S
from tests.acceptance.traffic import Traffic, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel
from tests.servers import Postgres

ALIAS = "champion"
PASSES = 2
NEVER_S = "3600"


async def command(node: Node, *arguments: str, exits: int = 0) -> str:
    """Run a command; what it wrote to stdout."""
    done = await asyncio.to_thread(node.command, *arguments)
    assert done.returncode == exits, done.stdout + done.stderr
    return done.stdout


async def told(node: Node, *arguments: str, exits: int = 0) -> Any:
    return json.loads(await command(node, *arguments, "--json", exits=exits))


@pytest.fixture(scope="module")
def node(make_module_node: NodeMaker, postgresql_server: Postgres) -> Iterator[Node]:
    """A node, not started yet, whose ledger is on PostgreSQL."""
    url = postgresql_server.empty_database()
    made = make_module_node(control={"REGISTRY_SYNC_DATABASE_URL": url})
    yield made
    made.stop_control()


async def test_operators_decide_whatever_the_registry_says(
    node: Node, registry: Registry, postgresql_server: Postgres
) -> None:
    node.start()
    model = registry.name("decided")
    name = f"{model}@{ALIAS}"
    answers = {registry.publish(model, LinearModel(s)): row_answers(s) for s in (1.0, 2.0, 3.0)}
    registry.point(model, ALIAS, 1)
    registry.point(model, "next", 3)  # its bytes are here before the ledger goes
    async with client(2) as http, client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        await node.active(watching, model, "next", 3)
        callers = [asks(model, f"@{ALIAS}")] * 2
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            # Frozen: a promotion is fetched and checked, and made by nobody; not after a kill.
            await command(node, "freeze")
            registry.point(model, ALIAS, 2)
            await node.passes(watching, PASSES)
            assert node.control is not None
            node.control.kill()
            node.start_control()
            await node.passes(watching, PASSES)
            explained = await told(node, "explain", model, f"@{ALIAS}")
            (one,) = explained["selectors"]
            assert (one["version"], one["aspired"], one["why"]) == (1, 2, "frozen"), one
            assert {v["version"]: v["state"] for v in explained["versions"]}[2] == "available"
            assert not traffic.count(lambda answer: answer.version != 1)
            # An operator may, and waits for it or not; and what is pinned stays, frozen or not.
            noted = await told(node, "pin", name, "2", "--no-wait")
            assert (noted["outcome"], noted["explained"][0]["hold"]["version"]) == ("pending", 2)
            await node.active(watching, model, ALIAS, 2)
            await command(node, "unfreeze")
            registry.point(model, ALIAS, 3)
            await node.passes(watching, PASSES)
            (one,) = (await told(node, "explain", model, ALIAS))["selectors"]
            assert (one["version"], one["aspired"], one["why"]) == (2, 3, "pinned"), one
            # Without its database, the node goes on, does what it is told, and says what waits.
            postgresql_server.stop()
            gone_at, counted = time.monotonic(), len(traffic.answers)
            try:

                async def shown() -> bool:
                    return bool((await node.operations("GET", "/state"))["ledger_error"])

                done = await asyncio.to_thread(node.command, "unpin", name)
                assert (done.returncode, "not recorded yet" in done.stderr) == (0, True), done
                await node.active(watching, model, ALIAS, 3)
                await eventually(shown, "the control plane says that the ledger is gone")
                await node.passes(watching, PASSES)
                await asyncio.sleep(max(0.0, OUTAGE_S - (time.monotonic() - gone_at)))
                assert (await told(node, "status"))["ledger_error"]
                assert len(traffic.answers) > counted, "callers went on"
            finally:
                postgresql_server.start()

            async def well() -> bool:
                return not await shown()

            await eventually(well, "the ledger is used again by itself")
            await eventually_true(lambda: traffic.count(lambda a: a.version == 3) > 10, "calls")
        history = (await told(node, "history", model))["entries"]
    wrong = [answer for answer in traffic.answers if not answer.ok]
    assert not wrong, describe(wrong)
    for answer in traffic.answers:
        assert answer.predictions == [answers[answer.version or 0][answer.call.row]], answer
    decided = [e["what"] for e in reversed(history) if e["asked_by"] == "operator"]
    assert [what for what in decided if what not in ("fetch", "stage")] == [
        "freeze",
        "pin",
        "activate",
        "unfreeze",
        "unpin",
    ]
    moves = [e for e in history if e["what"] == "activate" and e["alias"] == ALIAS]
    assert [(e["previous"], e["version"], e["asked_by"]) for e in moves] == [
        (2, 3, "poll"),
        (1, 2, "operator"),
        (None, 1, "poll"),
    ]
    assert all({"confirm", "activate"} <= set(e["durations_s"]) for e in moves), moves


@pytest.mark.soak(
    "unit/registry_sync/operations/test_explained_model.py",
    "unit/registry_sync/operations/decisions/test_retry.py",
)
async def test_sync_and_release_look_at_once(
    node: Node, registry: Registry, mlflow_root: Path
) -> None:
    model = registry.name("looked-at")
    registry.publish(model, LinearModel(1.0))
    registry.point(model, ALIAS, 1)
    node.stop_control()
    node.start_control({"REGISTRY_SYNC_POLL_INTERVAL_S": NEVER_S})
    node.start()
    async with client(2) as watching:
        await node.active(watching, model, ALIAS, 1)
        registry.publish(model, LinearModel(2.0))
        await command(node, "stamp", f"models:/{model}/2")
        folder = registry.proxied_files(model, 2, mlflow_root)
        file = max(folder.glob("model.*"), key=lambda one: one.stat().st_size)
        right = file.read_bytes()
        file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        registry.point(model, ALIAS, 2)
        synced = await told(node, "sync", model, exits=1)
        shown = {one["selector"]: one for one in synced["explained"]}[f"@{ALIAS}"]
        assert (shown["version"], shown["aspired"]) == (1, 2), synced
        assert "digest" in shown["reason"], synced
        (found,) = (await told(node, "quarantine", "list"))["quarantines"]
        assert (found["model"], found["version"]) == (model, 2)
        assert found["expected_digest"] != found["found_digest"]
        await command(node, "quarantine", "retry", f"{model}/2", exits=1)
        file.write_bytes(right)
        await command(node, "quarantine", "retry", f"{model}/2")
        await command(node, "sync", model)
        await node.active(watching, model, ALIAS, 2)
