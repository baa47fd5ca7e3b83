"""A rejected version is tried again: when an operator says so, and beside other libraries."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest

from gateway.contract.node_state import NodeState
from gateway.contract.rollout_requests import StageFailure
from registry_sync.domain import Hold, Initiator, Rejection
from registry_sync.reconcile.gateway.target import TargetUnreachableError
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled
from tests.fakes.operating import asking, decide, listening
from tests.fakes.waiting import becomes

LATEST = "latest"
TWO = {"model": M, "version": 2}


async def rejected(
    node: NodeInMemory, spine: Reconciler, failure: StageFailure = "load_failed"
) -> None:
    """Have version 2, which latest is to mean, rejected; and what it lacked put right."""
    await node.serves(1)
    node.gateway.fails[M, 2] = (failure, "a library is missing")
    node.registry.point(M, LATEST, 2)
    await spine.poll()
    await becomes(lambda: spine.journal.view.rejections, "version 2 is rejected")
    await idle(spine)
    node.gateway.fails.clear()


async def retries(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    entries = (await client.get("/history", params={"model": M})).json()["entries"]
    return [one for one in entries if one["what"] == "retry"]


async def test_an_operator_has_a_rejected_version_tried_again(node: NodeInMemory) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        await rejected(node, spine)
        (one,) = (await client.get("/explain", params={"model": M, "selector": LATEST})).json()[
            "selectors"
        ]
        assert one["why"] == "rejected"
        assert "or by `registry-gateway retry churn/2`" in one["reason"]
        answer = await decide(client, "/retry", **TWO)
        assert (answer["outcome"], answer["reason"]) == ("active", None)
        assert f"@{LATEST}" in [one["selector"] for one in answer["explained"]]
        assert node.gateway.points(M, LATEST) == 2
        assert spine.journal.view.rejections == {}
        (tried,) = await retries(client)
        assert (tried["version"], tried["asked_by"], tried["reason"]) == (2, "operator", None)


@pytest.mark.parametrize(
    ("failure", "outcome", "says"),
    [("warm_up_failed", "refused", "again wrong"), ("no_room", "pending", "again wrong")],
)
async def test_what_fails_again_is_said(
    node: NodeInMemory, failure: StageFailure, outcome: str, says: str
) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        await rejected(node, spine)
        node.gateway.fails[M, 2] = (failure, "again wrong")
        answer = await decide(client, "/retry", **TWO)
        assert answer["outcome"] == outcome, answer
        assert says in answer["reason"]
        assert bool(spine.journal.view.rejections) is (outcome == "refused")


async def test_a_version_that_no_alias_wants_is_released_only(node: NodeInMemory) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        await rejected(node, spine)
        node.registry.unpoint(M, LATEST)
        for _ in range(2):
            await spine.poll()
        await idle(spine)
        answer = await decide(client, "/retry", **TWO)
        assert answer["outcome"] == "ended"
        assert spine.journal.view.rejections == {}
        again = await client.post("/retry", json=TWO)
        assert (again.status_code, again.json()["code"]) == (409, "not_rejected")
        assert "version 2 of churn is not rejected" in again.json()["detail"]


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ("freeze", "this node is frozen"),
        ("pin", "pinned at version 1 by operator"),
        ("hold", "held at version 1 by operator"),
    ],
)
async def test_a_version_that_is_kept_away_is_released_only(
    node: NodeInMemory, kept: str, says: str
) -> None:
    async with node.control_plane() as spine, listening(node, spine) as command:
        if kept == "hold":
            node.registry.point(M, LATEST, 1)
            await spine.poll()
            await node.serves(1, LATEST)
        await rejected(node, spine)
        if kept == "freeze":
            assert await node.operators.freeze() is None
        elif kept == "pin":
            assert (await command("pin", f"{M}@{LATEST}", "1")).exit_code == 0
        else:
            hold = Hold(M, LATEST, 2, 1, node.registry.digest(M, 1), Initiator.OPERATOR, 5.0)
            assert await node.operators.hold(hold) is None
        done = await command("retry", "churn/2", "--json")
        answer = json.loads(done.stdout)
        assert (done.exit_code, answer["outcome"]) == (0, "ended"), answer
        assert says in answer["reason"]
        assert spine.journal.view.rejections == {}


async def test_a_version_whose_stamp_cannot_be_read_is_refused(node: NodeInMemory) -> None:
    async with node.control_plane() as spine, asking(node, spine) as client:
        await rejected(node, spine)
        known = node.registry.models[M]
        two = replace(known.versions[2], stamp_problem="its stamp cannot be read")
        node.registry.models[M] = replace(known, versions={**known.versions, 2: two})
        await spine.poll(thorough=True)
        await idle(spine)
        answer = await decide(client, "/retry", **TWO)
        assert (answer["outcome"], answer["reason"]) == ("refused", two.stamp_problem)


async def test_what_stands_in_the_way_instead_is_said(node: NodeInMemory) -> None:
    node.registry.stamp(M, 2, "sha256:" + "0" * 64)
    async with node.following(1) as spine, asking(node, spine) as client:
        await node.promotes(2)
        await becomes(lambda: spine.journal.view.quarantines, "it is quarantined")
        await idle(spine)
        answer = await client.post("/retry", json=TWO)
        assert "the publisher stamped" in answer.json()["detail"]


async def test_a_version_that_failed_on_live_traffic_may_be_tried_again(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await node.promotes(2)
        await node.serves(2)
        node.gateway.go_back(M, A, "it did worse on live traffic")
        await becomes(lambda: spine.journal.view.holds, "the rollback is recorded")
        await idle(spine)
        node.gateway.libraries = "others"
        node.gateway.restart()
        await idle(spine)
        await polled(spine)
        assert node.gateway.points(M, A) == 1, "its libraries were not the reason"
        assert spine.journal.view.rejections
        answer = await decide(client, "/retry", **TWO)
        assert answer["outcome"] == "active", answer
        assert node.gateway.points(M, A) == 2
        assert (spine.journal.view.holds, spine.journal.view.rejections) == ({}, {})


async def test_the_command_retries(node: NodeInMemory) -> None:
    async with node.control_plane() as spine, listening(node, spine) as command:
        await rejected(node, spine)
        node.gateway.fails[M, 2] = ("load_failed", "a library is missing")
        done = await command("retry", "churn/2")
        assert done.exit_code == 1
        assert "churn/2 is not active: a library is missing" in done.stderr
        node.gateway.fails.clear()
        done = await command("retry", "churn/2")
        assert (done.exit_code, done.stdout.strip()) == (
            0,
            "churn/2 is no longer rejected: @latest means it now.",
        )
        done = await command("retry", "churn/2")
        assert (done.exit_code, "is not rejected" in done.stderr) == (1, True)
        assert "retry" in (await command("history", M)).stdout


# --- other libraries ------------------------------------------------------------------------------


async def test_a_gateway_with_other_libraries_tries_it_again(node: NodeInMemory) -> None:
    node.gateway.libraries = "these"
    async with node.control_plane() as spine, asking(node, spine) as client:
        await rejected(node, spine)
        (found,) = spine.journal.view.rejections.values()
        assert found.libraries == "these"
        stages = len(node.gateway.stages)
        node.gateway.restart()
        await idle(spine)
        await polled(spine)
        assert len(node.gateway.stages) == stages, "nothing has changed that it could need"
        node.gateway.libraries = "others"
        node.gateway.restart()
        await node.serves(2, LATEST)
        (tried,) = await retries(client)
        assert tried["asked_by"] == "restart"
        assert "other libraries" in tried["reason"]


async def test_what_fails_beside_other_libraries_too_is_tried_once(node: NodeInMemory) -> None:
    node.gateway.libraries = "these"
    async with node.control_plane() as spine:
        await rejected(node, spine)
    stages = len(node.gateway.stages)
    node.gateway.fails[M, 2] = ("load_failed", "a library is missing still")
    node.gateway.libraries = "others"
    node.gateway.restart()
    for _ in range(2):
        async with node.control_plane() as spine:
            await becomes(partial(_failed_beside, spine, "others"), "it is rejected again")
            await idle(spine)
            tried = [one for one in node.gateway.stages[stages:] if one.version == 2]
            assert len(tried) == 1


def _failed_beside(spine: Reconciler, libraries: str) -> bool:
    (found,) = spine.journal.view.rejections.values() or (None,)
    return found is not None and found.libraries == libraries


REJECTION = Rejection("m", 1, "sha256:" + "1" * 64, "load_failed", "no", 1.0, "these")


@pytest.mark.parametrize(
    ("rejection", "now", "outdated"),
    [
        (REJECTION, "these", False),
        (REJECTION, "others", True),
        (REJECTION, None, False),
        (replace(REJECTION, libraries=None), "these", True),
        (replace(REJECTION, failure="live"), "others", False),
        (replace(REJECTION, own=True), "others", False),
    ],
)
def test_which_rejections_other_libraries_end(
    rejection: Rejection, now: str | None, outdated: bool
) -> None:
    assert rejection.is_outdated(now) is outdated


async def test_outcomes_that_a_control_plane_misses_are_found_out_anew(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway keeps so many of them: 5,000 others came before it could be observed again."""
    gateway = node.gateway
    node.stage_timeout_s = 1.0
    gateway.fails[M, 2] = ("warm_up_failed", "it answers NaN")
    async with node.following(1) as spine:
        gateway.stages_wait = True
        await node.promotes(2)
        await becomes(lambda: gateway.stages[-1].version == 2, "version 2 is staged")
        with monkeypatch.context() as patched:
            patched.setattr(gateway, "observe", _unreachable)
            gateway._changed()
            await becomes(lambda: spine.observation.unreachable, "nothing is observed")
            gateway.end_stage(gateway.stages[-1])
            lost = gateway.outcomes[gateway.stages[-1].stage_id]
            for number in range(5000):
                gateway.report(lost.model_copy(update={"stage_id": f"other-{number}"}))
            assert all(one.stage.stage_id != lost.stage_id for one in gateway.events)
            gateway.stages_wait = False
        gateway._changed()
        await becomes(lambda: spine.journal.view.rejections, "it is tried again, and rejected")
        del gateway.fails[M, 2]
        assert await node.operators.retry(M, 2)
        await node.serves(2)


async def _unreachable(_after: int, _of: str | None = None) -> NodeState:
    raise TargetUnreachableError("the gateway does not answer")
