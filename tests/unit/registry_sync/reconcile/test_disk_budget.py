"""A node keeps within its disk budget: by removing what nobody needs, or by saying what is."""

import json
import threading
from pathlib import Path

import pytest

from registry_sync.artifacts.store import StoreUse
from registry_sync.errors import IncompleteArtifactError
from registry_sync.reconcile.context import RoomLimits
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled, promoted
from tests.fakes.operating import asking, decide, listening
from tests.fakes.waiting import becomes
from tests.unit.registry_sync.reconcile.reconciler.test_work_per_change import Counted

SIZE = 1000
ACTIVE = 4


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    """A node of four versions, of which the last one serves, with room for two of them."""
    made = NodeInMemory(tmp_path, disk_budget_bytes=2 * SIZE + 500)
    for version in range(1, ACTIVE + 1):
        made.registry.publish(M, version, size_bytes=SIZE)
    made.registry.without_latest(M)
    made.registry.point(M, A, ACTIVE)
    return made


def here(spine: Reconciler) -> set[int]:
    """The versions whose bytes are in the store, and complete."""
    stored = spine.store.all()
    assert stored.keys() == spine.artifacts.keys()
    assert spine.store.use().stored_bytes == sum(one.size_bytes for one in stored.values())
    return {of.version for one in stored.values() for of in one.accepted}


async def called(node: NodeInMemory, spine: Reconciler, version: int) -> None:
    """A caller asks for a version by its number, and gets it."""
    node.gateway.want(M, version)
    await becomes(lambda: (M, version) not in node.gateway.wanted, f"{version} is here")
    await idle(spine)


async def test_versions_called_in_turn_make_room_for_one_another(node):
    async with node.following(ACTIVE) as spine:
        for version in (1, 2, 3, 1):
            await called(node, spine, version)
            assert here(spine) == {version, ACTIVE}
            assert spine.store.use() == StoreUse(2 * SIZE, 0, 2 * SIZE + 500)
            assert node.gateway.points(M, A) == ACTIVE
            shown = {v.version for v in node.gateway.catalogue.models[0].versions if v.digest}
            assert shown == {version, ACTIVE}


async def test_room_is_made_at_the_cost_of_the_models_that_have_what_goes(node, monkeypatch):
    others = {f"m{number}" for number in range(5)}
    for name in sorted(others):
        node.registry.publish(name, 1, size_bytes=SIZE)
        node.registry.without_latest(name)
        node.registry.point(name, A, 1)
    node.disk_budget_bytes += len(others) * SIZE
    async with node.control_plane() as spine:
        await becomes(lambda: len(node.gateway.active) == 1 + len(others), "all are active")
        await called(node, spine, 1)
        await polled(spine)
        counted = Counted(spine, monkeypatch)
        await called(node, spine, 2)
        assert {2, ACTIVE} <= here(spine)
        assert len(spine.artifacts) == 2 + len(others)
        assert counted.planned.keys() == counted.described.keys() == {M}


async def test_of_two_versions_the_one_used_last_stays(node):
    node.disk_budget_bytes = 3 * SIZE
    async with node.following(ACTIVE) as spine:
        await called(node, spine, 1)
        await called(node, spine, 2)
        node.gateway.resident = {node.registry.digest(M, 1)}
        await spine.disk_room.sweep()  # asks who is resident: no news tells of it
        node.gateway.resident = set()
        await called(node, spine, 3)
        assert here(spine) == {1, 3, ACTIVE}


async def test_what_is_resident_stays_and_the_fetch_says_why_until_there_is_room(node):
    async with node.following(ACTIVE) as spine, asking(node, spine) as client:
        await called(node, spine, 1)
        node.gateway.resident = {node.registry.digest(M, 1)}  # no news: it is asked for
        node.gateway.want(M, 2)
        await becomes(lambda: spine.steps.backoff.get(("fetch", M, 2)), "it has failed")
        await becomes(lambda: not spine.steps.busy, "that is recorded")
        assert here(spine) == {1, ACTIVE}
        (work,) = (await client.get("/state")).json()["work"]
        assert (work["step"], work["subject"]) == ("fetch", [M, "2"])
        assert work["retry_at"] is not None
        for said in ("needs 1000 bytes", "2000 of", "2500 are used", "1000 are active",
                     "1000 are resident", "REGISTRY_SYNC_DISK_BUDGET_BYTES"):  # fmt: skip
            assert said in work["reason"]
        node.gateway.resident = set()
        node.operators.try_now(M)
        await becomes(lambda: (M, 2) not in node.gateway.wanted, "it is here")
        assert here(spine) == {2, ACTIVE}


async def test_a_fetch_that_cannot_fit_removes_nothing(node):
    node.registry.publish(M, 5, size_bytes=2 * SIZE)
    node.registry.without_latest(M)
    async with node.following(ACTIVE) as spine:
        await called(node, spine, 1)
        node.gateway.want(M, 5)
        await becomes(lambda: spine.steps.backoff.get(("fetch", M, 5)), "it has failed")
        assert here(spine) == {1, ACTIVE}
        assert spine.store.use().coming_bytes == 0
        assert not spine.journal.view.quarantines


