"""Planes that die in the middle of a change, and state that is lost: who owns what decides.

While the gateway itself is down its port refuses connections, and what it had in its hands breaks
off; these are counted apart. What is answered is right, always.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.processes import alive
from tests.acceptance.registry import Registry, row_answers, row_body, x_body
from tests.acceptance.relay import Relay
from tests.acceptance.scale import MIDDLE_ROUNDS
from tests.acceptance.surface import active_version
from tests.acceptance.traffic import Answer, Call, Choose, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel, ScriptedModel
from tests.servers import MlflowServer

ALIAS = "champion"
SLOW_LOAD_S = 3.0
CALLERS = 3
ENOUGH_ANSWERS = 20
MOMENT = "after:table.changes"
"""Where the gateway dies in the middle of an activation: between the change's two copies. What is
active after other moments is tested without processes."""


def _callers(model: str) -> list[Choose]:
    """By alias, by number and without a version."""
    return [asks(model, selector) for selector in (f"@{ALIAS}", "1", None)]


def _by_alias(answer: Answer) -> bool:
    return answer.call.selector != "1"


async def _more_answers(traffic: Traffic, version: int | None = None) -> None:
    """Wait for answers, by alias from this version, to requests that are sent from now on."""
    since = time.monotonic()

    def enough() -> bool:
        return (
            traffic.count(
                lambda a: (
                    a.ok and a.sent_at > since and _by_alias(a) and version in {None, a.version}
                )
            )
            >= ENOUGH_ANSWERS
        )

    await eventually_true(enough, f"{ENOUGH_ANSWERS} answers from version {version}")


@pytest.fixture(scope="module")
def relay(mlflow_registry: MlflowServer) -> Iterator[Relay]:
    """The node's wire to the registry."""
    with closing(Relay.to(mlflow_registry.url)) as relay:
        yield relay


@pytest.fixture(scope="module")
def started(relay: Relay, make_module_node: NodeMaker) -> Node:
    """A node that has nothing to lose yet, with a gateway that dies where a test says."""
    return make_module_node(registry_url=relay.url, gateway={"ACCEPTANCE_MAY_DIE": "1"}).start()


@pytest.fixture
def node(started: Node) -> Node:
    """The node, both planes of it running whatever an earlier test left."""
    return started.start()


async def _two_versions(
    node: Node, registry: Registry, http: httpx.AsyncClient
) -> tuple[str, dict[int, list[float]]]:
    """A model of which version 1 is active and resident, and version 2 is here."""
    model = registry.name("middle")
    expected = {}
    for slope in (1.0, 2.0):
        version = await asyncio.to_thread(registry.publish, model, LinearModel(slope))
        expected[version] = row_answers(slope)
    registry.point(model, ALIAS, 1)
    await node.active(http, model, ALIAS, 1)
    registry.point(model, "next", 2)
    await node.active(http, model, "next", 2)
    answer = await ask(http, node.url, Call(model, 0), row_body(0))
    assert answer.ok, answer
    return model, expected


def _assert_never_wrong(answers: list[Answer], expected: dict[int, list[float]]) -> None:
    for answer in answers:
        if answer.ok:
            assert answer.version is not None
            assert answer.predictions == [expected[answer.version][answer.call.row]], answer
            assert _by_alias(answer) or answer.version == 1, answer


def _assert_never_failed(answers: list[Answer], down: list[tuple[float, float]]) -> None:
    """No failure, but broken connections while the gateway was down."""
    failed = [
        answer
        for answer in answers
        if not answer.ok
        and not (
            answer.refusal
            and any(answer.sent_at <= end and answer.done_at >= start for start, end in down)
        )
    ]
    assert not failed, describe(failed)


# --- the control plane dies ----------------------------------------------------------------------


