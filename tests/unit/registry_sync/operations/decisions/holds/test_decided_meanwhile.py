"""What operators decide is in force once it is answered, whatever is under way meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import httpx
import pytest

from gateway.contract import AliasRef
from gateway.contract.node_state import ActiveAlias
from registry_sync.domain import LedgerView
from registry_sync.errors import LedgerError
from registry_sync.planning.actions import EndHold, RetireAlias
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle, moved, polled, promoted
from tests.fakes.operating import asking, decide, listening
from tests.fakes.waiting import becomes

Q = TypeVar("Q")
R = TypeVar("R")


VERSIONS = 3


async def pinned(client: httpx.AsyncClient, version: int) -> dict[str, str]:
    body = {"model": M, "alias": A, "version": version}
    return dict(await decide(client, "/pin", **body))


def moves_of_alias(node: NodeInMemory) -> int:
    return sum((one.model, one.alias) == (M, A) for one in node.gateway.activations)


def unreadable(*_: object) -> LedgerView:
    """A database that failed over right after it took what was written."""
    raise LedgerError("the ledger does not answer")


async def test_what_was_answered_counts_though_the_ledger_cannot_be_read_after_it(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.registry.point(M, "staging", 2)
    async with node.following(1) as spine, asking(node, spine) as client:
        await node.serves(2, "staging")
        await idle(spine)
        with monkeypatch.context() as broken:
            broken.setattr(spine.ledger, "view", unreadable)
            assert (await client.post("/freeze")).status_code == 202
            kept = await decide(client, "/pin", model=M, alias="staging", version=1)
            assert kept["outcome"] == "active"
            await moved(node, 2)
            assert (node.gateway.points(M, A), node.gateway.points(M, "staging")) == (1, 1)
            assert (await client.post("/unfreeze")).json()["changed"] is True
            await node.serves(2)
        await decide(client, "/unpin", model=M, alias="staging")
        await node.serves(2, "staging")
        assert spine.journal.view.holds == {}


async def test_a_pin_that_cannot_serve_leaves_the_one_that_another_operator_made_meanwhile(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.gateway.stages_wait = True
        node.gateway.fails[M, 3] = ("load_failed", "a library is missing")
        first = asyncio.create_task(pinned(client, 3))
        await becomes(lambda: node.gateway.stages[-1].version == 3, "version 3 is staged")
        assert (await pinned(client, 1))["outcome"] == "active"
        answer = await first  # at once, and not when its stage has ended
        assert answer["outcome"] == "refused"
        assert "pinned at version 1 by operator" in answer["reason"]
        node.gateway.end_stage(node.gateway.stages[-1])
        await idle(spine)
        await moved(node, 2)
        assert node.gateway.points(M, A) == 1


class Slow(Generic[Q, R]):
    """A call of the gateway that goes on only when it is told to."""

    def __init__(self, call: Callable[[Q], Awaitable[R]]) -> None:
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()
        self._call = call

    async def __call__(self, request: Q) -> R:
        self.asked.set()
        await self.goes_on.wait()
        return await self._call(request)


def listed_before_publishing(
    spine: Reconciler, node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the next pass begin with news from the registry: nothing of them is decided on yet."""
    adopt, listed = spine.journal.adopt, False

    async def then_list(
        serves: Iterable[ActiveAlias], generation: int, busy: Callable[[ActiveAlias], bool]
    ) -> None:
        nonlocal listed
        await adopt(serves, generation, busy)
        if not listed:
            listed = True
            node.registry.publish("new", 1)  # so that there is something to tell the gateway
            await spine.poll()

    monkeypatch.setattr(spine.journal, "adopt", then_list)
    spine.wake()


@pytest.mark.parametrize("moves", [True, False], ids=["moved", "removed"])
async def test_a_pin_counts_for_the_pass_that_was_under_way(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        if moves:
            await promoted(node, 2)
            await decide(client, "/rollback", model=M, alias=A)
            await idle(spine)
            node.registry.point(M, A, 3)
        else:
            node.registry.unpoint(M, A)
            await polled(spine)
        slow = Slow(node.gateway.change)
        monkeypatch.setattr(node.gateway, "change", slow)
        listed_before_publishing(spine, node, monkeypatch)
        await slow.asked.wait()
        pinning = asyncio.create_task(pinned(client, 1))
        await becomes(lambda: spine.journal.view.holds.get(AliasRef(M, A)), "it is held")
        await becomes(lambda: spine.journal.view.holds[AliasRef(M, A)].lasting, "it is pinned")
        before = moves_of_alias(node)
        slow.goes_on.set()
        assert (await pinning)["outcome"] == "active"
        await idle(spine)
        assert (node.gateway.points(M, A), moves_of_alias(node)) == (1, before)
        assert "retire" not in {one.action for one in spine.ledger.attempts_of(M)}
        assert spine.journal.view.holds[AliasRef(M, A)].lasting


async def test_a_hold_that_another_has_replaced_is_not_ended_by_what_was_decided_before(
    node: NodeInMemory,
) -> None:
    """The step is under way when the pin is made: only the ledger can tell the two apart."""
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        await decide(client, "/rollback", model=M, alias=A)
        held = spine.journal.view.holds[AliasRef(M, A)]
        assert (await pinned(client, 1))["outcome"] == "active"
        spine.steps.start(EndHold(held))
        await idle(spine)
        assert spine.journal.view.holds[AliasRef(M, A)].lasting
        before = moves_of_alias(node)
        spine.steps.start(RetireAlias(M, A))
        await idle(spine)
        assert (node.gateway.points(M, A), moves_of_alias(node)) == (1, before)


async def test_a_freeze_says_which_aliases_are_still_taken_away(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        slow = Slow(node.gateway.retire)
        monkeypatch.setattr(node.gateway, "retire", slow)
        node.registry.unpoint(M, A)
        await spine.poll()
        await spine.poll()
        await slow.asked.wait()
        assert (await client.post("/freeze")).json()["moving"] == [M]
        assert (await client.get("/freeze")).json()["moving"] == [M]
        slow.goes_on.set()
        await becomes(lambda: node.view.moving() == [], "nothing moves any more")
        assert (await client.get("/freeze")).json()["moving"] == []
        assert node.gateway.points(M, A) is None


async def test_the_command_freezes_and_waits_until_nothing_moves(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1) as spine, listening(node, spine) as command:
        slow = Slow(node.gateway.activate)
        monkeypatch.setattr(node.gateway, "activate", slow)
        await node.promotes(2)
        await slow.asked.wait()
        at_once = await command("freeze", "--no-wait")
        assert (at_once.exit_code, f"still move aliases of: {M}" in at_once.stderr) == (0, True)
        freezing = asyncio.ensure_future(command("freeze"))
        await asyncio.sleep(0.2)
        assert not freezing.done()
        slow.goes_on.set()
        assert (await freezing).exit_code == 0
        before = moves_of_alias(node)
        await moved(node, 3)
        assert (node.gateway.points(M, A), moves_of_alias(node)) == (2, before)


async def test_a_pin_to_what_is_active_is_answered_when_nothing_moves_the_alias_any_more(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        slow = Slow(node.gateway.activate)
        monkeypatch.setattr(node.gateway, "activate", slow)
        await node.promotes(2)
        await slow.asked.wait()
        pinning = asyncio.create_task(pinned(client, 1))
        await becomes(lambda: spine.journal.view.holds, "it is pinned")
        slow.goes_on.set()
        assert (await pinning)["outcome"] == "active"
        before = moves_of_alias(node)
        await idle(spine)
        assert (node.gateway.points(M, A), moves_of_alias(node)) == (1, before)
