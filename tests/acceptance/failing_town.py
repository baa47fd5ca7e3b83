"""A node with more models than places, in whose gateway something fails for a while."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import ANSWERS_WHILE_FAILING, FAILING_LOAD_BUDGET_S
from tests.acceptance.traffic import ROWS, Answer, Call, Traffic, ask, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

MODELS = 4
PLACES = 3
"""One fewer than models: there is always one to load and one to evict."""
CALLERS = 4
ALIAS = "champion"
SETTINGS = {
    "GATEWAY_MAX_RESIDENT": str(PLACES),
    "GATEWAY_PROBE_INTERVAL_S": "0.5",
    "GATEWAY_LOAD_BUDGET_S": FAILING_LOAD_BUDGET_S,
    # A promotion whose workers die is rolled back: that is not tested here.
    "GATEWAY_OBSERVATION_WINDOW_S": "0",
}
REFUSALS = {429, 500, 503, 504, 507}
SPARE_DESCRIPTORS = 4
"""More than at the beginning: kept-alive connections of the control plane come and go."""


class Fault(Protocol):
    """Something that fails in the gateway from `begin` to `end`."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def happened(self) -> int:
        """Return how often it has failed since it began."""
        ...


def slope(number: int, version: int) -> float:
    """Return what a version of a model multiplies with: no two have the same."""
    return float((number + 1) * 10 + version)


@dataclass(frozen=True)
class Town:
    """The node.

    Attributes:
        names: Models with two versions each; `slope` says what they answer.
        descriptors_before: What the gateway's descriptors led to before the first fault: one
            measure for all of them, so that what each leaves taken adds up.
    """

    node: Node
    registry: Registry
    names: list[str]
    descriptors_before: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The gateway's."""
        assert self.node.gateway is not None
        return self.node.gateway.pid

    def descriptors(self) -> list[str]:
        """Return what the gateway's descriptors lead to; of sockets and the like, the kind."""
        found = []
        for one in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.append(str(one.readlink()).partition(":[")[0])
        return found

    async def _begin_anew(self) -> None:
        """Start the gateway anew, with no worker and with few threads."""
        assert self.node.gateway is not None
        await asyncio.to_thread(self.node.gateway.stop)
        (self.node.node_dir / "hot.json").unlink(missing_ok=True)
        await asyncio.to_thread(self.node.start_gateway)

    async def outlives(
        self,
        name: str,
        fault: Fault,
        *,
        anew: bool = False,
        cuts: bool = False,
        unproved: bool = False,
        damage: Callable[[Path], None] | None = None,
    ) -> None:
        """Let a fault happen under traffic: no answer is wrong, and afterwards all is as before.

        Args:
            name: Of the fault, for messages.
            anew: Whether it happens in a gateway that has just started.
            cuts: Whether callers may be left without an answer while it lasts.
            unproved: Whether the alias moves to a version of which nothing is proved yet.
            damage: Damages a file of the node's folder while it lasts.
        """
        async with client(CALLERS) as http, client(2) as watching:
            await self._all_answer(watching)
            if not self.descriptors_before:
                self.descriptors_before.extend(self.descriptors())
            if anew:
                await self._begin_anew()
            pid = self.pid
            promoted = random.Random(name).choice(self.names)
            shown = await self.node.model(watching, promoted)
            target = 2 if shown and shown["aliases"][ALIAS]["active"] == 1 else 1
            if unproved:
                target = self._publish_next(promoted)

            def any_call(dice: random.Random) -> Call:
                return Call(dice.choice(self.names), dice.randrange(ROWS), f"@{ALIAS}")

            async with Traffic(
                http,
                self.node.url,
                [any_call] * CALLERS,
                lambda call: row_body(call.row),
                seed=len(name),
            ) as traffic:
                fault.begin()
                try:
                    if damage is not None:
                        damage(self.node.node_dir)
                    self.registry.point(promoted, ALIAS, target)
                    self._provoke()
                    await eventually_true(fault.happened, f"{name} fails in the gateway")
                    enough = len(traffic.answers) + ANSWERS_WHILE_FAILING
                    await eventually_true(
                        lambda: len(traffic.answers) >= enough, "callers are told"
                    )
                    failed = fault.happened()
                finally:
                    fault.end()
                await self.node.active(watching, promoted, ALIAS, target)
                await self._all_answer(watching)
        print(f"{name} failed {failed} times: {Counter(one.status for one in traffic.answers)}")
        allowed = {200, *REFUSALS, None} if cuts else {200, *REFUSALS}
        wrong = [one for one in traffic.answers if one.status not in allowed]
        assert not wrong, describe(wrong)
        for answer in traffic.answers:
            if answer.ok:
                assert answer.predictions == self._right(answer), answer
        assert self.pid == pid
        assert self.node.gateway is not None
        self.node.gateway.assert_running()
        await self._comes_to_rest(name)

    async def _comes_to_rest(self, name: str) -> None:
        before = self.descriptors_before
        async with client(1) as http:

            async def idle() -> bool:
                counters = ("leases", "in_flight", "in_flight_bytes")
                return not any([await self.node.metric(http, f"gateway_{one}") for one in counters])

            await eventually(idle, f"{name}: the counters are at zero")
        await eventually_true(
            lambda: len(self.node.workers()) <= PLACES, f"{name}: no worker is left"
        )
        try:
            await eventually_true(
                lambda: len(self.descriptors()) <= len(before) + SPARE_DESCRIPTORS,
                f"{name}: no descriptor stays taken",
            )
        except AssertionError as failure:
            more = Counter(self.descriptors()) - Counter(before)
            raise AssertionError(f"{len(before)} at the beginning; more: {more}") from failure

    def _provoke(self) -> None:
        """Kill a worker and the forkserver: both are started anew."""
        for pid in [*self.node.workers_now()[:1], self.node.forkserver().pid]:
            os.kill(pid, 9)

    def _publish_next(self, name: str) -> int:
        """Publish a version like those before it."""
        version = len(self.registry.client.search_model_versions(f"name='{name}'")) + 1
        made = self.registry.publish(name, LinearModel(slope(self.names.index(name), version)))
        assert made == version
        return version

    def _right(self, answer: Answer) -> list[float]:
        """What a version answers to a row."""
        number = self.names.index(answer.call.model)
        return [row_answers(slope(number, answer.version or 0))[answer.call.row]]

    async def _all_answer(self, http: httpx.AsyncClient) -> None:
        for name in self.names:

            async def look(name: str = name) -> bool:
                answer = await ask(http, self.node.url, Call(name, 1, f"@{ALIAS}"), row_body(1))
                return answer.ok and answer.predictions == self._right(answer)

            await eventually(look, f"{name} answers")


@contextmanager
def built(node: Node, registry: Registry) -> Iterator[Town]:
    """Publish the models, and start the node; forget the models in the end."""
    names = [registry.name(f"failing{number}") for number in range(MODELS)]
    for number, name in enumerate(names):
        for version in (1, 2):
            registry.publish(name, LinearModel(slope(number, version)))
        registry.point(name, ALIAS, 1)
    yield Town(node.start(), registry, names)
    registry.forget()