async def test_the_control_plane_dies_in_the_middle_of_a_stage(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    for turn in range(MIDDLE_ROUNDS):
        model = registry.name(f"staged{turn}")
        old = ScriptedModel(scale=2.0)
        new = ScriptedModel(
            scale=3.0, loads_file=str(tmp_path / f"loads{turn}"), load_sleep_s=SLOW_LOAD_S
        )
        registry.publish(model, old)
        registry.point(model, ALIAS, 1)
        async with client(CALLERS) as http, client(2) as watching:
            await node.active(watching, model, ALIAS, 1)
            body = lambda call: x_body(float(call.row))  # noqa: E731  # one line says it
            async with Traffic(http, node.url, _callers(model), body) as traffic:
                await _more_answers(traffic, 1)
                assert node.control is not None
                await asyncio.to_thread(registry.publish, model, new)
                registry.point(model, ALIAS, 2)
                await eventually_true(new.loads, "version 2 is being loaded")
                node.control.kill()
                assert active_version(await node.model(watching, model), ALIAS) == 1
                await _more_answers(traffic, 1)
                node.start_control()
                await node.active(watching, model, ALIAS, 2)
                await _more_answers(traffic, 2)
        _assert_never_failed(traffic.answers, [])
        for answer in traffic.answers:
            right = {1: old, 2: new}[answer.version or 0].expected(x_body(float(answer.call.row)))
            assert answer.predictions == right, answer
        assert {answer.version for answer in traffic.answers if _by_alias(answer)} == {1, 2}


# --- the gateway dies ----------------------------------------------------------------------------


async def test_the_gateway_dies_in_the_middle_of_an_activation(
    node: Node, registry: Registry
) -> None:
    async with client(CALLERS) as http, client(2) as watching:
        model, expected = await _two_versions(node, registry, watching)
        body = lambda call: row_body(call.row)  # noqa: E731  # one line says it
        async with Traffic(http, node.url, _callers(model), body) as traffic:
            await _more_answers(traffic, 1)
            workers = node.workers()
            gateway = node.gateway
            assert gateway is not None
            die_at = node.dumps / "die_at"
            die_at.write_text(MOMENT)
            asking_since = time.monotonic()
            registry.point(model, ALIAS, 2)
            await eventually_true(lambda: not gateway.running, "the gateway died")
            assert gateway.process.returncode == -9
            await eventually_true(
                lambda: not any(alive(pid) for pid in workers), "its workers ended with it"
            )
            die_at.unlink()
            # What it had decided is on disk, and nothing else: the control plane waits.
            assert node.control is not None
            node.control.kill()
            await asyncio.to_thread(node.start_gateway)
            ready = time.monotonic()
            assert active_version(await node.model(watching, model), ALIAS) == 2
            await _more_answers(traffic, 2)
            node.start_control()
            await node.passes(watching)
            await node.active(watching, model, ALIAS, 2)
            await _more_answers(traffic, 2)
    _assert_never_failed(traffic.answers, [(asking_since, ready)])
    _assert_never_wrong(traffic.answers, expected)
    assert {a.version for a in traffic.answers if a.ok and _by_alias(a)} == {1, 2}


# --- state is lost -------------------------------------------------------------------------------


async def test_the_ledger_is_deleted_and_promotions_go_on_but_nothing_is_trusted_anew(
    node: Node, registry: Registry, mlflow_root: Path
) -> None:
    async with client(CALLERS) as http, client(2) as watching:
        model, expected = await _two_versions(node, registry, watching)
        pinned = (await node.version(watching, model, 2))["digest"]
        assert pinned
        body = lambda call: row_body(call.row)  # noqa: E731  # one line says it
        async with Traffic(http, node.url, _callers(model), body) as traffic:
            await _lose_the_ledger(node)
            node.start_control()
            await _more_answers(traffic, 1)
            registry.point(model, ALIAS, 2)
            await node.active(watching, model, ALIAS, 2)
            await _more_answers(traffic, 2)
            assert (await node.version(watching, model, 2))["digest"] == pinned
            assert (node.node_dir / "ledger.db").exists()

            # Once more; and meanwhile somebody alters bytes that were pinned when first seen.
            registry.point(model, ALIAS, 1)
            await node.active(watching, model, ALIAS, 1)
            await _lose_the_ledger(node)
            altered = registry.proxied_files(model, 2, mlflow_root) / "conda.yaml"
            altered.write_bytes(altered.read_bytes() + b"# altered\n")
            registry.point(model, ALIAS, 2)
            node.start_control()

            async def refused() -> bool:
                version = await node.version(watching, model, 2)
                return version.get("state") == "quarantined" and bool(version.get("reason"))

            await eventually(refused, "the altered version is quarantined by its old pin")
            refused_at = time.monotonic()
            assert active_version(await node.model(watching, model), ALIAS) == 1
            await _more_answers(traffic, 1)
    _assert_never_failed(traffic.answers, [])
    _assert_never_wrong(traffic.answers, expected)
    late = [a for a in traffic.answers if a.sent_at > refused_at and _by_alias(a)]
    assert {answer.version for answer in late} == {1}
    assert {answer.digest for answer in traffic.answers if answer.version == 2} == {pinned}


async def _lose_the_ledger(node: Node) -> None:
    """Stop the control plane and delete its ledger."""
    assert node.control is not None
    assert await asyncio.to_thread(node.control.stop) == 0
    for file in node.node_dir.glob("ledger.db*"):
        file.unlink()


@pytest.mark.soak(
    "unit/gateway/routing/test_table_file.py",
    "acceptance/test_damaged_files_cost_what_they_hold.py",
)
async def test_the_table_file_is_deleted_and_rebuilt(node: Node, registry: Registry) -> None:
    async with client(CALLERS) as http, client(2) as watching:
        model, expected = await _two_versions(node, registry, watching)
        assert node.gateway is not None
        assert node.gateway.stop() == 0
        for file in node.node_dir.glob("table.*"):  # what has changed since lies beside it
            file.unlink()
        body = lambda call: row_body(call.row)  # noqa: E731  # one line says it
        asking_since = time.monotonic()
        async with Traffic(http, node.url, _callers(model), body) as traffic:
            await asyncio.to_thread(node.start_gateway)
            ready = time.monotonic()
            await node.active(watching, model, ALIAS, 1)
            await _more_answers(traffic, 1)
            assert (node.node_dir / "table.json").exists()
    _assert_never_failed(traffic.answers, [(asking_since, ready)])
    _assert_never_wrong(traffic.answers, expected)
    assert {answer.version for answer in traffic.answers if answer.ok} == {1}
