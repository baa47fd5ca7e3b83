"""An alias that goes to another signature: shown, and by setting refused."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.contract.catalogue import VersionState
from registry_sync.domain.signature_diff import SignaturePolicy
from tests.fakes.nodes import A, M, NodeInMemory, moved, polled, promoted
from tests.fakes.operating import asking, decide, listening
from tests.fakes.waiting import becomes

SAYS = "the signature of version 2 differs from that of version 1: input y (double) is new"


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    """Version 2 asks for one more column, version 3 for the same ones as version 1."""
    made = NodeInMemory.with_versions(tmp_path, 3)
    made.registry.sign(M, 1, "x")
    made.registry.sign(M, 2, "x", "y")
    made.registry.sign(M, 3, "x")
    return made


async def shown(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """The alias in the state, and explained."""
    (model,) = (await client.get("/state")).json()["models"]
    query = {"model": M, "selector": A}
    (one,) = (await client.get("/explain", params=query)).json()["selectors"]
    return model["aliases"][0], one


def announced(node: NodeInMemory) -> tuple[str | None, str | None]:
    """Why the alias stays where it is, and what it changes, as the gateway shows it."""
    assert node.gateway.catalogue is not None
    model = node.gateway.catalogue.models[0]
    return model.notes.get(A), model.signature_changes.get(A)


async def test_it_is_followed_and_told(node: NodeInMemory) -> None:
    async with node.at_rest(1) as spine, asking(node, spine) as client:
        assert announced(node) == (None, None)
        with capture_logs() as logs:
            await promoted(node, 2)
        told = [entry["reason"] for entry in logs if entry["event"] == "signature.changed"]
        assert len(told) == 1, "once"
        assert told[0].startswith(SAYS)
        state, explained = await shown(client)
        assert state["signature_change"].startswith(SAYS)
        assert state["reason"] is None
        assert explained["signature_change"].startswith(SAYS)
        note, change = announced(node)
        assert note is None, "it hides no other reason"
        assert (change or "").startswith(SAYS)


async def test_it_is_refused_where_that_is_set_and_nothing_is_staged(node: NodeInMemory) -> None:
    node.on_signature_change = SignaturePolicy.REFUSE
    async with node.following(1) as spine, asking(node, spine) as client:
        staged = len(node.gateway.stages)
        await moved(node, 2)
        assert (node.gateway.points(M, A), len(node.gateway.stages)) == (1, staged)
        state, explained = await shown(client)
        assert (explained["why"], explained["target"]) == ("rejected", 2)
        for reason in (state["reason"], explained["reason"], announced(node)[0] or ""):
            assert reason.startswith(SAYS)
            assert "`rollback --to 2` or `pin` takes it all the same" in reason
        await moved(node, 3)
        assert node.gateway.points(M, A) == 3, "the same signature"


@pytest.mark.parametrize("how", ["pin", "rollback"])
async def test_an_operator_may_have_it_all_the_same(node: NodeInMemory, how: str) -> None:
    node.on_signature_change = SignaturePolicy.REFUSE
    async with node.following(1) as spine, asking(node, spine) as client:
        await moved(node, 2)
        answer = await decide(client, f"/{how}", model=M, alias=A, version=2)
        assert answer["outcome"] == "active", answer
        assert node.gateway.points(M, A) == 2


async def test_the_setting_counts_from_the_next_start(node: NodeInMemory) -> None:
    node.on_signature_change = SignaturePolicy.REFUSE
    async with node.following(1) as spine:
        await moved(node, 2)
        assert node.gateway.points(M, A) == 1
    node.on_signature_change = SignaturePolicy.IGNORE
    async with node.at_rest(2) as spine, asking(node, spine) as client:
        state, _ = await shown(client)
        assert (state["signature_change"], *announced(node)) == (None, None, None)


async def test_a_lost_table_does_not_let_it_in(node: NodeInMemory) -> None:
    node.on_signature_change = SignaturePolicy.REFUSE
    async with node.following(1):
        await moved(node, 2)
        node.gateway.restart(lose_table=True)
        await becomes(lambda: node.gateway.points(M, A) == 1, "what served comes back")
        await node.stays_at(1)


@pytest.mark.parametrize("then", [True, False], ids=["taken away", "lost"])
async def test_an_alias_that_was_taken_away_has_no_callers_to_break(
    node: NodeInMemory, then: bool
) -> None:
    node.on_signature_change = SignaturePolicy.REFUSE
    node.registry.without_latest(M)
    async with node.at_rest(1) as spine, asking(node, spine) as client:
        if then:
            node.registry.unpoint(M, A)
            await polled(spine, times=2)
            assert node.gateway.points(M, A) is None
            await moved(node, 2)
            await node.serves(2)
            return
        node.gateway.stages_wait = True
        node.gateway.restart(lose_table=True)
        await node.promotes(2)
        await node.shows(2, VersionState.AVAILABLE)
        assert node.gateway.points(M, A) is None
        _, explained = await shown(client)
        assert explained["reason"].startswith(SAYS)
        assert explained["reason"].endswith(": this node refuses that; `pin` takes it all the same")


async def test_a_compatible_change_is_told_and_not_refused(node: NodeInMemory) -> None:
    node.on_signature_change = SignaturePolicy.REFUSE
    path = f"fake:/{M}/2"
    model = node.registry.files[path]["MLmodel"].decode()
    optional = model.replace('"name": "y", "required": true', '"name": "y", "required": false')
    assert optional != model
    node.registry.files[path]["MLmodel"] = optional.encode()
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        state, _ = await shown(client)
        assert state["signature_change"].endswith("is new and optional (compatible)")


async def test_the_commands_tell_it(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, listening(node, spine) as run:
        for command in (("status",), ("explain", M, f"@{A}")):
            said = " ".join((await run(*command)).stdout.split())
            assert "input y (double) is new" in said, said
