"""What a change costs is what its model has, however many models there are."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_sync.ledger import backlog
from registry_sync.planning import catalogue
from registry_sync.reconcile import reconciler
from registry_sync.reconcile.gateway import observation
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.steps import damaged_copies
from registry_sync.reconcile.view import description, signature_cache
from tests.fakes.nodes import NodeInMemory, idle
from tests.fakes.waiting import becomes

MODELS = 60
SOAK = os.environ.get("REGISTRY_GATEWAY_SOAK", "") not in {"", "0"}
ALL = {f"m{number:04}" for number in range(MODELS)}


MEMORIES = (
    (backlog, "_MOST_ACTIVATIONS"),
    (damaged_copies, "_MOST_REMEMBERED"),
    (observation, "_REMEMBERED_PROOFS"),
    (signature_cache, "_REMEMBERED"),
)
"""The control plane's memories with one entry for a model or more."""


class Counted:
    """How often what costs was done, and for which models."""

    def __init__(self, spine: Reconciler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planned: Counter[str] = Counter()
        self.described: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()
        snapshot_of, describe = spine._snapshots.of, catalogue.describe_model

        def count_snapshot(model: str) -> Any:
            self.planned[model] += 1
            return snapshot_of(model)

        def count_described(name: str, *rest: Any) -> Any:
            self.described[name] += 1
            return describe(name, *rest)

        monkeypatch.setattr(spine._snapshots, "of", count_snapshot)
        monkeypatch.setattr(description, "describe_model", count_described)
        for of, name in (
            (spine.ledger, "view"),
            (spine.ledger, "remember_listing"),
            (spine.store, "all"),
            (spine.journal._views, "whole"),
        ):
            monkeypatch.setattr(of, name, self._counting(name, getattr(of, name)))

    def _counting(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            of_some_models = name == "view" and args
            if not of_some_models:
                self.whole[name] += 1
            return work(*args, **kwargs)

        return count


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    made = NodeInMemory(tmp_path)
    for name in sorted(ALL):
        for version in (1, 2):
            made.registry.publish(name, version)
        made.registry.without_latest(name)
        made.registry.point(name, "champion", 1)
    return made


async def at_rest(node: NodeInMemory, spine: Reconciler) -> None:
    """Let all be active, two listings count, and everything be heard and decided on."""
    await becomes(lambda: len(node.gateway.active) == MODELS, "all are active", patience_s=60)
    await spine.poll()  # the second listing, which may mean something for any model
    await idle(spine)
    heard = spine.observation
    await becomes(lambda: heard.heard and heard.heard.seq == node.gateway.seq, "it has heard")
    await idle(spine)


async def test_a_promotion_that_is_hinted_at_touches_its_model_alone(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.control_plane() as spine:
        await at_rest(node, spine)
        counted, snapshots = Counted(spine, monkeypatch), node.gateway.snapshots
        node.gateway.changes.clear()
        differences, observed = node.gateway.differences, node.gateway.observed
        node.registry.point("m0007", "champion", 2)
        spine.hint("m0007", "webhook")
        await becomes(lambda: node.gateway.points("m0007", "champion") == 2, "it is promoted")
        await idle(spine)
        assert counted.planned.keys() == counted.described.keys() == {"m0007"}
        assert counted.whole == {}, "nothing is done for all models"
        assert set(node.gateway.changes) == {"m0007"}
        assert node.gateway.snapshots == snapshots
        told = node.gateway.observed - observed
        assert told == node.gateway.differences - differences > 0


async def test_a_promotion_that_a_poll_finds_touches_its_model_alone(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.control_plane() as spine:
        await at_rest(node, spine)
        counted = Counted(spine, monkeypatch)
        node.registry.point("m0007", "champion", 2)
        await spine.poll()
        await becomes(lambda: node.gateway.points("m0007", "champion") == 2, "it is promoted")
        await idle(spine)
        assert counted.planned.keys() == {"m0007"}
        assert counted.whole.keys() <= {"whole"}, "of the view, for the poll itself"


async def test_a_poll_that_finds_nothing_new_touches_none(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.control_plane() as spine:
        await at_rest(node, spine)
        counted, seq = Counted(spine, monkeypatch), node.gateway.seq
        await spine.poll()
        await spine.next_decision()
        assert counted.planned == counted.described == {}
        assert counted.whole.keys() <= {"whole"}, "of the view, for the poll itself"
        assert node.gateway.seq == seq, "the gateway has no news of that either"


async def test_what_was_missed_is_found_now_and_then(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The safety net: a change of which nobody was told."""
    async with node.control_plane() as spine:
        await at_rest(node, spine)
        del spine.artifacts[node.registry.digest("m0007", 1)]
        fetched = len(node.registry.fetched)
        for _ in range(3):
            await spine.next_decision()
        assert len(node.registry.fetched) == fetched
        monkeypatch.setattr(reconciler, "_ALL_EVERY_S", 0.0)
        await spine.next_decision()
        await becomes(lambda: len(node.registry.fetched) > fetched, "it is fetched again")


async def test_each_of_many_models_is_fetched_and_staged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are more of them than a memory of what was done holds."""
    count = 5000 if SOAK else 100
    for module, bound in MEMORIES:
        monkeypatch.setattr(module, bound, count // 4)
    node = NodeInMemory(tmp_path)
    for number in range(count):
        node.registry.publish(f"m{number:04}", 1)
        node.registry.without_latest(f"m{number:04}")
        node.registry.point(f"m{number:04}", "champion", 1)
    async with node.control_plane() as spine:
        await becomes(lambda: len(node.gateway.active) == count, "all active", patience_s=1800)
        await idle(spine)
        assert len(node.registry.fetched) == count
        assert len(node.gateway.stages) == len(node.gateway.activations) == count
        asked = len(node.registry.asked)
        await asyncio.sleep(0)
        await spine.next_decision()
        assert len(node.registry.asked) == asked
