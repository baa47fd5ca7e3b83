"""A stamp that is there and cannot be read: nobody can check the bytes, so they do not serve."""

from dataclasses import replace

import pytest

from gateway.contract.catalogue import Catalogue, VersionState
from gateway.contract.references import AliasRef, parse_selector
from gateway.errors import ModelLoadFailedError
from gateway.routing.route_table import RouteTable
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, polled
from tests.fakes.operating import asking
from tests.fakes.waiting import becomes

WHY = "the stamp of version 2 cannot be read"
URI = f"fake:/{M}/2"


def garble(node: NodeInMemory, version: int, problem: str | None = WHY) -> None:
    """Let a version's stamp be one that cannot be read; None: let it be none again."""
    known = node.registry.models[M]
    one = replace(known.versions[version], expected_digest=None, stamp_problem=problem)
    node.registry.models[M] = replace(known, versions={**known.versions, version: one})


async def listed(spine: Reconciler) -> None:
    await polled(spine)


def table(node: NodeInMemory) -> RouteTable:
    """The gateway's table, as the catalogue and the active aliases make it."""
    catalogue = node.gateway.catalogue
    assert isinstance(catalogue, Catalogue)
    return RouteTable(default_alias=A, catalogue=catalogue, active=node.gateway.active)


async def test_it_is_neither_fetched_nor_promoted_and_that_is_said(node: NodeInMemory) -> None:
    garble(node, 2)
    async with node.following(1) as spine, asking(node, spine) as client:
        node.registry.point(M, A, 2)
        await listed(spine)
        await listed(spine)
        assert node.gateway.points(M, A) == 1
        answer = (await client.get("/explain", params={"model": M, "selector": A})).json()
        (one,) = answer["selectors"]
        assert (one["why"], one["reason"], one["version"]) == ("unreadable_stamp", WHY, 1)
        by_number = (await client.get("/explain", params={"model": M, "selector": "2"})).json()
        assert by_number["selectors"][0]["reason"] == WHY
        await node.shows(2, VersionState.FAILED)
        with pytest.raises(ModelLoadFailedError, match=WHY):
            table(node).resolve(M, parse_selector("2"))
    assert URI not in node.registry.fetched


async def test_a_caller_by_number_does_not_bring_it(node: NodeInMemory) -> None:
    garble(node, 2)
    async with node.following(1) as spine:
        node.gateway.want(M, 2)
        await listed(spine)
        await node.shows(2, VersionState.FAILED)
    assert URI not in node.registry.fetched


async def test_what_is_here_and_serves_goes_on_and_answers_nobody_else(node: NodeInMemory) -> None:
    async with node.following(1, 2, 1) as spine:
        garble(node, 2)
        garble(node, 1)
        await listed(spine)
        assert node.gateway.points(M, A) == 1
        at = table(node)
        assert at.resolve(M, parse_selector("1")).digest == node.registry.digest(M, 1)
        with pytest.raises(ModelLoadFailedError, match=WHY):
            at.resolve(M, parse_selector("2"))
        assert at.without_copy(M, 2) is None
        assert at.why_no_rollback(at.active[AliasRef(M, A)]) is not None


async def test_an_alias_that_was_lost_does_not_come_back_on_it(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine:
        garble(node, 2)
        await listed(spine)
        staged = len(node.gateway.stages)
        node.gateway.restart(lose_table=True)
        await becomes(lambda: spine.observation.node and not spine.observation.node.active, "lost")
        await listed(spine)
        assert node.gateway.points(M, A) is None
        assert len(node.gateway.stages) == staged


async def test_it_is_remembered_while_the_registry_is_down(node: NodeInMemory) -> None:
    garble(node, 2)
    node.registry.point(M, A, 2)
    async with node.control_plane() as spine:
        await listed(spine)
    node.registry.down = True
    async with node.at_rest() as spine:
        assert spine.listings.aspired.models[M].versions[2].stamp_problem == WHY
    assert URI not in node.registry.fetched


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/pin", {"model": M, "alias": A, "version": 2}),
        ("/rollback", {"model": M, "alias": A, "version": 2}),
    ],
)
async def test_operators_are_told(node: NodeInMemory, path: str, body: dict[str, object]) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        garble(node, 2)
        await listed(spine)
        answer = await client.post(path, json=body)
        said = answer.json()
        assert WHY in str(said) or "has never been on this node" in str(said), said
        assert node.gateway.points(M, A) == 1
    assert URI not in node.registry.fetched


async def test_it_is_followed_once_it_can_be_read(node: NodeInMemory) -> None:
    garble(node, 2)
    async with node.following(1) as spine:
        node.registry.point(M, A, 2)
        await listed(spine)
        node.registry.stamp(M, 2, node.registry.digest(M, 2))
        known = node.registry.models[M]
        one = replace(known.versions[2], stamp_problem=None)
        node.registry.models[M] = replace(known, versions={**known.versions, 2: one})
        await spine.poll(thorough=True)
        await node.serves(2)
