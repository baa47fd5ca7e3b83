"""What the pages about models say of policy and of what is wrong with it."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Policy,
    VersionState,
)
from gateway.contract.node_state import ActiveAlias, RefusedDigest
from gateway.contract.references import AliasRef, ArtifactRef
from gateway.http.catalogue import router
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.residency.load_history import LoadHistory


@asynccontextmanager
async def pages_of(
    node: Node, load_history: LoadHistory | None = None, residents: Sequence[Any] = ()
) -> AsyncIterator[httpx.AsyncClient]:
    """Ask for the pages about the models of a node; without ``residents`` it has no worker."""
    known = SimpleNamespace(residents=lambda: residents, load_history=load_history or LoadHistory())
    services: Any = SimpleNamespace(node=node, residents=known)
    app = FastAPI()
    app.include_router(router)
    app.state.services = services
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        yield client


def node_of(
    *versions: CatalogueVersion,
    actives: Iterable[ActiveAlias] = (),
    refused: Iterable[RefusedDigest] = (),
    **members: Any,
) -> Node:
    """Return a node that lists one model."""
    model = CatalogueModel(name="churn", versions=list(versions), **members)
    catalogue = Catalogue(writer="w", epoch=1, models=[model])
    table = RouteTable("champion", catalogue=catalogue, refused_digests=tuple(refused))
    for active in actives:
        table = table.with_active(active)
    return Node(node_id="n", boot_id="b", table=table)


def listed(number: int, policy: Policy | None = None) -> CatalogueVersion:
    return CatalogueVersion(version=number, state=VersionState.REGISTERED, policy=policy)


@pytest.fixture
async def pages() -> Any:
    problems = ["the tag gateway.laod is unknown"]
    node = node_of(
        listed(1),
        listed(2, Policy(timeout_s=9.0, keep_resident=False)),
        aliases={"champion": 1},
        policy=Policy(timeout_s=2.0, load="on_demand", problems=problems),
    )
    async with pages_of(node) as client:
        yield client


async def test_a_model_shows_its_policy_and_what_is_wrong_with_it(pages: httpx.AsyncClient) -> None:
    body = (await pages.get("/models/churn")).json()
    assert body["policy"] == {"timeout_s": 2.0, "load": "on_demand"}
    assert body["problems"] == ["the tag gateway.laod is unknown"]
    assert (await pages.get("/models")).json()["models"][0]["problems"] == body["problems"]


async def test_a_version_shows_the_policy_that_counts_for_it(pages: httpx.AsyncClient) -> None:
    effective = {"timeout_s": 9.0, "load": "on_demand", "keep_resident": False}
    assert (await pages.get("/models/churn/versions/2")).json()["policy"] == effective
    of_one = (await pages.get("/models/churn/versions/1")).json()["policy"]
    assert of_one == {"timeout_s": 2.0, "load": "on_demand"}
    versions = (await pages.get("/models/churn")).json()["versions"]
    assert [one["policy"] for one in versions] == [of_one, effective]


def resident(number: int, state: str, loaded: object) -> SimpleNamespace:
    replica = SimpleNamespace(
        state=SimpleNamespace(value=state), pid=number, in_flight=0, gpu_bytes=7, loaded=loaded
    )
    key = ArtifactRef("churn", 1, f"sha256:{1:064x}")
    ready = loaded is not None
    return SimpleNamespace(key=key, number=number, replica=replica, bytes=5, ready=ready)


async def test_a_worker_shows_what_it_has_told_of_its_load() -> None:
    told = SimpleNamespace(batching_reason="it reads /srv/node/x", call_path_reason="it is bare")
    version = CatalogueVersion(version=1, state=VersionState.AVAILABLE, digest=f"sha256:{1:064x}")
    workers = [resident(2, "loading", None), resident(1, "ready", told)]
    async with pages_of(node_of(version), residents=workers) as client:
        shown = (await client.get("/models/churn/versions/1")).json()["replicas"]
    ready, loading = shown
    assert (ready["state"], ready["gpu_bytes"]) == ("ready", 7)
    assert ready["call_path_reason"] == "it is bare"
    assert ready["batching_reason"].startswith("it reads ")
    assert "/srv/node" not in ready["batching_reason"]
    assert (loading["state"], loading["gpu_bytes"]) == ("loading", None)
    assert (loading["batching_reason"], loading["call_path_reason"]) == (None, None)


async def test_an_alias_that_waits_for_its_first_caller_says_so(pages: httpx.AsyncClient) -> None:
    alias = (await pages.get("/models/churn")).json()["aliases"]["champion"]
    assert alias["active"] is None
    assert alias["why"] == "version 1 comes when it is called: gateway.load is on_demand"


async def test_an_alias_shows_its_automatic_rollback_and_why_one_failed() -> None:
    digest = {n: f"sha256:{n:064x}" for n in (1, 2)}
    versions = [
        CatalogueVersion(version=n, state=VersionState.AVAILABLE, digest=digest[n]) for n in digest
    ]
    where = {"model": "churn", "alias": "champion"}
    entry = ActiveAlias(**where, version=1, digest=digest[1], since=5.0, asked_by="gateway")
    hold = RefusedDigest(
        **where, digest=digest[2], reason="automatic rollback to version 1: it fails", version=2
    )
    aliases, notes = {"champion": 2}, {"champion": "held at version 1"}
    node = node_of(*versions, actives=[entry], refused=[hold], aliases=aliases, notes=notes)
    async with pages_of(node) as client:

        async def why() -> str | None:
            shown = (await client.get("/models/churn")).json()["aliases"]["champion"]
            assert (shown["active"], shown["aspired"]) == (1, 2)
            reason: str | None = shown["why"]
            return reason

        assert await why() == "automatic rollback to version 1: it fails"
        node.warnings[AliasRef("churn", "champion")] = "it does worse; the rollback failed"
        assert await why() == "it does worse; the rollback failed"
        node.warnings.clear()
        node.replace(node.table.without_refused_digest(AliasRef("churn", "champion"), digest[2]))
        assert await why() == "held at version 1"


@pytest.mark.parametrize("accepted", [True, False])
async def test_an_alias_with_the_bytes_of_a_predecessor_says_so(accepted: bool) -> None:
    digest = f"sha256:{1:064x}"
    version = CatalogueVersion(
        version=1,
        state=VersionState.QUARANTINED,
        reason="made anew, with wrong bytes: they were not stamped",
        accepted_digest=digest if accepted else None,
    )
    entry = ActiveAlias(model="churn", alias="champion", version=1, digest=digest, since=5.0)
    async with pages_of(node_of(version, actives=[entry], aliases={"champion": 1})) as client:
        shown = (await client.get("/models/churn")).json()
        why, (listed_,) = shown["aliases"]["champion"]["why"], shown["versions"]
        assert listed_["aliases"] == (["champion"] if accepted else [])
        if accepted:
            assert why is None, "an altered version has this very copy that serves"
        else:
            assert "the earlier bytes serve until it is active: made anew, with wrong" in why


async def test_an_alias_of_a_predecessor_shows_no_other_bytes() -> None:
    old, new = (f"sha256:{n:064x}" for n in (1, 2))
    before, anew = (
        CatalogueVersion(
            version=1,
            state=VersionState.AVAILABLE,
            digest=digest,
            accepted_digest=digest,
            description={"flavor": flavor, "signature": {"inputs": flavor}},
            policy=Policy(timeout_s=seconds),
        )
        for digest, flavor, seconds in ((old, "sklearn", 9.0), (new, "pytorch", 1.0))
    )
    table = RouteTable("champion")
    for epoch, version in ((1, before), (2, anew)):
        model = CatalogueModel(name="churn", versions=[version], aliases={"champion": 1})
        table = table.with_catalogue(Catalogue(writer="w", epoch=epoch, models=[model]))
        if epoch == 1:
            entry = ActiveAlias(model="churn", alias="champion", version=1, digest=old, since=5.0)
            table = table.with_active(entry)
    async with pages_of(Node(node_id="n", boot_id="b", table=table)) as client:
        alias = (await client.get("/models/churn/versions/@champion")).json()
        number = (await client.get("/models/churn/versions/1")).json()
    assert (alias["version"], alias["digest"], alias["aliases"]) == (1, old, ["champion"])
    assert (alias["flavor"], alias["signature"], alias["input_example"]) == (None, None, None)
    assert alias["policy"] == {"timeout_s": 9.0}
    assert "the alias means its predecessor" in alias["reason"]
    assert (number["digest"], number["aliases"], number["flavor"]) == (new, [], "pytorch")


async def test_a_version_whose_workers_die_again_and_again_says_so_between_its_pauses() -> None:
    now = [0.0]
    record = LoadHistory(lambda: now[0])
    key = ArtifactRef("churn", 1, f"sha256:{1:064x}")
    listed = CatalogueVersion(version=1, state=VersionState.AVAILABLE, digest=key.digest)
    async with pages_of(node_of(listed), record) as client:

        async def shown() -> tuple[str, str | None]:
            body = (await client.get("/models/churn/versions/1")).json()
            return body["state"], body["reason"]

        for _ in range(3):
            assert await shown() == ("available", None)
            now[0] += 40
            record.died(key, "it was stuck", had_answered=True)
        told = "its worker died 3 times in 80 s: it was stuck"
        assert await shown() == ("load_failed", told)
        now[0] += 10
        assert await shown() == ("available", told.replace("80", "90"))
        now[0] += 600
        assert await shown() == ("available", None)
