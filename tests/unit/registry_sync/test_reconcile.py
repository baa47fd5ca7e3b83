"""The spine with a registry and a gateway in memory, a real store and a real SQLite ledger."""

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.control_contract import VersionState
from registry_sync.artifact_store import ArtifactStore
from registry_sync.errors import IncompleteArtifactError
from registry_sync.intake import Intake
from registry_sync.ledger import Ledger
from registry_sync.reconcile import Limits, Reconciler
from registry_sync.records import Hold
from registry_sync.threads import Threads
from tests.fakes.gateway import FakeGateway, becomes
from tests.fakes.registry import FakeRegistry

M = "churn"
A = "champion"


@dataclass
class World:
    """A node whose control plane can be started and killed."""

    folder: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    require_digest: bool = False
    stage_timeout_s: float = 30.0

    @contextlib.asynccontextmanager
    async def control_plane(self, *, poll: bool = True) -> AsyncIterator[Reconciler]:
        """Run a control plane for the block; it ends as if killed: nothing is finished."""
        threads = Threads()
        store = ArtifactStore(self.folder)
        store.open()
        ledger = Ledger(f"sqlite:///{self.folder}/ledger.db", node_id="node", clock=time.time)
        spine = Reconciler(
            source=self.registry,
            intake=Intake(
                source=self.registry,
                fetcher=self.registry,
                store=store,
                require_digest=self.require_digest,
            ),
            store=store,
            ledger=ledger,
            target=self.gateway,
            threads=threads,
            boot_id=f"boot-{time.monotonic_ns()}",
            jitter=lambda: 0.0,
            limits=Limits(stage_timeout_s=self.stage_timeout_s),
            require_digest=self.require_digest,
        )
        running = asyncio.create_task(spine.run())
        try:
            await becomes(lambda: spine.observation.node or running.done(), "it observes")
            if poll:
                await spine.poll()
            yield spine
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert threads.close(patience_s=10), "a thread outlives the control plane"
            ledger.close()

    async def serves(self, version: int, alias: str = A) -> None:
        await becomes(
            lambda: self.gateway.points(M, alias) == version, f"@{alias} points at {version}"
        )

    async def shows(self, version: int, state: VersionState) -> None:
        def look() -> bool:
            entry = self.gateway.version(M, version)
            return entry is not None and entry.state is state

        await becomes(look, f"version {version} is shown as {state}")


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for version in (1, 2):
        made.registry.publish(M, version)
    made.registry.without_latest(M)
    made.registry.point(M, A, 1)
    return made


async def idle(spine: Reconciler) -> None:
    """Wait until a decision has left nothing to do."""

    async def settled() -> bool:
        await spine.next_decision()
        return not spine.busy

    while not await settled():
        pass


# --- the ordinary way -----------------------------------------------------------------------------


