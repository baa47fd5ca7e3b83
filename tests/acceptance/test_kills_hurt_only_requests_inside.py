"""``kill -9`` of a worker and of the forkserver, under traffic."""

import asyncio
import os
import select
import signal
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.processes import alive
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import (
    ANSWERS_BETWEEN_KILLS,
    FORKSERVER_KILLS,
    KILL_CALLERS,
    KILLS,
)
from tests.acceptance.traffic import (
    ROWS,
    Answer,
    Call,
    Choose,
    Traffic,
    ask,
    asks,
    client,
    describe,
)
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import ScriptedModel

ROOM = sum(count + 1 for count, _ in KILLS) + FORKSERVER_KILLS + 2
"""A worker for each model of these tests: the often called of one outlast the new ones of the next.
Dead workers that kept their places would fill the rest before the last kill."""
GATEWAY = {"GATEWAY_MAX_RESIDENT": str(ROOM)}
PREDICT_S = 0.05
"""How long each prediction takes, so that a killed worker has requests inside."""


@dataclass(frozen=True)
class Death:
    """A process that was killed: what it served, when the blow fell, when it was gone."""

    model: str | None
    before: float
    gone: float

    def explains(self, answer: Answer) -> bool:
        """Whether this request may have been inside when the worker died."""
        theirs = self.model in {None, answer.call.model}
        return theirs and answer.sent_at <= self.gone and answer.done_at >= self.before


async def kill_and_see(pid: int, model: str | None) -> Death:
    """``kill -9``; return once the process is gone."""
    descriptor = os.pidfd_open(pid)
    try:
        before = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(select.select, [descriptor], [], [], 30)
        return Death(model, before, time.monotonic())
    finally:
        os.close(descriptor)


async def _serving(
    node: Node, registry: Registry, http: httpx.AsyncClient, scale: float
) -> tuple[str, ScriptedModel]:
    """A registered model with a resident version 1."""
    model = ScriptedModel(scale=scale, predict_sleep_s=PREDICT_S)
    name = registry.name(f"mortal{scale:g}")
    version = await asyncio.to_thread(registry.publish, name, model)
    await node.catalogue_shows(http, name, version)
    answer = await ask(http, node.url, Call(name, 0, selector="1"), x_body(1.0))
    assert answer.ok, answer
    return name, model


async def _pid_of(node: Node, http: httpx.AsyncClient, name: str) -> int | None:
    document = (await http.get(f"{node.url}/models/{name}/versions/1")).json()
    ready = [replica["pid"] for replica in document["replicas"] if replica["state"] == "ready"]
    return ready[0] if ready else None


def _assert_right(traffic: Traffic, models: dict[str, ScriptedModel]) -> None:
    for answer in traffic.answers:
        if answer.ok:
            right = models[answer.call.model].expected(x_body(float(answer.call.row)))
            assert answer.predictions == right, answer


def _assert_explained(traffic: Traffic, deaths: list[Death]) -> list[Answer]:
    """Every failure is a 503 of a request that was inside a killed worker; return them."""
    failed = [answer for answer in traffic.answers if not answer.ok]
    strange = [answer for answer in failed if answer.status != 503]
    assert not strange, describe(strange)
    unexplained = [a for a in failed if not any(death.explains(a) for death in deaths)]
    assert not unexplained, f"{describe(unexplained)}\n{deaths}"
    assert {answer.code for answer in failed} <= {"worker_died"}, describe(failed)
    return failed


@pytest.mark.parametrize(("count", "kills_of_each"), KILLS)
async def test_only_requests_inside_a_killed_worker_fail(
    module_node: Node, registry: Registry, count: int, kills_of_each: int
) -> None:
    node = module_node.start()
    async with client(KILL_CALLERS) as http, client(2) as watching:
        scales = [float(scale) for scale in range(2, count + 3)]
        models = dict([await _serving(node, registry, watching, scale) for scale in scales])
        bystander, *victims = models
        callers = [asks(bystander, "1"), _asks_any(victims)] * (KILL_CALLERS // 2)
        deaths: list[Death] = []
        bystander_pid = await _pid_of(node, watching, bystander)
        body = lambda call: x_body(float(call.row))  # noqa: E731  # one line says it
        async with Traffic(http, node.url, callers, body) as traffic:
            for victim in victims * kills_of_each:
                await _goes_on(traffic, [bystander, victim], time.monotonic())
                pid = await eventually(
                    partial(_pid_of, node, watching, victim), "its worker is ready"
                )
                deaths.append(await kill_and_see(pid, victim))
                await _goes_on(traffic, [bystander, victim], deaths[-1].gone)
        assert await _pid_of(node, watching, bystander) == bystander_pid

    _assert_right(traffic, models)
    failed = _assert_explained(traffic, deaths)
    assert failed, "no request was inside a killed worker: the test proves nothing"
    assert bystander not in {answer.call.model for answer in failed}


def _asks_any(models: list[str]) -> Choose:
    return lambda dice: Call(dice.choice(models), dice.randrange(ROWS), "1")


async def test_the_forkserver_is_killed_and_versions_go_on(
    module_node: Node, registry: Registry
) -> None:
    node = module_node.start()
    async with client(KILL_CALLERS) as http, client(2) as watching:
        models = dict([await _serving(node, registry, watching, scale) for scale in (3.0, 5.0)])
        names = list(models)
        callers = [asks(name, "1") for name in names * (KILL_CALLERS // 2)]
        deaths: list[Death] = []
        body = lambda call: x_body(float(call.row))  # noqa: E731  # one line says it
        async with Traffic(http, node.url, callers, body) as traffic:
            for turn in range(FORKSERVER_KILLS):
                await _goes_on(traffic, names, time.monotonic())
                workers = [
                    await eventually(partial(_pid_of, node, watching, name), "its worker is ready")
                    for name in models
                ]
                forkserver = node.forkserver().pid
                blow = await kill_and_see(forkserver, None)
                # A new model needs a new worker, so a new forkserver.
                late, late_model = await _serving(node, registry, watching, 10.0 + turn)
                models[late] = late_model
                assert node.forkserver().pid != forkserver
                if any(not alive(pid) for pid in workers):
                    deaths.append(blow)
                await _goes_on(traffic, names, time.monotonic())

    _assert_right(traffic, models)
    _assert_explained(traffic, deaths)


async def _goes_on(traffic: Traffic, models: list[str], since: float) -> None:
    """Wait until each of the models has answered many requests that were sent after ``since``."""

    def enough() -> bool:
        late = Counter(a.call.model for a in traffic.answers if a.ok and a.sent_at > since)
        return all(late[name] >= ANSWERS_BETWEEN_KILLS for name in models)

    await eventually_true(enough, "every model answers by itself")
