"""Twenty models, room for five workers: what is asked for comes, what is idle goes, truly."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import httpx
import pytest

from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.processes import alive, proportional_bytes
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import (
    RESIDENT_CALLERS,
    RESIDENT_EVICTIONS,
    RESIDENT_LIMIT,
    RESIDENT_MODELS,
    RESIDENT_PROMOTIONS,
)
from tests.acceptance.traffic import ROWS, Call, Traffic, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

ALIAS = "champion"
EVICTIONS = "gateway_evictions_total"
LOOKS_PER_S = 50
CALLS_BEFORE = 20
SLACK_BYTES = 20 * 1024 * 1024
"""How much more gateway, forkserver and workers may hold in the end than when the set was first
full: less than the pages that one of these workers has for itself."""


@dataclass
class Census:
    """Counts the node's workers in /proc from a thread of its own, again and again."""

    node: Node
    seen: set[int] = field(default_factory=set)
    most: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="census")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1 / LOOKS_PER_S):
            now = self.node.workers_now()
            self.seen.update(now)
            self.most = max(self.most, len(now))
            self.looks += 1


@pytest.mark.soak("contracts/test_data_plane_machine.py")
async def test_twenty_models_take_turns_in_five_workers(
    make_node: NodeMaker, registry: Registry
) -> None:
    names = [registry.name(f"turn{number}") for number in range(RESIDENT_MODELS)]
    expected: dict[tuple[str, int], list[float]] = {}
    for number, name in enumerate(names, start=1):
        await asyncio.to_thread(registry.publish, name, LinearModel(float(number)))
        expected[name, 1] = row_answers(float(number))
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        registry.publish_as(name, other, 1)  # the bytes of its neighbour: fewer are to be logged
        expected[name, 2] = expected[other, 1]
        registry.point(name, ALIAS, 1)
    room = {"GATEWAY_MAX_RESIDENT": str(RESIDENT_LIMIT)}
    node = make_node(gateway=room).start()

    deck = _without_end(names)

    def any_call(dice: random.Random) -> Call:
        name = next(deck)
        selector = dice.choice([None, f"@{ALIAS}", "1", "2"])
        return Call(name, dice.randrange(ROWS), selector)

    async with client(RESIDENT_CALLERS) as http, client(2) as watching:
        for name in names:
            await node.active(watching, name, ALIAS, 1)
        full_at = await _memory_of_a_full_set(node, http, names)
        before = await node.metric(watching, EVICTIONS)
        with Census(node) as census:
            callers = [any_call] * RESIDENT_CALLERS
            async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
                for turn in range(RESIDENT_PROMOTIONS):
                    name, target = names[turn % len(names)], 2 - (turn // len(names)) % 2
                    await asyncio.to_thread(registry.point, name, ALIAS, target)
                    await node.active(watching, name, ALIAS, target)
                await eventually(
                    lambda: _evicted_more_than(node, watching, before + RESIDENT_EVICTIONS),
                    f"more than {RESIDENT_EVICTIONS} evictions",
                    patience_s=200 + RESIDENT_EVICTIONS * 4,
                    look_every_s=0.5,
                )
        await eventually_true(
            lambda: len([pid for pid in census.seen if alive(pid)]) <= RESIDENT_LIMIT,
            "evicted workers are gone",
        )
        await _settled(node)
        memory = _data_plane_bytes(node)

    wrong = [answer for answer in traffic.answers if not answer.ok]
    assert not wrong, f"lost requests: {describe(wrong)}"
    for answer in traffic.answers:
        assert answer.version is not None
        right = expected[answer.call.model, answer.version][answer.call.row]
        assert answer.predictions == [right], answer
        # Its worker says the same: two versions with the same bytes answer alike.
        told = answer.body["model_name"], answer.body["model_version"]
        assert told == (answer.call.model, answer.version), answer
        if answer.call.selector in {"1", "2"}:
            assert answer.version == int(answer.call.selector), answer
    assert census.most <= RESIDENT_LIMIT, f"{census.most} workers at a time"
    assert census.most == RESIDENT_LIMIT, "the census never saw a full set: it proves nothing"
    assert len(census.seen) > RESIDENT_EVICTIONS, "fewer workers seen than were evicted"
    assert {answer.call.model for answer in traffic.answers} == set(names)
    assert memory <= full_at + SLACK_BYTES, f"{memory} bytes, {full_at} when first full"


def _without_end(names: list[str]) -> Iterator[str]:
    """All names in a random order, and again: most calls meet a model that is not resident."""
    while True:
        yield from random.sample(names, len(names))


async def _memory_of_a_full_set(node: Node, http: httpx.AsyncClient, names: list[str]) -> int:
    """Ask as many models as fit, more than once, and add up what the whole node holds."""
    for name in names[:RESIDENT_LIMIT] * CALLS_BEFORE:
        answer = await http.post(f"{node.url}/models/{name}/predict", json=row_body(0))
        assert answer.status_code == 200, answer.text
    await _settled(node)
    return _data_plane_bytes(node)


def _data_plane_bytes(node: Node) -> int:
    assert node.gateway is not None
    pids = [node.gateway.pid, node.forkserver().pid, *node.workers()]
    return proportional_bytes(pids)


async def _settled(node: Node) -> None:
    """Wait until the set is full and no worker comes or goes."""
    since, last = time.monotonic(), node.workers_now()

    def steady() -> bool:
        nonlocal since, last
        now = node.workers_now()
        if now != last or len(now) != RESIDENT_LIMIT:
            since, last = time.monotonic(), now
        return time.monotonic() - since > 1.0

    await eventually_true(steady, "the set is full and steady")


async def _evicted_more_than(node: Node, http: httpx.AsyncClient, count: float) -> bool:
    with contextlib.suppress(httpx.TimeoutException):
        return await node.metric(http, EVICTIONS) > count
    return False
