"""Registered models deleted, or renamed away, and made anew under their name, under traffic.

Aliases of other models are withdrawn beside them: one restart of the control plane is for both.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry_sync.domain.tags import DIGEST_TAG
from tests.acceptance.conftest import NodeMaker
from tests.acceptance.node import Node
from tests.acceptance.registry import Registry, row_answers, row_body
from tests.acceptance.scale import ANEW_LEDGERS, SOAK
from tests.acceptance.surface import alias_of
from tests.acceptance.traffic import Answer, Traffic, asks, client, describe
from tests.acceptance.waiting import eventually, eventually_true
from tests.models.catalogue import LinearModel
from tests.servers import Postgres

ALIAS = "champion"
OLD, NEW = 1.0, 2.0
ENOUGH_ANSWERS = 5
PASSES = 3
WRONG = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Way:
    """How one registered model is made anew.

    Attributes:
        seen: Whether listings see that it is gone, before it is there again.
        logged: Whether its new version is logged, and not the copy of another model's.
        renamed: Whether it is renamed away, and not deleted.
        stamp: ``right``, ``wrong``, or empty: not stamped at all.
    """

    seen: bool
    logged: bool
    renamed: bool
    stamp: str = ""

    @property
    def word(self) -> str:
        return "-".join(
            (
                "seen" if self.seen else "unseen",
                "logged" if self.logged else "copied",
                "renamed" if self.renamed else "deleted",
                self.stamp or "unstamped",
            )
        )


WAYS = (
    *(
        Way(seen, logged=not renamed, renamed=renamed, stamp=stamp)
        for seen, renamed, stamp in product((True, False), (True, False), ("right", ""))
        if SOAK or (seen ^ renamed) is bool(stamp)
    ),
    Way(seen=False, logged=False, renamed=False, stamp="wrong"),
)
"""In short runs any two of the three are met in every combination."""


@dataclass
class Corner:
    """The models of one test: what they mean before, and after."""

    node: Node
    registry: Registry
    moulds: dict[float, str]
    names: dict[Way, str]
    root: Path

    def publish(self, way: Way, slope: float) -> None:
        """Register version 1 of a model, stamped or not, with the alias at it."""
        name = self.names[way]
        if way.logged:
            version = self.registry.publish(name, LinearModel(slope))
        else:
            version = self.copy(name, slope)
        assert version == 1
        if way.stamp == "wrong" and slope == NEW:
            self.registry.client.set_model_version_tag(name, "1", DIGEST_TAG, WRONG)
        elif way.stamp:
            self.registry.stamp(name, 1, self.root)
        self.registry.point(name, ALIAS, 1)

    def copy(self, name: str, *slopes: float) -> int:
        """Register a model whose versions are copies of others; the last version's number."""
        self.registry.client.create_registered_model(name)
        versions = [self.registry.publish_as(name, self.moulds[slope], 1) for slope in slopes]
        return versions[-1]

    def remove(self, way: Way) -> None:
        name = self.names[way]
        if way.renamed:
            self.registry.client.rename_registered_model(name, self.registry.name(f"was-{name}"))
        else:
            self.registry.client.delete_registered_model(name)

    async def shown(self, http: httpx.AsyncClient, way: Way) -> dict[str, Any]:
        return await self.node.version(http, self.names[way], 1)


@pytest.fixture(scope="module", params=ANEW_LEDGERS)
def node(request: pytest.FixtureRequest, make_module_node: NodeMaker) -> Iterator[Node]:
    control = {}
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgresql_server")
        control["REGISTRY_SYNC_DATABASE_URL"] = server.empty_database()
    made = make_module_node(gateway={"GATEWAY_MAX_RESIDENT": "40"}, control=control).start()
    yield made
    made.stop_control()


@pytest.fixture
async def corner(node: Node, registry: Registry, mlflow_root: Path) -> Corner:
    moulds = {slope: registry.name(f"mould-{slope:g}") for slope in (OLD, NEW)}
    for slope, name in moulds.items():
        registry.publish(name, LinearModel(slope))
    names = {way: registry.name(way.word) for way in WAYS}
    made = Corner(node, registry, moulds, names, mlflow_root)
    with node.control_paused():
        for way in WAYS:
            await asyncio.to_thread(made.publish, way, OLD)
    return made


