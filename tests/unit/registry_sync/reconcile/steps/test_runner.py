"""How many steps are under way at a time, of a kind and of a model."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry_sync.planning.actions import Action, BuildEnvironment, Fetch, Urgency
from registry_sync.planning.waiting_actions import StartOutcome
from registry_sync.reconcile.steps.backoff import Backoff
from registry_sync.reconcile.steps.runner import Steps

D = "sha256:" + "1" * 64


def fetch(model: str, version: int, urgency: Urgency = Urgency.PREFETCH) -> Fetch:
    return Fetch(model, version, urgency)


def build(model: str, version: int) -> BuildEnvironment:
    return BuildEnvironment(model, version, D, Urgency.PREFETCH)


class Executor:
    """Goes on until it is cancelled."""

    async def __call__(self, *_: object) -> None:
        await asyncio.Event().wait()

    def may_overtake(self, *_: object) -> bool:
        return False


def steps() -> Steps:
    def clock() -> float:
        return 0.0

    context = SimpleNamespace(clock=clock, changes=SimpleNamespace(note=lambda _: None))
    return Steps(
        cast("Any", context), cast("Any", Executor()), Backoff(clock=clock, jitter=lambda: 0.0)
    )


@pytest.mark.parametrize(
    ("doing", "action", "expected"),
    [
        ([], fetch("a", 1), StartOutcome.BEGUN),
        ([fetch("a", 1)], fetch("a", 1), StartOutcome.WAITS),
        ([fetch("a", 1)], fetch("a", 2), StartOutcome.BEGUN),
        ([fetch("a", 1), fetch("a", 2)], fetch("a", 3), StartOutcome.WAITS),
        ([fetch("a", 1), fetch("a", 2)], fetch("b", 1), StartOutcome.BEGUN),
        ([fetch("a", 1), fetch("a", 2)], build("a", 1), StartOutcome.BEGUN),
        ([fetch("a", 1), fetch("b", 1), fetch("c", 1)], fetch("d", 1), StartOutcome.NO_SLOT),
        (
            [fetch("a", 1), fetch("b", 1), fetch("c", 1)],
            fetch("d", 1, Urgency.WANTED),
            StartOutcome.BEGUN,
        ),
        ([build("a", 1)], build("a", 2), StartOutcome.WAITS),
        ([build("a", 1)], build("b", 1), StartOutcome.NO_SLOT),
    ],
)
async def test_what_begins_beside_what_is_under_way(
    doing: list[Action], action: Action, expected: StartOutcome
) -> None:
    running = steps()
    assert {running.start(one) for one in doing} <= {StartOutcome.BEGUN}
    assert running.start(action) is expected
    await running.end()
    assert not running.busy