async def test_fetches_at_once_never_go_over_the_budget_together(node):
    gates = {version: threading.Event() for version in (1, 2)}
    for version, gate in gates.items():
        node.registry.hold_fetches[f"fake:/{M}/{version}"] = gate
    async with node.following(ACTIVE) as spine:
        for version in (1, 2):
            node.gateway.want(M, version)
        await becomes(lambda: spine.store.use().coming_bytes, "one of them is on its way")
        await becomes(
            lambda: len(spine.steps.backoff.failures()) == 1, "the other one finds no room"
        )
        (subject,) = spine.steps.backoff.failures()
        failed = int(subject[2])
        assert "1000 booked by other fetches" in spine.steps.backoff.failures()[subject].reason
        assert spine.store.use() == StoreUse(SIZE, SIZE, 2 * SIZE + 500)
        gates[3 - failed].set()
        await becomes(lambda: (M, 3 - failed) not in node.gateway.wanted, "the first one is here")
        gates[failed].set()
        node.operators.try_now(M)
        await becomes(lambda: (M, failed) not in node.gateway.wanted, "the second one is here")
        assert here(spine) == {failed, ACTIVE}


@pytest.mark.parametrize("ending", ["incomplete", "wrong bytes", "killed"])
async def test_what_was_booked_is_given_back_however_a_fetch_ends(node, ending):
    gate = node.registry.hold_fetches[f"fake:/{M}/1"] = threading.Event()
    async with node.following(ACTIVE) as spine:
        if ending == "wrong bytes":
            node.registry.stamp(M, 1, "sha256:" + "0" * 64)
            await spine.poll()
        node.gateway.want(M, 1)
        await becomes(lambda: spine.store.use().coming_bytes == SIZE, "it is booked")
        if ending == "incomplete":
            node.registry.late_error = IncompleteArtifactError("it moves")
        if ending != "killed":
            gate.set()
            await becomes(lambda: not spine.steps.busy, "it has ended")
            assert spine.store.use().coming_bytes == 0
    assert spine.store.use() == StoreUse(SIZE, 0, 2 * SIZE + 500)
    assert not list((node.folder / "incoming").iterdir())


async def test_a_promotion_makes_room_and_keeps_what_can_be_rolled_back_to(node):
    node.room = RoomLimits(rollback_retention_s=1e10)  # the gateway in memory moves aliases in 1970
    async with node.following(ACTIVE) as spine:
        await called(node, spine, 1)
        await promoted(node, 3)
        assert here(spine) == {3, ACTIVE}
        await node.promotes(2)
        await becomes(lambda: spine.steps.backoff.get(("fetch", M, 2)), "it has failed")
        failure = spine.steps.backoff.get(("fetch", M, 2))
        assert failure is not None
        assert "1000 are left by an alias within the rollback window" in failure.reason
        assert node.gateway.points(M, A) == 3


async def test_what_is_compared_once_more_needs_no_room_in_the_budget(node):
    node.registry.tells_listings = False
    async with node.following(ACTIVE, 3) as spine, asking(node, spine) as client:
        fetched = len(node.registry.fetched)
        spine.fetch_step._confirmed.clear()
        answer = await decide(client, "/rollback", model=M, alias=A)
        assert (answer["outcome"], answer["to_version"]) == ("active", ACTIVE)
        assert len(node.registry.fetched) == fetched + 1
        await idle(spine)
        assert here(spine) == {3, ACTIVE}


async def test_a_gateway_that_is_gone_keeps_everything(node):
    gate = node.registry.hold_fetches[M] = threading.Event()
    gate.set()
    async with node.following(ACTIVE) as spine:
        await called(node, spine, 1)
        gate.clear()
        with spine.store.incoming() as folder:
            node.gateway.down = True
            with pytest.raises(Exception, match="before both the gateway and the registry answer"):
                await spine.disk_room.make(folder, SIZE)
        assert here(spine) == {1, ACTIVE}
        gate.set()
        node.gateway.down = False


async def test_a_budget_that_was_lowered_is_kept_from_the_next_clean_up_on(node):
    node.disk_budget_bytes = 0
    async with node.following(ACTIVE) as spine:
        for version in (2, 1, 3):
            await called(node, spine, version)
        await node.plane.sweep.run()
        assert here(spine) == {1, 2, 3, ACTIVE}
    node.disk_budget_bytes = 2 * SIZE
    async with node.at_rest() as spine:
        await node.plane.sweep.run()
        await idle(spine)
        assert here(spine) == {3, ACTIVE}


async def test_an_operator_sees_use_and_budget(node):
    async with (
        node.control_plane() as spine,
        asking(node, spine) as client,
        listening(node, spine) as command,
    ):
        await node.settles_at(ACTIVE)
        said = {"stored_bytes": SIZE, "coming_bytes": 0, "budget_bytes": 2500}
        assert (await client.get("/state")).json()["store"] == said
        assert json.loads((await command("status", "--json")).stdout)["store"] == said
        assert "artifact store: 1.0 kB of 2.5 kB" in (await command("status")).stdout
        metrics = (await client.get("/metrics")).text
        assert "registry_sync_artifact_store_bytes 1000.0" in metrics
        assert "registry_sync_artifact_store_budget_bytes 2500.0" in metrics