async def test_models_made_anew_are_served_anew_and_aliases_that_were_withdrawn_do_not_come_back(
    corner: Corner,
) -> None:
    async with _withdrawn_aliases(corner):
        await _made_anew(corner)


async def _made_anew(corner: Corner) -> None:
    """A version made anew is served anew; its number never answers with the old bytes."""
    node, names = corner.node, corner.names
    unseen = [way for way in WAYS if not way.seen]
    seen = [way for way in WAYS if way.seen]
    over_at: dict[Way, float] = {}
    async with client(4 * len(WAYS)) as http, client(4) as watching:
        for way in WAYS:
            await node.active(watching, names[way], ALIAS, 1)
        before = {way: (await corner.shown(watching, way))["digest"] for way in WAYS}

        async def watch(way: Way) -> None:
            """Note when the gateway has been told of the new creation."""

            async def other() -> bool:
                shown = await corner.shown(watching, way)
                return (
                    bool(shown) and shown["state"] != "deleted" and _told_anew(shown, before[way])
                )

            await eventually(other, f"{way.word} is made anew", patience_s=180)
            over_at[way] = time.monotonic()

        callers = [asks(name, word) for name in names.values() for word in (f"@{ALIAS}", "1")]
        async with (
            Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic,
            asyncio.TaskGroup() as watches,
        ):
            await eventually_true(
                lambda: len(traffic.answers) > ENOUGH_ANSWERS * len(callers), "callers are answered"
            )
            node.stop_control()
            for way in WAYS:
                await asyncio.to_thread(corner.remove, way)
            for way in unseen:
                await asyncio.to_thread(corner.publish, way, NEW)
            for way in WAYS:
                watches.create_task(watch(way))
            node.start_control()
            for way in seen:
                await _until_last(traffic, names[way], lambda last: last.status == 404)
            for way in seen:
                await asyncio.to_thread(corner.publish, way, NEW)
            for way in WAYS:
                if way.stamp != "wrong":
                    await _until_last(traffic, names[way], lambda last: _is(last, NEW))
            await node.passes(watching, PASSES)
            count = len(traffic.answers) + ENOUGH_ANSWERS * len(callers)
            await eventually_true(lambda: len(traffic.answers) > count, "callers go on")
        shown = {way: await node.model(watching, names[way]) for way in WAYS}

    by_caller: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in traffic.answers:
        by_caller[answer.call.model, answer.call.selector or ""].append(answer)
    for way in WAYS:
        _check_alias(way, by_caller[names[way], f"@{ALIAS}"])
        _check_number(way, by_caller[names[way], "1"], over_at[way])
    history = await asyncio.to_thread(node.command, "history", "--limit", "500", "--json")
    entries = json.loads(history.stdout)["entries"]
    anew = {entry["model"] for entry in entries if entry["what"] == "made anew"}
    assert set(names.values()) <= anew
    for way in WAYS:
        why = alias_of(shown[way], ALIAS)
        if way.stamp == "wrong":
            assert WRONG in why["why"], why
            explained = await asyncio.to_thread(node.command, "explain", names[way], f"@{ALIAS}")
            assert "made anew" in explained.stdout, explained.stdout


def _told_anew(shown: dict[str, Any], before: str) -> bool:
    return bool(shown["state"] == "quarantined" or shown["digest"] != before)


def _last(traffic: Traffic, name: str, selector: str) -> Answer:
    return next(
        answer
        for answer in reversed(traffic.answers)
        if (answer.call.model, answer.call.selector) == (name, selector)
    )


async def _until_last(traffic: Traffic, name: str, test: Callable[[Answer], bool]) -> None:
    """Wait until the last caller of the alias was answered so."""
    await eventually_true(
        lambda: test(_last(traffic, name, f"@{ALIAS}")),
        f"callers of {name}@{ALIAS} are answered otherwise",
    )