async def test_an_alias_is_followed_from_nothing_and_through_a_promotion(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        assert [(s.keep, s.replaces) for s in world.gateway.stages] == [(False, None)]
        world.registry.point(M, A, 2)
        await spine.poll()
        await world.serves(2)
        assert [(s.keep, s.replaces) for s in world.gateway.stages[1:]] == [(True, 1)]
        await idle(spine)
        moved = spine.ledger.activations_of(M, A)
        assert [(a.version, a.previous_version, a.asked_by) for a in moved] == [
            (2, 1, "poll"),
            (1, None, "poll"),
        ]
        tried = {(a.action, a.outcome) for a in spine.ledger.attempts_of(M)}
        assert tried == {("fetch", "complete"), ("stage", "complete"), ("activate", "complete")}
        staged = next(a for a in spine.ledger.attempts_of(M) if a.action == "stage")
        assert staged.durations_s["stage.load"] == 0.25


async def test_nothing_is_fetched_that_no_alias_and_no_caller_means(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        await world.shows(2, VersionState.REGISTERED)
        assert "fake:/churn/2" not in world.registry.fetched
        world.gateway.want(M, 2)
        await world.shows(2, VersionState.AVAILABLE)
        entry = world.gateway.version(M, 2)
        assert entry is not None
        assert entry.digest == world.registry.digest(M, 2)
        await idle(spine)
        assert world.gateway.points(M, A) == 1


async def test_a_slow_fetch_of_one_model_holds_up_no_other(world: World) -> None:
    gate = world.registry.hold_fetches["slow"] = threading.Event()
    for version in (1, 2, 3, 4):
        world.registry.publish("slow", version)
        world.registry.point("slow", f"a{version}", version)
    try:
        async with world.control_plane() as spine:
            await becomes(lambda: len(spine.busy) >= 3, "the ordinary slots are taken")
            world.gateway.want(M, 1)
            await world.shows(1, VersionState.AVAILABLE)
            await world.serves(1)
    finally:
        gate.set()


async def test_the_catalogue_is_sent_once_and_again_to_a_gateway_started_anew(
    world: World,
) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        await idle(spine)
        first = world.gateway.catalogue
        assert first is not None
        await spine.next_decision()
        assert world.gateway.catalogue is first
        world.gateway.restart()
        await becomes(lambda: world.gateway.catalogue, "the catalogue is sent again")
        await idle(spine)
        assert world.gateway.points(M, A) == 1


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_listings", [True, False])
async def test_bytes_altered_after_they_were_first_seen_are_not_promoted(
    world: World, tells_listings: bool
) -> None:
    world.registry.tells_listings = tells_listings
    async with world.control_plane() as spine:
        await world.serves(1)
        world.gateway.want(M, 2)
        await world.shows(2, VersionState.AVAILABLE)
        world.registry.tamper(M, 2)
        world.registry.point(M, A, 2)
        await spine.poll()
        await world.shows(2, VersionState.QUARANTINED)
        await idle(spine)
        assert world.gateway.points(M, A) == 1
        entry = world.gateway.version(M, 2)
        assert entry is not None
        assert "first saw" in str(entry.reason)
        # Stamped as they are now, they are what the publisher wants.
        world.registry.stamp(M, 2, world.registry.digest(M, 2))
        await spine.poll()
        await world.serves(2)
        assert spine.journal.view.quarantines == {}


async def test_a_stamp_that_the_bytes_do_not_have_quarantines(world: World) -> None:
    world.registry.publish(M, 3, stamp="sha256:" + "0" * 64)
    world.registry.without_latest(M)
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.point(M, A, 3)
        await spine.poll()
        await world.shows(3, VersionState.QUARANTINED)
        fetches = world.registry.fetched.count("fake:/churn/3")
        await spine.poll()
        await idle(spine)
        assert world.registry.fetched.count("fake:/churn/3") == fetches == 1
        assert world.gateway.points(M, A) == 1


async def test_an_unfinished_upload_is_tried_again_and_never_quarantined(world: World) -> None:
    world.registry.fetch_error = IncompleteArtifactError("files are missing")
    async with world.control_plane():
        await world.shows(1, VersionState.FAILED)
        entry = world.gateway.version(M, 1)
        assert entry is not None
        assert (entry.reason, entry.retry_at is not None) == ("files are missing", True)
        world.registry.fetch_error = None
        await world.serves(1)


async def test_an_unstamped_version_is_refused_where_a_digest_is_required(world: World) -> None:
    world.require_digest = True
    world.registry.stamp(M, 1, world.registry.digest(M, 1))
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.point(M, A, 2)
        await spine.poll()
        world.gateway.want(M, 2)
        await world.shows(2, VersionState.QUARANTINED)
        assert world.gateway.points(M, A) == 1


# --- stages ---------------------------------------------------------------------------------------


async def test_a_version_that_does_not_warm_is_rejected_and_tried_no_more(world: World) -> None:
    world.gateway.fails[M, 2] = ("warm_up_failed", "the answer is not finite")
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.point(M, A, 2)
        await spine.poll()
        await becomes(lambda: spine.journal.view.rejections, "version 2 is rejected")
        await idle(spine)
        stages = len(world.gateway.stages)
        await spine.poll()
        await idle(spine)
        assert len(world.gateway.stages) == stages
        assert world.gateway.points(M, A) == 1
        entry = world.gateway.version(M, 2)
        assert entry is not None
        assert (entry.state, "not finite" in str(entry.reason)) == (VersionState.AVAILABLE, True)


async def test_a_stage_without_room_is_tried_until_there_is_some(world: World) -> None:
    world.gateway.fails[M, 1] = ("no_room", "every slot is leased")
    async with world.control_plane() as spine:
        await becomes(lambda: len(world.gateway.stages) > 1, "it is tried again")
        assert spine.journal.view.rejections == {}
        world.gateway.fails.clear()
        await world.serves(1)


async def test_a_gateway_started_anew_during_a_stage_is_asked_again(world: World) -> None:
    world.gateway.stages_wait = True
    async with world.control_plane():
        await becomes(lambda: world.gateway.stages, "a stage is under way")
        world.gateway.stages_wait = False
        world.gateway.restart()
        await world.serves(1)
        assert len({stage.stage_id for stage in world.gateway.stages}) == 2


async def test_a_control_plane_killed_during_a_stage_uses_its_standby(world: World) -> None:
    async with world.control_plane():
        await world.serves(1)
    world.registry.point(M, A, 2)
    world.gateway.stages_wait = True
    async with world.control_plane():
        await becomes(lambda: len(world.gateway.stages) == 2, "version 2 is being staged")
    world.gateway.end_stage(world.gateway.stages[1])
    async with world.control_plane():
        await world.serves(2)
    assert len(world.gateway.stages) == 2


async def test_a_stage_without_an_outcome_is_given_up_and_tried_again(world: World) -> None:
    world.stage_timeout_s = 0.05
    world.gateway.stages_wait = True
    async with world.control_plane():
        await becomes(lambda: len(world.gateway.stages) > 1, "it is tried again")


async def test_what_the_gateway_holds_is_asked_for_again_and_again(world: World) -> None:
    world.gateway.refuses[M, A] = ("held", "rolled back by rule")
    async with world.control_plane() as spine:
        await becomes(lambda: spine.backoff.get(("activate", M, A)), "the activation is refused")
        assert world.gateway.points(M, A) is None
        world.gateway.refuses.clear()
        await world.serves(1)


# --- losses ---------------------------------------------------------------------------------------


async def test_a_dead_registry_changes_nothing_and_is_shown(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.down = True
        await spine.poll()

        def shown() -> bool:
            catalogue = world.gateway.catalogue
            return catalogue is not None and bool(catalogue.source_error)

        await becomes(shown, "the catalogue says so")
        assert world.gateway.points(M, A) == 1
        assert world.gateway.version(M, 2) is not None


async def test_an_empty_registry_changes_nothing(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.forget(M)
        for _ in range(3):
            await spine.poll()
            await idle(spine)
        assert world.gateway.points(M, A) == 1
        assert spine.source_error is not None


async def test_an_alias_goes_when_two_listings_agree(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.unpoint(M, A)
        await spine.poll()
        await idle(spine)
        assert world.gateway.points(M, A) == 1
        await spine.poll()
        await becomes(lambda: world.gateway.points(M, A) is None, "the alias is retired")


async def test_a_lost_table_comes_back_with_the_registry_down(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        await idle(spine)
    world.registry.down = True
    world.gateway.restart(lose_table=True)
    async with world.control_plane() as spine:
        await world.serves(1)
        await becomes(lambda: world.gateway.catalogue, "the catalogue is published")
        await idle(spine)
        assert spine.ledger.activations_of(M, A)[0].asked_by == "recovery"


async def test_a_lost_table_of_a_held_alias_comes_back_held(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        world.registry.point(M, A, 2)
        await spine.poll()
        await world.serves(2)
        await spine.hold(Hold(M, A, 2, 1, world.registry.digest(M, 1), "operator", 1.0))
        await world.serves(1)
        world.gateway.restart(lose_table=True)
        await world.serves(1)


async def test_a_lost_ledger_is_filled_again_and_trusts_nothing_anew(world: World) -> None:
    async with world.control_plane():
        await world.serves(1)
        world.gateway.want(M, 2)
        await world.shows(2, VersionState.AVAILABLE)
    (world.folder / "ledger.db").unlink()
    world.registry.tamper(M, 2)
    world.registry.point(M, A, 2)
    async with world.control_plane() as spine:
        await world.shows(2, VersionState.QUARANTINED)
        assert world.gateway.points(M, A) == 1
        await idle(spine)
        assert spine.ledger.activations_of(M, A)[-1].asked_by == "adopted"


async def test_a_ledger_deleted_while_it_runs_is_made_anew(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        await idle(spine)
        (world.folder / "ledger.db").unlink()
        await spine.next_decision()
        await idle(spine)
        assert spine.journal.trouble is None
        assert (M, 1) in spine.ledger.view().pins
        world.registry.point(M, A, 2)
        await spine.poll()
        await world.serves(2)
        await idle(spine)
        assert [a.version for a in spine.ledger.activations_of(M, A)] == [2, 1]


async def test_a_lost_artifact_store_is_fetched_again(world: World) -> None:
    async with world.control_plane():
        await world.serves(1)
    shutil.rmtree(world.folder / "artifacts")
    async with world.control_plane():
        await world.shows(1, VersionState.AVAILABLE)


async def test_a_gateway_that_goes_and_comes_back_is_followed(world: World) -> None:
    async with world.control_plane() as spine:
        await world.serves(1)
        world.gateway.stop()
        await becomes(lambda: spine.observation.unreachable, "it is noticed")
        world.registry.point(M, A, 2)
        await spine.poll()
        world.gateway.down = False
        world.gateway.restart()
        await world.serves(2)


async def test_it_ends_in_the_middle_of_a_fetch(world: World) -> None:
    world.registry.hold_fetches[M] = threading.Event()
    async with world.control_plane() as spine:
        await becomes(lambda: spine.busy, "a fetch is under way")
        spine.threads.stop()
    assert list((world.folder / "staging").iterdir()) == []
