"""Automatic rollbacks are recorded and held, are not undone, and end in time."""

import asyncio
from typing import Any

import httpx
import pytest

from gateway.contract import AliasRef
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle, moved, polled, promoted
from tests.fakes.operating import asking, decide
from tests.fakes.waiting import becomes

WHY = "automatic rollback to version 1: version 2 did worse on live traffic: 12 of 60 failed"


VERSIONS = 4


async def gone_back(node: NodeInMemory, spine: Reconciler) -> None:
    """Promote version 2, and let the gateway go back from it."""
    await promoted(node, 2)
    node.gateway.go_back(M, A, WHY)
    await becomes(lambda: spine.journal.view.holds.get(AliasRef(M, A)), "it is recorded")
    await idle(spine)


async def entries(client: httpx.AsyncClient, what: str) -> list[dict[str, Any]]:
    found = (await client.get("/history", params={"model": M})).json()["entries"]
    return [one for one in found if one["what"] == what]


async def the_alias(client: httpx.AsyncClient) -> dict[str, Any]:
    (model,) = (await client.get("/state")).json()["models"]
    alias: dict[str, Any] = next(one for one in model["aliases"] if one["alias"] == A)
    return alias


async def test_it_is_in_history_and_shown_and_the_next_polls_do_not_put_it_back(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await gone_back(node, spine)
        staged = len(node.gateway.stages)
        await polled(spine, times=3)
        assert node.gateway.points(M, A) == 1
        assert len(node.gateway.stages) == staged, "nothing is even tried"
        back = (await entries(client, "activate"))[0]
        assert (back["previous"], back["version"], back["asked_by"]) == (2, 1, "gateway")
        assert back["reason"] == WHY
        (held,) = await entries(client, "hold")
        assert (held["version"], held["asked_by"]) == (1, "gateway")
        shown = await the_alias(client)
        assert (shown["active"], shown["aspired"], shown["held_at"]) == (1, 2, 1)
        assert "another version than 2" in shown["reason"]
        assert WHY in shown["reason"]
        (one,) = (await client.get("/explain", params={"model": M, "selector": A})).json()[
            "selectors"
        ]
        assert (one["why"], one["asked_by"], one["hold"]["asked_by"]) == (
            "held",
            "gateway",
            "gateway",
        )
        entry = node.entry(2)
        assert (entry.rejected, entry.digest) == (True, node.registry.digest(M, 2))
        assert "12 of 60 failed" in (entry.reason or "")


@pytest.mark.parametrize("lose_ledger", [False, True])
async def test_what_happened_without_a_control_plane_is_recorded_by_the_next_one(
    node: NodeInMemory, *, lose_ledger: bool
) -> None:
    await node.followed(1, 2)
    node.gateway.go_back(M, A, WHY)
    if lose_ledger:
        (node.folder / "ledger.db").unlink()
    async with node.at_rest() as spine, asking(node, spine) as client:
        await spine.poll()
        await node.stays_at(1)
        back = (await entries(client, "activate"))[0]
        assert (back["previous"], back["version"], back["asked_by"]) == (2, 1, "gateway")
        assert (await the_alias(client))["held_at"] == 1
    async with node.control_plane() as spine, asking(node, spine) as client:
        await spine.poll()
        await node.stays_at(1)
        assert len(await entries(client, "hold")) == 1, "once"


async def test_without_a_ledger_the_gateways_word_counts(node: NodeInMemory) -> None:
    await node.followed(1, 2)
    node.gateway.go_back(M, A, WHY)
    content = node.break_ledger()
    async with node.control_plane() as spine, asking(node, spine) as client:
        staged = len(node.gateway.stages)
        await polled(spine)
        assert spine.journal.trouble is not None
        assert (node.gateway.points(M, A), len(node.gateway.stages)) == (1, staged)
        (one,) = (await client.get("/explain", params={"model": M, "selector": A})).json()[
            "selectors"
        ]
        assert (one["why"], one["reason"]) == ("held", WHY)
        node.mend_ledger(content)
        spine.wake()
        await becomes(lambda: spine.journal.view.holds, "it is recorded once the ledger answers")


async def test_it_ends_when_the_registry_moves_the_alias(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await gone_back(node, spine)
        await moved(node, 3)
        await node.serves(3)
        await becomes(lambda: not node.gateway.refused_digests, "the gateway is told")
        (ended,) = await entries(client, "end_hold")
        assert ended["asked_by"] == "poll"


async def test_away_and_back_is_one_more_try(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        await gone_back(node, spine)
        await moved(node, 1)
        await becomes(lambda: not node.gateway.refused_digests, "the gateway is told")
        await moved(node, 2)
        await node.serves(2)
        node.gateway.go_back(M, A, WHY)
        await becomes(lambda: spine.journal.view.holds, "it is recorded again")
        await spine.poll()
        await node.stays_at(1)


async def test_a_move_that_nobody_saw_ends_it_too(node: NodeInMemory) -> None:
    await node.followed(1, 2)
    node.gateway.go_back(M, A, WHY)
    node.registry.point(M, A, 3)
    async with node.following(3) as spine:
        await becomes(lambda: not node.gateway.refused_digests, "the gateway is told")
        await idle(spine)
        moves = [(a.version, a.asked_by) for a in spine.ledger.activations_of(M, A)]
        assert moves[:2] == [(3, "poll"), (1, "gateway")]


async def test_unpin_is_one_more_try(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await gone_back(node, spine)
        answer = await decide(client, "/unpin", model=M, alias=A)
        assert (answer["was"], answer["was_pinned"]) == (1, False)
        await node.serves(2)
        assert node.gateway.refused_digests == []
        node.entry(2)
        await becomes(lambda: not spine.journal.view.rejections, "it is not rejected any more")


@pytest.mark.parametrize("how", ["pin", "rollback"])
async def test_an_operator_may_have_it_all_the_same(node: NodeInMemory, how: str) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await gone_back(node, spine)
        answer = await decide(client, f"/{how}", model=M, alias=A, version=2)
        assert answer["outcome"] == "active", answer
        assert (node.gateway.points(M, A), node.gateway.refused_digests) == (2, [])
        entry = node.entry(2)
        assert entry.rejected, "no other alias follows the registry there"


async def test_a_rollback_from_there_goes_further_back(node: NodeInMemory) -> None:
    async with node.following(1, 2, 3) as spine, asking(node, spine) as client:
        node.gateway.go_back(M, A, WHY)
        await becomes(lambda: spine.journal.view.holds, "it is recorded")
        answer = await decide(client, "/rollback", model=M, alias=A)
        assert (answer["from_version"], answer["to_version"]) == (2, 1)
        assert answer["outcome"] == "active"
        await spine.poll()
        await node.stays_at(1)


async def test_an_operators_pin_that_stands_goes_on(node: NodeInMemory) -> None:
    """Both at once: the gateway went back while the pin was on its way."""
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        node.gateway.refuses[M, A] = ("draining", "not now")
        pinning = decide(client, "/pin", model=M, alias=A, version=3)
        running = becomes(lambda: spine.journal.view.holds, "it is pinned")
        task = asyncio.ensure_future(pinning)
        await running
        node.gateway.go_back(M, A, WHY)
        await becomes(lambda: spine.journal.view.automatic_rollbacks, "it is recorded")
        node.gateway.refuses.clear()
        node.operators.try_now(M)
        assert (await task)["outcome"] == "active"
        assert node.gateway.points(M, A) == 3
        await becomes(lambda: not node.gateway.refused_digests, "the gateway is told")


async def test_two_aliases_of_one_version_go_back_each_to_its_own(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.registry.point(M, "canary", 3)
        await moved(node, 2)
        node.registry.point(M, "canary", 2)
        await moved(node, 2)
        await node.serves(2, "canary")
        for alias in (A, "canary"):
            node.gateway.go_back(M, alias, WHY)
        await becomes(lambda: len(spine.journal.view.holds) == 2, "both are recorded")
        await polled(spine)
        assert (node.gateway.points(M, A), node.gateway.points(M, "canary")) == (1, 3)


async def test_a_version_that_failed_is_refused_to_every_other_alias(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.registry.point(M, "canary", 1)
        await moved(node, 1)
        node.gateway.refuses[M, "canary"] = ("draining", "not now")
        node.registry.point(M, "canary", 2)
        await gone_back(node, spine)
        node.gateway.refuses.clear()
        node.operators.try_now(M)
        await polled(spine)
        assert node.gateway.points(M, "canary") == 1
        node.registry.point(M, "canary", 3)
        await spine.poll()
        node.registry.point(M, "canary", 2)
        await spine.poll()
        await node.serves(2, "canary")
        await idle(spine)
        assert node.gateway.points(M, A) == 1, "a try of another alias is none of this one"


async def test_a_hold_of_an_older_gateway_is_let_go(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        await gone_back(node, spine)
        (hold,) = node.gateway.refused_digests
        bare = {"version": None, "to_version": None, "to_digest": None, "since": 0.0}
        node.gateway.refused_digests = [hold.model_copy(update=bare)]
        await moved(node, 3)
        await becomes(lambda: not node.gateway.refused_digests, "the gateway is told")
