"""The sweep removes what may go, after the gateway was told, and nothing when it cannot be."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.contract import AliasRef, ArtifactRef
from gateway.contract.node_state import ActiveAlias, NodeState
from registry_sync.artifacts.store import ArtifactStore, StoredArtifact
from registry_sync.domain import (
    AcceptedDigest,
    Hold,
    LedgerView,
    Quarantine,
    Rejection,
)
from registry_sync.domain.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.planning.plan import LISTINGS_FOR_REMOVAL
from registry_sync.reconcile.context import RoomLimits
from registry_sync.reconcile.disk_budget import DiskRoom
from registry_sync.reconcile.sweep import Sweep, choose_gone, choose_gone_refusals
from registry_sync.system.threads import Threads
from tests.fakes.artifacts import fetched
from tests.fakes.gateway import FakeGateway
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled
from tests.fakes.waiting import becomes


def disk_room(store: ArtifactStore, threads: Threads, **parts: Any) -> DiskRoom:
    """Room on the disk of a node whose gateway and registry answer, and know nothing."""
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1)
    known: dict[str, Any] = {
        "target": FakeGateway(),
        "observation": SimpleNamespace(node=node, unreachable=None),
        "announcer": SimpleNamespace(offers=lambda _: False),
        "artifacts": store.all(),
        "listings": SimpleNamespace(count=2, aspired=Aspired(models={}, listed_at=0.0)),
        "journal": SimpleNamespace(view=LedgerView()),
        "changes": SimpleNamespace(next_decision=lambda: asyncio.sleep(0), note=lambda _: None),
        "limits": SimpleNamespace(room=RoomLimits(rollback_retention_s=10.0)),
        "clock": lambda: 100.0,
    }
    return DiskRoom(cast("Any", SimpleNamespace(store=store, threads=threads, **(known | parts))))


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    assert made.close(timeout_s=5)


@pytest.mark.parametrize("still", ["nothing", "offered", "resident", "unheard", "fetched anew"])
async def test_an_artifact_goes_only_after_the_gateway_was_told(tmp_path, threads, still):
    store = ArtifactStore(tmp_path, clock=lambda: 0.0)
    store.open()
    with store.incoming() as folder:
        digest = store.add(fetched(folder), {}).digest
    artifacts, gateway, told = store.all(), FakeGateway(), []

    async def next_decision():
        told.append(digest in artifacts or not store.get(digest))
        if still == "resident":
            gateway.resident.add(digest)  # while it was told, a worker was started
        elif still == "unheard":
            gateway.down = True
        elif still == "fetched anew":
            artifacts[digest] = store.all()[digest]

    room = disk_room(
        store,
        threads,
        target=gateway,
        announcer=SimpleNamespace(offers=lambda _: still == "offered"),
        artifacts=artifacts,
        changes=SimpleNamespace(next_decision=next_decision, note=lambda _: None),
    )
    await room.sweep()
    assert told == [False]
    stays = still != "nothing"
    assert (digest in artifacts) is stays
    assert (store.get(digest) is not None) is stays


async def test_a_sweep_decides_by_who_is_resident_now_and_not_at_the_start(tmp_path, threads):
    store = ArtifactStore(tmp_path, clock=lambda: 0.0)
    store.open()
    with store.incoming() as folder:
        digest = store.add(fetched(folder), {}).digest
    was = NodeState(node_id="n", boot_id="b", seq=1, generation=1, resident=[digest])
    room = disk_room(store, threads, observation=SimpleNamespace(node=was, unreachable=None))
    await room.sweep()
    assert store.get(digest) is None


async def test_what_cannot_be_removed_is_not_offered_and_takes_room_still(
    tmp_path, threads, monkeypatch
):
    store = ArtifactStore(tmp_path, clock=lambda: 0.0)
    store.open()
    with store.incoming() as folder:
        artifact = store.add(fetched(folder), {})
    artifacts = store.all()
    room = disk_room(store, threads, artifacts=artifacts)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", _refuse)
        await room.sweep()
    assert (artifacts, store.get(artifact.digest)) == ({}, None)
    assert store.use().stored_bytes == artifact.size_bytes
    store.open()
    assert store.use().stored_bytes == 0


def _refuse(_path: Path) -> None:
    raise PermissionError("no")


def digest_of(version: int) -> str:
    return f"sha256:{version:064x}"


def test_gone_is_what_is_neither_listed_nor_here_nor_meant():
    """Of "m", 1 is listed, 2 here, 3 active, 4 held; 5 and all of "deleted" are gone."""
    accepted = {
        (model, n): AcceptedDigest(model, n, digest_of(n + offset), None, False, None)
        for model, offset in (("m", 0), ("deleted", 10))
        for n in (1, 2, 3, 4, 5)
    }
    active = ActiveAlias(model="m", alias="champion", version=3, digest=digest_of(3), since=0.0)
    here = StoredArtifact(digest_of(2), Path("x"), 100, {}, (), 0.0)
    gone = choose_gone(
        {digest_of(2): here},
        node=NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=[active]),
        aspired=Aspired({"m": AspiredModel("m", {1: AspiredVersion("m", 1, "there")})}, 0.0),
        ledger=LedgerView(
            accepted=accepted,
            holds={AliasRef("m", "a"): Hold("m", "a", 1, 4, digest_of(4), "operator", 0.0)},
        ),
    )
    assert gone == {("m", 5), *(("deleted", n) for n in (1, 2, 3, 4, 5))}


async def test_the_history_of_a_model_stays_while_it_is_listed_active_or_held() -> None:
    written: list[object] = []

    async def write(_model: str | None, work: str, alive: set[str]) -> bool:
        written.append((work, alive))
        return True

    held = Hold("held", A, 1, 4, digest_of(4), "operator", 0.0)
    active = ActiveAlias(model="active", alias=A, version=3, digest=digest_of(3), since=0.0)
    context = SimpleNamespace(
        artifacts={},
        listings=SimpleNamespace(
            error=None,
            count=LISTINGS_FOR_REMOVAL,
            aspired=Aspired({"listed": AspiredModel("listed", {})}, 0.0),
        ),
        journal=SimpleNamespace(view=LedgerView(holds={AliasRef("held", A): held}), write=write),
        ledger=SimpleNamespace(forget_history="forget_history"),
    )
    sweep = Sweep(cast("Any", context), cast("Any", None), cast("Any", None))
    node = NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=[active])
    await sweep._forget_gone(node)
    assert written == [("forget_history", {"listed", "active", "held"})]


async def test_versions_deleted_in_the_registry_leave_the_catalogue_in_the_end(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("registry_sync.ledger.ledger._KEPT_GONE_DIGESTS", 1)
    node = NodeInMemory(tmp_path, room=RoomLimits(rollback_retention_s=0.0))
    for version in (1, 2, 3):
        node.registry.publish(M, version)
    node.registry.without_latest(M)
    node.registry.point(M, A, 3)
    async with node.following(3) as spine:
        for version in (1, 2):
            node.gateway.want(M, version)
            await becomes(lambda: (M, version) in spine.journal.view.accepted, "it is here")  # noqa: B023 - called at once
        listed = node.registry.models[M]
        node.registry.models[M] = replace(listed, versions={3: listed.versions[3]})
        sweep = node.plane.sweep
        await polled(spine)
        await sweep.run()
        assert set(spine.artifacts) == {node.registry.digest(M, 3)}
        await idle(spine)
        node.registry.down = True
        await spine.poll()
        await sweep.run()
        await idle(spine)
        assert len(spine.journal.view.accepted) == 3  # a registry that says nothing is not believed
        node.registry.down = False
        await spine.poll()
        await sweep.run()
        await idle(spine)
        known = [version for version in (1, 2, 3) if node.gateway.version(M, version)]
        assert known == [2, 3]


def test_gone_refusals_are_those_of_versions_that_nobody_means():
    wrong = {
        (model, n): Quarantine(model, n, None, None, None, "wrong", 0.0)
        for model, n in (("m", 1), ("m", 2), ("deleted", 1))
    }
    bad = {
        ArtifactRef("m", n, digest_of(n)): Rejection("m", n, digest_of(n), "load_failed", "no", 0.0)
        for n in (1, 3, 4)
    }
    found = choose_gone_refusals(
        aspired=Aspired({"m": AspiredModel("m", {1: AspiredVersion("m", 1, "there")})}, 0.0),
        ledger=LedgerView(
            quarantines=wrong,
            rejections=bad,
            holds={AliasRef("m", A): Hold("m", A, 1, 4, digest_of(4), "operator", 0.0)},
        ),
    )
    assert found == {("m", 2), ("m", 3), ("deleted", 1)}


async def test_a_deleted_model_leaves_the_disk_and_one_that_comes_back_is_served(tmp_path):
    node = NodeInMemory(tmp_path)
    for model in (M, "other"):
        node.registry.publish(model, 1, latest=False)
        node.registry.point(model, A, 1)
    node.room = RoomLimits(rollback_retention_s=0.0)
    deleted = node.registry.models[M]
    async with node.following(1) as spine:
        sweep = node.plane.sweep
        node.registry.forget(M)
        for _ in range(2):
            await spine.poll()
        await becomes(lambda: node.gateway.points(M, A) is None, "it is retired")
        await idle(spine)
        for _ in range(2):  # the first finds that it is retired, the second that nothing needs it
            await sweep.run()
            await idle(spine)
        assert set(spine.artifacts) == {node.registry.digest("other", 1)}
        assert spine.journal.view.last_active[AliasRef(M, A)].retired_at is not None
        node.registry.models[M] = deleted
        await spine.poll()
        await node.settles_at(1)
        assert spine.journal.view.last_active[AliasRef(M, A)].retired_at is None
        await sweep.run()
        assert node.registry.digest(M, 1) in spine.artifacts
