"""Models that hang, exit, crash, eat memory, print, fork …: it costs their own callers, once.

The README beside this file has the table of what each does and what its callers get.
"""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.processes import alive, children
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import SOAK
from tests.acceptance.traffic import Call, Traffic, ask, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import ODD_WAYS, LinearModel, OddModel
from tests.servers import MlflowServer

MIB = 1024 * 1024
GATEWAY = {
    "GATEWAY_WORKER_MEMORY_BYTES": str(256 * MIB),
    "ACCEPTANCE_CONSTANTS": '{"STUCK_GRACE_S": 0.5}',
    "GATEWAY_PROBE_INTERVAL_S": "1",
    "GATEWAY_MAX_ANSWER_BYTES": str(MIB),
    "GATEWAY_MAX_RESIDENT": "16",
    "GATEWAY_NOT_FINITE": "refuse",
    # Not that of a load: the first one waits until the forkserver has imported everything.
    "GATEWAY_WARM_UP_TIMEOUT_S": "8",
} | ({"GATEWAY_LOAD_TIMEOUT_S": "20"} if SOAK else {})
TIMEOUT_S = "4"
"""Of the odd model, by its tag. A sound call on a busy machine takes a good part of a second."""
NEIGHBOURS = 2
ANSWERS = 30
"""Answers of the neighbour that are waited for before and after."""


@dataclass(frozen=True)
class Odd:
    """One way to be odd.

    Attributes:
        status: What the caller gets.
        code: Its machine code; None: an answer.
        ends: Whether the worker ends by it. None: either way, and its callers are answered.
        children: How many processes more the worker has afterwards.
    """

    status: int
    code: str | None
    ends: bool | None = False
    children: int = 0


HANGS = Odd(504, "deadline_exceeded", ends=True)
DIES = Odd(503, "worker_died", ends=True)
RAISES = Odd(500, "model_error")
ANSWERS_RIGHT = Odd(200, None)
CASES: dict[str, Odd] = {
    "hang": HANGS,
    "spin": HANGS,
    "hang_deaf": HANGS,
    "leave": DIES,
    "leave_politely": RAISES,
    "interrupt": RAISES,
    "crash": DIES,
    "end_own_group": DIES,
    "eat": RAISES,
    "eat_and_keep": Odd(500, "model_error", ends=None),
    "recurse": RAISES,
    "too_many_rows": ANSWERS_RIGHT,
    "no_rows": ANSWERS_RIGHT,
    "not_json": RAISES,
    "not_finite": Odd(422, "not_finite"),
    "answer_much": RAISES,
    "print_much": ANSWERS_RIGHT,
    "write_to_descriptors": ANSWERS_RIGHT,
    "close_output": ANSWERS_RIGHT,
    "change_folder": ANSWERS_RIGHT,
    "change_environment": ANSWERS_RIGHT,
    "start_threads": ANSWERS_RIGHT,
    "fork_and_return": ANSWERS_RIGHT,
    "fork_and_stay": Odd(200, None, children=1),
    "start_child": Odd(200, None, children=1),
    "start_child_in_own_group": Odd(200, None, children=1),
}
FAILS = Odd(503, "model_load_failed")
BEGINNINGS: dict[tuple[str, str], Odd] = {
    ("load", "eat"): FAILS,
    ("load", "leave"): FAILS,
    ("load", "print_much"): ANSWERS_RIGHT,
    ("load", "start_threads"): ANSWERS_RIGHT,
    ("load", "fork_and_return"): ANSWERS_RIGHT,
    ("warm_up", "hang"): FAILS,
    ("warm_up", "leave"): FAILS,
    ("load", "hang"): FAILS,
}
"""What a model does before it serves, and what its first caller gets; the last one takes long."""
TRIED = list(BEGINNINGS)[: None if SOAK else -1]
DEADLY = [way for way, odd in CASES.items() if odd.ends is not False]
VERSIONS = (len(DEADLY) + 1) // 2
GENTLE = [way for way in CASES if way not in DEADLY]
GROUPS = (
    [[[way]] for way in CASES]
    if SOAK
    else [[GENTLE], [DEADLY[at : at + 2] for at in range(0, len(DEADLY), 2)]]
)
"""Chains of ways that are asked for at a time, each way of a chain after the one before."""


