"""What ends the old version before the new one is up is not begun in vain."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.rollout_requests import StageFailure
from registry_sync.domain import Hold, Initiator
from registry_sync.planning.actions import RetireAlias
from registry_sync.reconcile.steps.backoff import Backoff
from tests.fakes.nodes import A, M, NodeInMemory, idle, moved
from tests.fakes.waiting import becomes


@pytest.mark.parametrize("swap", ["unload_first", "auto"])
async def test_what_cannot_be_compared_is_not_staged(tmp_path: Path, swap: str) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    node.registry.models[M] = replace(node.registry.models[M], tags={"gateway.swap": swap})
    async with node.following(1) as spine:
        await node.brings(2)
        await idle(spine)
        staged = len(node.gateway.stages)
        node.registry.lists_nothing = True
        await moved(node, 2)
        assert len(node.gateway.stages) == staged
        assert node.gateway.points(M, A) == 1
        node.registry.lists_nothing = False
        await node.serves(2)
        await becomes(lambda: node.gateway.stages[-1].alias == A, "the gateway is told for whom")


@pytest.mark.parametrize("failure", ["unavailable", "worker_died", "environment_missing"])
@pytest.mark.parametrize("swap", ["unload_first", "auto", "blue_green"])
async def test_what_takes_down_what_serves_is_rarely_tried_again(
    tmp_path: Path, swap: str, failure: StageFailure
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    node.registry.models[M] = replace(node.registry.models[M], tags={"gateway.swap": swap})
    async with node.following(1) as spine:
        node.gateway.fails[M, 2] = (failure, "example.org cannot be resolved")
        await node.promotes(2)
        subject = ("stage", M, 2, node.registry.digest(M, 2))
        await becomes(lambda: spine.steps.backoff.get(subject), "the stage has failed")
        failed = spine.steps.backoff.get(subject)
        assert failed is not None
        assert (failed.retry_at - failed.failed_at >= 60) is (swap != "blue_green")
        assert spine.journal.view.rejections == {}
        node.gateway.fails.clear()
        node.operators.try_now(M)
        await node.serves(2)


async def test_an_operator_who_wants_it_waits_for_no_pause(tmp_path: Path) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    node.registry.models[M] = replace(
        node.registry.models[M], tags={"gateway.swap": "unload_first"}
    )
    async with node.following(1) as spine:
        node.gateway.fails[M, 2] = ("unavailable", "example.org cannot be resolved")
        await node.promotes(2)
        digest = node.registry.digest(M, 2)
        await becomes(lambda: spine.steps.backoff.get(("stage", M, 2, digest)), "it has failed")
        node.gateway.fails.clear()
        assert await node.operators.hold(Hold(M, A, 2, 2, digest, Initiator.OPERATOR, 1.0)) is None
        await node.serves(2)


async def test_a_gateway_that_has_forgotten_a_stage_is_asked_for_it_again(tmp_path: Path) -> None:
    node = NodeInMemory.with_versions(tmp_path, 1)
    node.gateway.refuses[M, A] = ("not_staged", "this version was not staged by this gateway")
    later = [0.0]
    node.clock = lambda: time.time() + later[0]
    async with node.control_plane() as spine:
        await becomes(lambda: spine.steps.backoff.get(("activate", M, A)), "it is refused")
        later[0] = 2.0  # nobody waits for the pause between two stages
        spine.wake()
        await becomes(lambda: len(node.gateway.stages) == 2, "it is staged again", patience_s=10)


def test_what_takes_down_what_serves_is_tried_once_an_hour_in_the_end() -> None:
    backoff = Backoff(clock=lambda: 0.0, jitter=lambda: 1.0)
    delays = [
        backoff.failed(("stage", M), "no connection", first_s=120, longest_s=3600).retry_at
        for _ in range(8)
    ]
    assert delays == [120, 240, 480, 960, 1920, 3600, 3600, 3600]


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("the disk is full", "the disk is full"), (None, "the ledger did not record it")],
)
async def test_an_alias_that_the_ledger_cannot_let_go_of_stays_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str | None, says: str
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 1)
    async with node.following(1) as spine:
        promotion, journal = spine.steps.executor.promotion, spine.journal
        write = journal.write

        async def unless_it_retires(model: Any, do: Any, *given: Any) -> bool:
            return False if do.__name__ == "retire" else await write(model, do, *given)

        with monkeypatch.context() as patched:
            patched.setattr(journal, "write", unless_it_retires)
            patched.setattr(journal, "trouble", trouble)
            patched.setattr("registry_sync.reconcile.steps.promotion.is_due", lambda *_: True)
            failed = await promotion.retire(RetireAlias(M, A))
        assert failed is not None
        assert failed.reason == says
        assert node.gateway.points(M, A) == 1