def _is(answer: Answer, slope: float) -> bool:
    return answer.ok and answer.predictions == [_right(slope)[answer.call.row]]


@cache
def _right(slope: float) -> list[float]:
    return row_answers(slope)


def _check_alias(way: Way, answers: list[Answer]) -> None:
    """The old bytes serve until the new ones do; refused are only callers of what is not there."""
    refused = [answer for answer in answers if not answer.ok]
    expected = {404, 503} if way.seen else set()
    wrong = [answer for answer in refused if answer.status not in expected]
    assert not wrong, (way.word, describe(wrong))
    strange = [a for a in answers if a.ok and not (_is(a, OLD) or _is(a, NEW))]
    assert not strange, (way.word, describe(strange))
    new = [answer for answer in answers if _is(answer, NEW)]
    if way.stamp == "wrong":
        assert not new, (way.word, describe(new))
        return
    first_new = min(answer.done_at for answer in new)
    back = [answer for answer in answers if answer.sent_at > first_new and not _is(answer, NEW)]
    assert not back, (way.word, describe(back))


def _check_number(way: Way, answers: list[Answer], over_at: float) -> None:
    """Once the gateway was told of the new creation, its number never means the old bytes."""
    strange = [a for a in answers if a.ok and not (_is(a, OLD) or _is(a, NEW))]
    assert not strange, (way.word, describe(strange))
    late = [answer for answer in answers if answer.sent_at > over_at]
    assert late, way.word
    if way.stamp == "wrong":
        wrong = [answer for answer in late if answer.code != "version_quarantined"]
    else:
        wrong = [answer for answer in late if not _is(answer, NEW)]
    assert not wrong, (way.word, describe(wrong))
    refused = [a for a in answers if not a.ok and a.status not in {404, 410, 503}]
    assert not refused, (way.word, describe(refused))


@asynccontextmanager
async def _withdrawn_aliases(corner: Corner) -> AsyncIterator[None]:
    """An alias that was withdrawn does not come back as if it had been lost.

    One is set anew at a version that is quarantined, the version of the other is gone: two models.
    The block restarts the control plane.
    """
    node, registry = corner.node, corner.registry
    names = [registry.name("withdrawn-quarantined"), registry.name("withdrawn-gone")]
    quarantined, gone = names
    with node.control_paused():
        for name in names:
            corner.copy(name, OLD, NEW)
            registry.point(name, ALIAS, 1)
        registry.client.set_model_version_tag(quarantined, "2", DIGEST_TAG, WRONG)
    gone_at: dict[str, float] = {}
    async with client(4) as http, client(2) as watching:
        for name in names:
            await node.active(watching, name, ALIAS, 1)
        callers = [asks(name, f"@{ALIAS}") for name in names]
        async with Traffic(http, node.url, callers, lambda call: row_body(call.row)) as traffic:
            await eventually_true(lambda: len(traffic.answers) > 2 * ENOUGH_ANSWERS, "calls")
            for name in names:
                registry.client.delete_registered_model_alias(name, ALIAS)
            for name in names:
                await _until_last(traffic, name, lambda last: last.status == 404)
                gone_at[name] = time.monotonic()
            registry.point(quarantined, ALIAS, 2)
            registry.client.delete_model_version(gone, "2")
            await node.passes(watching, PASSES)
            assert node.control is not None
            before = node.control.pid
            yield
            assert node.control.pid != before, "the control plane was started again"
            await node.passes(watching, PASSES)
            count = len(traffic.answers) + 2 * ENOUGH_ANSWERS
            await eventually_true(lambda: len(traffic.answers) > count, "callers go on")
    for name in names:
        answers = [answer for answer in traffic.answers if answer.call.model == name]
        back = [a for a in answers if a.sent_at > gone_at[name] and a.ok]
        assert not back, describe(back)
        before_that = [a for a in answers if a.sent_at < gone_at[name] and a.ok]
        assert before_that
        assert all(_is(answer, OLD) for answer in before_that)