@dataclass(frozen=True)
class Street:
    """A node with an odd model and a neighbour.

    Two deadly ways share a version: one that dies for a third time is left alone for a while,
    which another test looks at.
    """

    node: Node
    odd: str
    neighbour: str
    beginner: str
    begins: Path

    def call(self, way: str) -> Call:
        number = 1 + DEADLY.index(way) // 2 if way in DEADLY else 1
        return Call(self.odd, 0, selector=str(number))


@pytest.fixture(scope="module")
def street(
    mlflow_registry: MlflowServer, module_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Street]:
    registry = Registry(mlflow_registry.url)
    odd, neighbour, beginner = map(registry.name, ("odd", "neighbour", "beginner"))
    begins = tmp_path_factory.mktemp("begins") / "oddly"
    registry.client.create_registered_model(odd, tags={"gateway.timeout_s": TIMEOUT_S})
    registry.client.create_registered_model(beginner, tags={"gateway.load": "on_demand"})
    registry.publish(neighbour, LinearModel())
    for name, model, versions in (
        (beginner, OddModel(begins_oddly=str(begins)), len(TRIED)),
        (odd, OddModel(), VERSIONS),
    ):
        registry.publish(name, model)
        for _ in range(1, versions):
            registry.publish_again(name, 1)
    street = Street(module_node.start(), odd, neighbour, beginner, begins)
    asyncio.run(_settle(street))
    yield street
    registry.forget()


async def _settle(street: Street) -> None:
    async with client(2) as http:
        await street.node.active(http, street.neighbour, "latest", 1)
        await street.node.active(http, street.odd, "latest", VERSIONS)
        await street.node.catalogue_shows(http, street.beginner, len(TRIED))


@pytest.mark.parametrize("chains", GROUPS, ids=lambda chains: chains[0][0])
async def test_it_costs_its_own_caller_at_most(street: Street, chains: list[list[str]]) -> None:
    async with client(16) as http, _neighbours(http, street) as traffic:
        await _go_on(traffic)
        async with asyncio.TaskGroup() as group:
            for chain in chains:
                group.create_task(_all_of(http, street, chain))
        await _go_on(traffic)


async def _all_of(http: httpx.AsyncClient, street: Street, chain: list[str]) -> None:
    for way in chain:
        await _costs_its_own_caller(http, street, way)


async def _costs_its_own_caller(http: httpx.AsyncClient, street: Street, way: str) -> None:
    odd, call, sound = CASES[way], street.call(way), OddModel().payload()
    first = await ask(http, street.node.url, call, sound)
    assert first.ok, describe([first])
    worker, loads = await _worker(http, street, call), await _loads(http, street, call)
    before = children(worker)
    expected_children = odd.children + (0 if odd.ends else _children(worker))
    got = await ask(http, street.node.url, call, OddModel().oddly(way))
    assert (got.status, got.code) == (odd.status, odd.code), (way, describe([got]))
    if odd.ends:
        await eventually_true(lambda: not alive(worker), f"{way}: the worker ends")
    if odd.ends is None:
        await _answered(http, street, call)
        return
    after = await ask(http, street.node.url, call, sound)
    loads = await _loads(http, street, call) - loads
    now = await _worker(http, street, call)
    await eventually_true(
        lambda: _children(now) == expected_children, f"{way}: forks that return have ended"
    )
    if got.ok:
        assert got.predictions == OddModel().expected(OddModel().oddly(way)), way
    assert after.predictions == OddModel().expected(sound), (way, describe([after]))
    assert (now != worker, loads) == (odd.ends, float(odd.ends)), way
    if odd.ends:
        await eventually_true(
            lambda: not any(map(alive, before)), f"{way}: its children end with the worker"
        )


