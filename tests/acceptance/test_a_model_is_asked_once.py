"""Before a model serves it is asked for its example once; what is proved besides, once for all."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, x_body
from tests.acceptance.scale import (
    PROVED_EVICTIONS,
    SLOW_BUDGET_S,
    SLOW_CALL_S,
    THRESHOLD_CALLERS,
    THRESHOLD_REQUESTS,
)
from tests.acceptance.traffic import Answer, Call, ask, client
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import ScriptedModel
from tests.servers import MlflowServer

GATEWAY = {
    "GATEWAY_LOAD_BUDGET_S": str(SLOW_BUDGET_S),
    "ACCEPTANCE_CONSTANTS": '{"STUCK_GRACE_S": 1}',
    "GATEWAY_PROBE_INTERVAL_S": "3600",  # a probe asks for the example too
    "GATEWAY_MAX_RESIDENT": "3",
}
MODELS = {
    "slow": ScriptedModel(scale=2.0, predict_sleep_s=SLOW_CALL_S),
    "ends": ScriptedModel(scale=3.0, exits_from=5),
    "hangs": ScriptedModel(scale=4.0, hangs_from=5),
    "wide": ScriptedModel(scale=5.0, exits_from=300),
    "centred": ScriptedModel(
        scale=6.0, subtract_batch_mean=True, influence_from=21, predict_sleep_s=0.005
    ),
    "forecast": ScriptedModel(scale=7.0, answers="forecast"),
    "best": ScriptedModel(scale=8.0, answers="best", example=(1.0, 2.0)),
    "scalar": ScriptedModel(scale=9.0, answers="scalar"),
    "evicted": ScriptedModel(scale=10.0),
    "other": ScriptedModel(scale=11.0),
    "third": ScriptedModel(scale=12.0),
    "fourth": ScriptedModel(scale=13.0),
}
"""By word; each comes on demand, so that only a caller loads it."""
EXAMPLE_ROWS = 2
TURNS = ("other", "third", "fourth", "evicted")
"""One more than there is room for: each that is asked in its turn evicts another one."""
JOINED_ROWS = {"wide": 192, "centred": 12} | dict.fromkeys(TURNS, 1024)
"""How many rows are joined in the end; of the rest: one."""


class Corner:
    """Models that nobody has asked for yet."""

    def __init__(self, registry: Registry, node: Node, folder: Path) -> None:
        self._registry = registry
        self.node = node
        self.models = {
            word: replace(model, calls_file=str(folder / word)) for word, model in MODELS.items()
        }

    def publish(self) -> None:
        """Register all."""
        for word, model in self.models.items():
            name = self._registry.name(word)
            self._registry.client.create_registered_model(name, tags={"gateway.load": "on_demand"})
            self._registry.publish(name, model)

    def calls(self, word: str) -> list[int]:
        """The rows of all calls of a version 1 by now, in order."""
        return self.models[word].calls()

    async def asked(self, http: httpx.AsyncClient, word: str, *values: float) -> Answer:
        """Ask a version 1 for these values; its answer, which is right."""
        name = self._registry.name(word)
        answer = await ask(http, self.node.url, Call(name, 0, selector="1"), x_body(*values))
        assert answer.ok, answer
        assert answer.predictions == self.models[word].expected(x_body(*values)), answer
        return answer

    async def loads(self, http: httpx.AsyncClient, word: str) -> float:
        """How many workers of a version 1 have come up."""
        name = self._registry.name(word)
        return await self.node.metric(http, "gateway_loads_total", model=name, version="1")

    async def shown(self, http: httpx.AsyncClient, word: str) -> list[dict[str, Any]]:
        """What the catalogue says of the ready workers of a version 1."""
        document = await self.node.version(http, self._registry.name(word), 1)
        return [one for one in document["replicas"] if one["state"] == "ready"]

    async def settled(self, http: httpx.AsyncClient, word: str) -> dict[str, Any]:
        """Wait until nothing is left to prove; what the catalogue says of the worker then.

        On a busy machine a worker may prove no more for now: others make it go, and the next one
        goes on.
        """

        async def look() -> dict[str, Any] | None:
            await self.asked(http, word, 1.0)
            ready = await self.shown(http, word)
            if ready and ready[0]["joined_rows"] == JOINED_ROWS.get(word, 1):
                return ready[0]
            if ready and "no more rows are proved yet" in ready[0]["batching_reason"]:
                for other in TURNS:
                    await self.asked(http, other, 1.0)
            return None

        return await eventually(look, f"{word} is proved as far as it bears", look_every_s=0.5)

    async def known(self, http: httpx.AsyncClient) -> None:
        """Wait until all can be asked for."""
        for word in self.models:
            await self.node.catalogue_shows(http, self._registry.name(word), 1)


@pytest.fixture(scope="module")
def published(
    mlflow_registry: MlflowServer, module_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corner]:
    registry = Registry(mlflow_registry.url)
    corner = Corner(registry, module_node, tmp_path_factory.mktemp("calls"))
    corner.publish()
    module_node.start()
    yield corner
    registry.forget()


@pytest.fixture
async def corner(published: Corner) -> Corner:
    async with client() as http:
        await published.known(http)
    return published


async def test_a_slow_model_serves_within_its_load_warm_up_and_one_prediction(
    corner: Corner,
) -> None:
    async with client() as http:
        await corner.asked(http, "slow", 1.5)
        assert corner.calls("slow") == [EXAMPLE_ROWS, 1], "its warm-up, and the request"
        (shown,) = await corner.shown(http, "slow")
    assert (shown["batching"], shown["answers"]) == ("alone", "unknown")
    assert "GATEWAY_PROOF_BUDGET_S" in shown["batching_reason"]


async def test_evictions_and_reloads_of_a_version_run_its_proof_once(corner: Corner) -> None:
    async with client() as http:
        await corner.settled(http, "evicted")
        proved = corner.calls("evicted")
        assert proved.count(1024) == 1
        loads = await corner.loads(http, "evicted")
        for turn in range(100 * PROVED_EVICTIONS):
            for word in TURNS:
                await corner.asked(http, word, float(turn))
            if await corner.loads(http, "evicted") >= loads + PROVED_EVICTIONS:
                break
        again = corner.calls("evicted")[len(proved) :]
        assert set(again) == {EXAMPLE_ROWS, 1}
        assert again.count(EXAMPLE_ROWS) == await corner.loads(http, "evicted") - loads
        assert again.count(EXAMPLE_ROWS) >= PROVED_EVICTIONS
        (shown,) = await corner.shown(http, "evicted")
    assert (shown["batching"], shown["joined_rows"]) == ("joined", 1024)


@pytest.mark.parametrize("word", ["ends", "hangs", "wide"])
async def test_no_proof_keeps_a_model_from_serving_or_is_tried_for_ever(
    corner: Corner, word: str
) -> None:
    """Its process ends in many rows, or they are never answered: callers never send so many."""
    model = corner.models[word]
    fatal = model.exits_from or model.hangs_from

    def tries() -> int:
        return sum(rows >= fatal for rows in corner.calls(word))

    async with client() as http:
        await corner.asked(http, word, 1.0, 2.0)
        await eventually_true(tries, "many rows are tried")
        shown = await corner.settled(http, word)
    assert shown["batching"] == ("joined" if word == "wide" else "alone")
    assert tries() in {1, 2}


async def test_a_model_whose_rows_influence_each_other_from_21_on_answers_every_request_rightly(
    corner: Corner,
) -> None:
    values = iter([10.0 * number for number in range(THRESHOLD_REQUESTS)])
    async with client(THRESHOLD_CALLERS) as http:

        async def caller() -> int:
            return len([await corner.asked(http, "centred", value) for value in values])

        counts = await asyncio.gather(*(caller() for _ in range(THRESHOLD_CALLERS)))
        assert sum(counts) == THRESHOLD_REQUESTS
        assert len(corner.calls("centred")) < THRESHOLD_REQUESTS, "requests were joined"
        shown = await corner.settled(http, "centred")
    assert shown["batching"] == "joined"
    assert "influence each other" in shown["batching_reason"]


@pytest.mark.parametrize("word", ["forecast", "best", "scalar"])
async def test_answers_that_are_not_one_per_row_are_served_whole(corner: Corner, word: str) -> None:
    async with client() as http:
        bodies = [[float(n + k) for k in range(n % 4 + 1)] for n in range(40)]
        await asyncio.gather(*(corner.asked(http, word, *values) for values in bodies))
        (shown,) = await corner.shown(http, word)
    assert (shown["answers"], shown["batching"]) == ("whole", "alone")
    assert shown["batching_reason"] == "the answers are not one per row"
