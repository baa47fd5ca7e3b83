"""An alias moves while eight clients call: by alias, by number and without a version."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import (
    ANSWERS_BETWEEN_PROMOTIONS,
    PROMOTION_CALLERS,
    PROMOTION_ROUND_TRIPS,
)
from tests.acceptance.surface import active_version
from tests.acceptance.traffic import Answer, Choose, Traffic, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel

ALIAS = "champion"


@dataclass
class Watch:
    """What ``GET /models/{m}`` shows, asked again and again: when each version first appeared."""

    node: Node
    http: httpx.AsyncClient
    model: str
    shown: list[tuple[float, int]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            document = await self.node.model(self.http, self.model)
            version = active_version(document, ALIAS)
            if version is not None and (not self.shown or self.shown[-1][1] != version):
                self.shown.append((time.monotonic(), version))
            await asyncio.sleep(0.01)


def _callers(model: str) -> list[Choose]:
    """By alias, without a version, and by number."""
    return [
        asks(model, f"@{ALIAS}"),
        asks(model, header=ALIAS),
        asks(model, f"@{ALIAS}", header=ALIAS),
        asks(model),
        asks(model),
        asks(model, "1"),
        asks(model, "2"),
        asks(model, header="1"),
    ]


def _by_number(answer: Answer) -> int | None:
    """The version that a caller asked for by its number."""
    asked = answer.call.selector or answer.call.header or ALIAS
    return int(asked) if asked.isdigit() else None


async def test_an_alias_goes_to_and_fro_and_every_answer_is_right(
    running_node: Node, registry: Registry
) -> None:
    node, model = running_node, registry.name("promoted")
    expected = {
        registry.publish(model, LinearModel(slope)): row_answers(slope) for slope in (1.0, 2.0)
    }
    registry.point(model, ALIAS, 1)
    moves: list[tuple[float, int]] = []

    async with client(PROMOTION_CALLERS) as http, client(2) as watching:
        watch = Watch(node, watching, model)
        watcher = asyncio.create_task(watch.run())
        try:
            await eventually_true(lambda: watch.shown, "version 1 is active for the first time")
            callers = _callers(model)
            assert len(callers) == PROMOTION_CALLERS
            async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
                for target in [2, 1] * PROMOTION_ROUND_TRIPS:
                    moves.append((time.monotonic(), target))
                    await asyncio.to_thread(registry.point, model, ALIAS, target)
                    await _answers_come_from(traffic, watch, target, len(moves) + 1)
        finally:
            watcher.cancel()

    wrong = [a for a in traffic.answers if not a.ok]
    assert not wrong, f"failed requests: {describe(wrong)}"
    for answer in traffic.answers:
        assert answer.version is not None
        assert answer.predictions == [expected[answer.version][answer.call.row]], answer
        assert answer.body["model_version"] == answer.version, answer
        assert _by_number(answer) in {None, answer.version}, answer
    _assert_no_answer_from_the_past(traffic.answers, watch.shown, moves)
    _assert_the_test_could_fail(traffic.answers, watch.shown)


async def _answers_come_from(traffic: Traffic, watch: Watch, target: int, changes: int) -> None:
    """Wait until the version is shown as active and has answered callers by alias for a while."""

    async def shown() -> bool:
        return len(watch.shown) >= changes and watch.shown[-1][1] == target

    await eventually(shown, f"version {target} is shown as active")
    seen_at = watch.shown[-1][0]

    def enough() -> bool:
        late = traffic.count(lambda a: a.sent_at > seen_at and _by_number(a) is None)
        return late >= ANSWERS_BETWEEN_PROMOTIONS

    await eventually_true(enough, "enough answers between two promotions")


def _assert_no_answer_from_the_past(
    answers: list[Answer], shown: list[tuple[float, int]], moves: list[tuple[float, int]]
) -> None:
    """Between the first sight of a version and the next move, callers by alias get that version."""
    assert [version for _, version in shown] == [1, *(version for _, version in moves)]
    checked = 0
    ends = [*(moved_at for moved_at, _ in moves), float("inf")]
    for (seen_at, version), end in zip(shown, ends, strict=True):
        for answer in answers:
            if _by_number(answer) is None and answer.sent_at > seen_at and answer.done_at < end:
                assert answer.version == version, (answer, seen_at, end)
                checked += 1
    assert checked >= ANSWERS_BETWEEN_PROMOTIONS * len(moves)


def _assert_the_test_could_fail(answers: list[Answer], shown: list[tuple[float, int]]) -> None:
    """Both versions answered callers by alias, under each of their generations."""
    by_alias = Counter(a.version for a in answers if _by_number(a) is None)
    assert set(by_alias) == {1, 2}, by_alias
    assert len(shown) == 2 * PROMOTION_ROUND_TRIPS + 1
    generations = {a.generation: a.version for a in answers if _by_number(a) is None}
    turns = [version for _, version in sorted(generations.items())]
    changes = sum(1 for one, following in itertools.pairwise(turns) if one != following)
    assert changes == 2 * PROMOTION_ROUND_TRIPS, generations
    numbered = Counter(a.version for a in answers if _by_number(a) is not None)
    assert set(numbered) == {1, 2}, numbered