async def _answered(http: httpx.AsyncClient, street: Street, call: Call) -> None:
    """Wait until a call is answered right: by the worker that is left, or by the next one."""
    sound = OddModel().payload()

    async def look() -> bool:
        answer = await ask(http, street.node.url, call, sound)
        return bool(answer.predictions == OddModel().expected(sound))

    await eventually(look, "it is answered right again")


async def test_what_it_does_before_it_serves_costs_its_own_callers_only(street: Street) -> None:
    async with client(8) as http, _neighbours(http, street) as traffic:
        await _go_on(traffic)
        for version, beginning in enumerate(TRIED, 1):
            odd, sound = BEGINNINGS[beginning], OddModel().payload()
            street.begins.write_text(" ".join(beginning))
            call = Call(street.beginner, 0, selector=str(version))
            got = await ask(http, street.node.url, call, sound)
            assert (got.status, got.code) == (odd.status, odd.code), (beginning, describe([got]))
            if got.ok:
                assert got.predictions == OddModel().expected(sound), beginning
            elif beginning == ("load", "eat"):
                assert "more memory than a worker may have, 256 MiB" in got.body["detail"]
        await _go_on(traffic)


async def test_what_it_prints_drowns_no_log(street: Street) -> None:
    async with client(8) as http:
        call = Call(street.odd, 0, selector="2")  # its output is open
        assert street.node.gateway is not None
        log = street.node.gateway.log
        assert (await ask(http, street.node.url, call, OddModel().payload())).ok
        before = log.stat().st_size
        for _ in range(3):
            assert (await ask(http, street.node.url, call, OddModel().oddly("print_much"))).ok
        worker = await _worker(http, street, call)
    os.kill(worker, signal.SIGKILL)
    await eventually_true(
        lambda: "left_out_bytes" in log.read_text()[before:], "the log says how much it left out"
    )
    text = log.read_text()[before:]
    assert "the model says its line number" in text
    assert len(text) < 3 * 20_000 * len("the model says its line number 10000") / 4


def test_the_table_says_what_is_tested() -> None:
    text = (Path(__file__).parent / "README.md").read_text()
    rows = re.findall(r"^\| `([\w, ]+)` \|[^|]*\| (\d{3})(?: `(\w+)`)?", text, re.MULTILINE)
    said = {way: (int(status), code or None) for way, status, code in rows}
    tested = {way: (odd.status, odd.code) for way, odd in CASES.items()}
    for (phase, way), odd in BEGINNINGS.items():
        tested[f"{phase}, {way}"] = (odd.status, odd.code)
    assert said == tested
    assert tuple(CASES) == ODD_WAYS


# --- the neighbour ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _neighbours(http: httpx.AsyncClient, street: Street) -> AsyncIterator[Traffic]:
    """Callers of the neighbour, all of whom are answered right, by one worker."""
    url, answers = street.node.url, row_answers(1.0)
    first = await ask(http, url, Call(street.neighbour, 0, selector="1"), row_body(0))
    assert first.ok, describe([first])
    worker = await _worker(http, street, first.call)
    callers = [asks(street.neighbour, "1")] * NEIGHBOURS
    async with Traffic(http, url, callers, lambda call: row_body(call.row)) as traffic:
        yield traffic
    wrong = [one for one in traffic.answers if one.predictions != [answers[one.call.row]]]
    assert not wrong, describe(wrong)
    assert await _worker(http, street, first.call) == worker


async def _go_on(traffic: Traffic) -> None:
    """Wait until the neighbour has answered some more."""
    enough = len(traffic.answers) + ANSWERS
    await eventually_true(lambda: len(traffic.answers) >= enough, "the neighbour goes on")


def _children(pid: int) -> int:
    return sum(map(alive, children(pid)))


async def _loads(http: httpx.AsyncClient, street: Street, call: Call) -> float:
    """How many workers have come up for what this call asks."""
    labels = {"model": call.model, "version": str(call.selector)}
    return await street.node.metric(http, "gateway_loads_total", **labels)


async def _worker(http: httpx.AsyncClient, street: Street, call: Call) -> int:
    """The pid of the worker that answers this call."""
    document = await street.node.version(http, call.model, int(call.selector or 0))
    return int(document["replicas"][0]["pid"])
