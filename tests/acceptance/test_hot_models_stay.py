"""More models than workers: what is in use keeps its worker, and plain LRU would keep no more."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body, x_body
from tests.acceptance.scale import (
    SCANNED_LOAD_S,
    SCANNED_MODELS,
    ZIPF_CALLS,
    ZIPF_MODELS,
    ZIPF_SLOTS,
)
from tests.acceptance.traffic import Answer, Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually_true
from tests.fakes.replacement import belady_hits, lru_hits, zipf
from tests.models.catalogue import BuildableModel, LinearModel, ScriptedModel
from tests.servers import MlflowServer

LOADS = "gateway_loads_total"
HOT_MODELS, SCANS, SCAN_SLOTS = 5, 2, 8
"""With two scans beside five models there is no place whose worker has not just been loaded."""
CALLS_BEFORE = 2


Start = Callable[[list[str], int], Node]


@pytest.fixture(scope="module")
def registry(mlflow_registry: MlflowServer) -> Iterator[Registry]:
    registry = Registry(mlflow_registry.url)
    yield registry
    registry.forget()


def _published(registry: Registry, word: str, model: BuildableModel, count: int) -> list[str]:
    """Publish models that are loaded for callers only, all with the same bytes."""
    plain = registry.name(f"{word}-plain")
    registry.publish(plain, model)
    names = [registry.name(f"{word}{number}") for number in range(count)]
    for name in names:
        registry.client.create_registered_model(name, tags={"gateway.load": "on_demand"})
        registry.publish_as(name, plain, 1)
    registry.client.delete_registered_model(plain)
    registry.forget_name(plain)
    return names


@pytest.fixture(scope="module")
def names(registry: Registry) -> list[str]:
    """The models of Zipf's law."""
    return _published(registry, "m", LinearModel(1.0), ZIPF_MODELS)


@pytest.fixture(scope="module")
def slow_names(registry: Registry) -> list[str]:
    """Models whose workers are fresh for seconds: for as long as their load takes."""
    model = ScriptedModel(load_sleep_s=SCANNED_LOAD_S)
    return _published(registry, "slow", model, SCANNED_MODELS)


@pytest.fixture
def start(make_node: NodeMaker) -> Start:
    """Start a node with so many places, which knows these models."""

    def started(names: list[str], slots: int) -> Node:
        room = {"GATEWAY_MAX_RESIDENT": str(slots)}
        node = make_node(gateway=room).start()
        asyncio.run(_know(node, names))
        return node

    return started


async def _know(node: Node, names: list[str]) -> None:
    async with client(1) as http:
        for name in (names[0], names[-1]):
            await node.catalogue_shows(http, name, 1)


@pytest.mark.soak(
    "contracts/test_hit_ratio.py",
    "contracts/test_data_plane_machine.py",
)
@pytest.mark.parametrize("slots", ZIPF_SLOTS)
def test_zipf_load_meets_what_plain_lru_keeps(start: Start, names: list[str], slots: int) -> None:
    trace = zipf(names, ZIPF_CALLS, seed=slots)
    loads = asyncio.run(_loads_of(start(names, slots), trace))
    ours, lru, best = len(trace) - loads, lru_hits(trace, slots), belady_hits(trace, slots)
    print(f"{slots} places: {ours} of {len(trace)} calls met a worker, LRU {lru}, optimum {best}")
    assert lru <= ours <= best


async def _loads_of(node: Node, trace: list[str]) -> int:
    """Ask for one model after the other; count the workers that came up for it."""
    right = row_answers(1.0)
    async with client(1) as http:
        before = await node.metric(http, LOADS)
        for at, name in enumerate(trace):
            call = Call(name, at % len(right))
            answer = await ask(http, node.url, call, row_body(call.row))
            assert answer.ok, describe([answer])
            assert answer.predictions == [right[call.row]]
            assert answer.body["model_name"] == name
        return int(await node.metric(http, LOADS) - before)


@pytest.mark.soak(
    "contracts/test_hit_ratio.py",
    "contracts/test_data_plane_machine.py",
)
def test_scans_of_cold_models_evict_no_hot_one(
    start: Start, names: list[str], slow_names: list[str]
) -> None:
    node = start([*names, *slow_names], SCAN_SLOTS)
    asyncio.run(_scan(node, names[:HOT_MODELS], slow_names))


async def _scan(node: Node, hot: list[str], cold: list[str]) -> None:
    """Call some models again and again, beside others that are called once, two at a time."""
    async with client(len(hot) + SCANS) as http:

        async def scan(names: list[str]) -> list[Answer]:
            return [await ask(http, node.url, Call(name, 0), x_body(0.0)) for name in names]

        callers = [asks(name) for name in hot]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            await eventually_true(
                lambda: set(hot) <= _answered(traffic, CALLS_BEFORE), "the hot models answer"
            )
            scans = await asyncio.gather(*(scan(cold[first::SCANS]) for first in range(SCANS)))
        loads = {name: await node.metric(http, LOADS, model=name) for name in hot}
        evicted = await node.metric(http, "gateway_evictions_total")
    answers = itertools.chain(traffic.answers, *scans)
    wrong = [answer for answer in answers if not answer.ok]
    assert not wrong, describe(wrong)
    assert loads == dict.fromkeys(hot, 1.0)
    assert evicted >= len(cold) + len(hot) - SCAN_SLOTS, (
        "the scan needed no room: it proves nothing"
    )


def _answered(traffic: Traffic, times: int) -> set[str]:
    """Return the models that have answered so often."""
    counts = Counter(answer.call.model for answer in traffic.answers if answer.ok)
    return {name for name, count in counts.items() if count >= times}
