"""The spine with a registry and a gateway in memory, a real store and a real SQLite ledger."""

import asyncio
import shutil
import threading
import time
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import get_args

import pytest

from gateway.contract.catalogue import VersionState
from gateway.contract.node_state import OBSERVE_TIMEOUT_S
from gateway.contract.rollout_requests import PERMANENT_STAGE_FAILURES, StageFailure
from registry_sync.domain import Activation, Hold, LedgerView
from registry_sync.errors import (
    IncompleteArtifactError,
    LedgerError,
    NoDiskRoomError,
    SourceError,
    StoreError,
    SyncError,
    UnstableUploadError,
)
from registry_sync.planning.actions import Activate
from registry_sync.reconcile.reconciler import Reconciler
from registry_sync.reconcile.steps.outcome import StepFailure, Stopwatch
from tests.fakes.nodes import A, M, NodeInMemory, idle, moved, polled, promoted
from tests.fakes.waiting import becomes

# --- the ordinary way -----------------------------------------------------------------------------


async def test_an_alias_is_followed_from_nothing_and_through_a_promotion(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine:
        assert [(s.keep, s.replaces) for s in node.gateway.stages] == [(False, None)]
        await promoted(node, 2)
        assert [(s.keep, s.replaces) for s in node.gateway.stages[1:]] == [(True, 1)]
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


async def test_bytes_that_change_during_the_stage_are_not_activated(node: NodeInMemory) -> None:
    async with node.following(1):
        node.gateway.stages_wait = True
        await node.promotes(2)
        await becomes(lambda: len(node.gateway.stages) == 2, "version 2 is staged")
        node.registry.tamper(M, 2)
        node.gateway.stages_wait = False
        node.gateway.end_stage(node.gateway.stages[1])
        await node.shows(2, VersionState.QUARANTINED)
        assert node.gateway.points(M, A) == 1


async def test_a_standby_makes_room_when_the_wish_moves_on(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.gateway.refuses[M, A] = ("draining", "not now")
        await node.promotes(2)
        await becomes(lambda: node.gateway.standbys, "version 2 stands by")
        node.registry.publish(M, 3, latest=False)
        await node.promotes(3)

        def versions() -> list[int]:
            return [one.version for one in node.gateway.standbys.values()]

        await becomes(lambda: versions() == [3], "version 3 stands by, and version 2 no longer")
        node.gateway.refuses.clear()
        node.operators.try_now(M)
        await node.settles_at(3)
        told = [(one.action, one.version) for one in spine.ledger.attempts_of(M)]
        assert told.count(("retire_standby", 2)) == 1
        assert ("retire_standby", 3) not in told, "what was activated is no standby any more"


async def test_the_snapshot_is_sent_again_only_when_it_says_something_new(
    node: NodeInMemory,
) -> None:
    async with node.at_rest(1) as spine:
        sent, listed_at = node.gateway.snapshots, node.listed_at
        node.registry.now = listed_at + 60
        await spine.poll()
        await becomes(
            lambda: node.listed_at == listed_at + 60, "the gateway knows of the new listing"
        )
        assert node.gateway.snapshots == sent
        node.gateway.restart()
        await becomes(lambda: node.gateway.catalogue, "a gateway that has none gets the whole")
        node.registry.publish(M, 3)
        await spine.poll()
        await node.shows(3, VersionState.AVAILABLE)


async def test_nothing_is_fetched_that_no_alias_and_no_caller_means(node: NodeInMemory) -> None:
    async with node.following(1):
        await node.shows(2, VersionState.REGISTERED)
        assert "fake:/churn/2" not in node.registry.fetched
        await node.brings(2)
        entry = node.entry(2)
        assert entry.digest == node.registry.digest(M, 2)
        await node.stays_at(1)


@pytest.mark.parametrize("at_once", [5, 9])
async def test_callers_of_one_slow_model_hold_up_no_promotion_of_another(
    node: NodeInMemory, at_once: int
) -> None:
    gate = node.registry.hold_fetches["slow"] = threading.Event()
    try:
        async with node.following(1) as spine:
            for version in range(1, at_once + 1):
                node.registry.publish("slow", version)
            node.registry.without_latest("slow")
            await spine.poll()
            for version in range(1, at_once + 1):
                node.gateway.want("slow", version)
            await becomes(lambda: len(spine.steps.busy) == 2, "two of its versions are fetched")
            await node.promotes(2)
            await node.serves(2)
            gate.set()
            await becomes(lambda: not node.gateway.wanted, "all of them come in the end")
    finally:
        gate.set()


async def test_aliases_that_move_together_leave_no_standby_behind(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.registry.point(M, "other", 1)
    async with node.following(1) as spine:
        await node.serves(1, "other")
        confirm, go = spine.fetch_step.confirm, asyncio.Event()

        async def slow_for_the_other(action: Activate, watch: Stopwatch) -> StepFailure | None:
            if action.alias == "other":
                await go.wait()
            return await confirm(action, watch)

        monkeypatch.setattr(spine.fetch_step, "confirm", slow_for_the_other)
        for alias in (A, "other"):
            node.registry.point(M, alias, 2)
        await spine.poll()
        await node.serves(2)
        for _ in range(3):
            await spine.next_decision()
        go.set()
        await node.serves(2, "other")
        await idle(spine)
    assert node.gateway.standbys == {}


async def test_comparisons_that_take_long_hold_up_no_fetch(node: NodeInMemory) -> None:
    aliases = [f"a{number}" for number in range(8)]
    node.registry.tells_listings = False
    node.registry.publish("slow", 1)
    node.registry.publish("slow", 2)
    node.registry.without_latest("slow")
    for alias in aliases:
        node.registry.point("slow", alias, 1)
    async with node.following(1) as spine:
        await becomes(
            lambda: all(node.gateway.points("slow", alias) == 1 for alias in aliases),
            "the slow model serves",
        )
        node.gateway.want("slow", 2)
        await becomes(lambda: ("slow", 2) in spine.journal.view.accepted, "its version 2 is here")
        await idle(spine)
        gate = node.registry.hold_fetches["slow"] = threading.Event()
        try:
            for alias in aliases:
                node.registry.point("slow", alias, 2)
            await spine.poll()
            await becomes(
                lambda: (
                    sum(subject[0] == "activate" for subject in spine.steps.busy) == len(aliases)
                ),
                "its aliases are compared",
            )
            await node.brings(2)
        finally:
            gate.set()


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_listings", [True, False])
async def test_bytes_altered_after_they_were_first_seen_are_not_promoted(
    node: NodeInMemory, tells_listings: bool
) -> None:
    node.registry.tells_listings = tells_listings
    async with node.following(1) as spine:
        await node.brings(2)
        node.registry.tamper(M, 2)
        await node.promotes(2)
        await node.shows(2, VersionState.QUARANTINED)
        await node.stays_at(1)
        entry = node.entry(2)
        assert "this node accepted" in str(entry.reason)
        # Stamped as they are now, they are what the publisher wants.
        node.registry.stamp(M, 2, node.registry.digest(M, 2))
        await spine.poll()
        await node.serves(2)
        assert spine.journal.view.quarantines == {}


async def test_a_stamp_that_the_bytes_do_not_have_quarantines(node: NodeInMemory) -> None:
    node.registry.publish(M, 3, stamp="sha256:" + "0" * 64)
    node.registry.without_latest(M)
    async with node.following(1) as spine:
        await node.promotes(3)
        await node.shows(3, VersionState.QUARANTINED)
        fetches = node.registry.fetched.count("fake:/churn/3")
        await polled(spine)
        assert node.registry.fetched.count("fake:/churn/3") == fetches == 1
        assert node.gateway.points(M, A) == 1


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (IncompleteArtifactError("files are missing"), VersionState.FAILED),
        (UnstableUploadError("the newest file is 0 s old"), VersionState.FETCHING),
    ],
)
async def test_an_unfinished_upload_is_tried_again_and_waited_for_if_it_is_only_too_new(
    node: NodeInMemory, error: SyncError, state: VersionState
) -> None:
    def told() -> tuple[object, ...] | None:
        entry = node.gateway.version(M, 1)
        return (entry.state, entry.reason, entry.retry_at is not None) if entry else None

    node.registry.fetch_error = error
    async with node.control_plane():
        await becomes(lambda: told() == (state, error.reason, True), "it is shown")
        node.registry.fetch_error = None
        await node.serves(1)


async def test_an_unstamped_version_is_refused_where_a_digest_is_required(
    node: NodeInMemory,
) -> None:
    node.require_digest = True
    node.registry.stamp(M, 1, node.registry.digest(M, 1))
    async with node.following(1):
        await node.promotes(2)
        node.gateway.want(M, 2)
        await node.shows(2, VersionState.QUARANTINED)
        assert node.gateway.points(M, A) == 1


# --- stages ---------------------------------------------------------------------------------------


async def test_a_version_that_does_not_warm_is_rejected_and_tried_no_more(
    node: NodeInMemory,
) -> None:
    node.gateway.fails[M, 2] = ("warm_up_failed", "the answer is not finite")
    async with node.following(1) as spine:
        await node.promotes(2)
        await becomes(lambda: spine.journal.view.rejections, "version 2 is rejected")
        await idle(spine)
        stages = len(node.gateway.stages)
        await polled(spine)
        assert len(node.gateway.stages) == stages
        assert node.gateway.points(M, A) == 1
        entry = node.entry(2)
        assert (entry.state, "not finite" in str(entry.reason)) == (VersionState.AVAILABLE, True)


async def rejected(node: NodeInMemory, spine: Reconciler) -> None:
    """Have version 2 rejected, and what it lacked put right."""
    await node.serves(1)
    node.gateway.fails[M, 2] = ("load_failed", "a library is missing")
    await node.promotes(2)
    await becomes(lambda: spine.journal.view.rejections, "version 2 is rejected")
    await idle(spine)
    node.gateway.fails.clear()


async def test_a_rejected_version_is_tried_again_when_its_alias_is_moved_there_anew(
    node: NodeInMemory,
) -> None:
    async with node.control_plane() as spine:
        await rejected(node, spine)
    node.gateway.restart()
    async with node.at_rest() as spine:
        assert spine.journal.view.rejections  # a start is no new wish
        entry = node.entry(2)
        assert "when the registry moves an alias to it anew" in str(entry.reason)
        await moved(node, 1)
        assert spine.journal.view.rejections  # nor is a wish for something else
        await promoted(node, 2)
        assert spine.journal.view.rejections == {}


async def test_a_rejection_whose_release_the_ledger_did_not_take_is_released_later(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> bool:
        raise LedgerError("the ledger does not answer")

    async with node.control_plane() as spine:
        await rejected(node, spine)
        await node.promotes(1)
        node.registry.point(M, A, 2)
        with monkeypatch.context() as patched:
            patched.setattr(spine.ledger, "end_rejection", silent)
            await spine.poll()
            await node.stays_at(1)
        await spine.poll()
        await node.serves(2)


async def test_an_alias_that_could_not_be_followed_for_a_while_is_no_new_wish(
    node: NodeInMemory,
) -> None:
    async with node.control_plane() as spine:
        await rejected(node, spine)
        listed = node.registry.models[M]
        node.registry.models[M] = replace(
            listed, versions={1: listed.versions[1]}, aliases={}, unfollowed=frozenset({A})
        )
        await spine.poll()
        node.registry.models[M] = listed
        await polled(spine)
        assert spine.journal.view.rejections


@pytest.mark.parametrize("failure", sorted({*get_args(StageFailure)} - PERMANENT_STAGE_FAILURES))
async def test_a_stage_that_may_pass_another_time_is_tried_until_it_does(
    node: NodeInMemory, failure: StageFailure
) -> None:
    node.gateway.fails[M, 1] = (failure, "every slot is leased")
    async with node.control_plane() as spine:
        await becomes(lambda: len(node.gateway.stages) > 1, "it is tried again")
        assert spine.journal.view.rejections == {}
        node.gateway.fails.clear()
        await node.serves(1)


async def test_a_gateway_started_anew_during_a_stage_is_asked_again(node: NodeInMemory) -> None:
    node.gateway.stages_wait = True
    async with node.control_plane():
        await becomes(lambda: node.gateway.stages, "a stage is under way")
        node.gateway.stages_wait = False
        node.gateway.restart()
        await node.serves(1)
        assert len({stage.stage_id for stage in node.gateway.stages}) == 2


async def test_a_control_plane_killed_during_a_stage_uses_its_standby(node: NodeInMemory) -> None:
    async with node.control_plane():
        await node.serves(1)
    node.registry.point(M, A, 2)
    node.gateway.stages_wait = True
    async with node.control_plane():
        await becomes(lambda: len(node.gateway.stages) == 2, "version 2 is being staged")
    node.gateway.end_stage(node.gateway.stages[1])
    async with node.control_plane():
        await node.serves(2)
    assert len(node.gateway.stages) == 2


async def test_a_stage_without_an_outcome_is_given_up_and_tried_again(node: NodeInMemory) -> None:
    node.stage_timeout_s = 0.05
    node.gateway.stages_wait = True
    async with node.control_plane():
        await becomes(lambda: len(node.gateway.stages) > 1, "it is tried again")


async def test_what_the_gateway_holds_is_asked_for_again_and_again(node: NodeInMemory) -> None:
    node.gateway.refuses[M, A] = ("digest_refused", "automatic rollback")
    async with node.control_plane() as spine:
        await becomes(
            lambda: spine.steps.backoff.get(("activate", M, A)), "the activation is refused"
        )
        assert node.gateway.points(M, A) is None
        node.gateway.refuses.clear()
        await node.serves(1)


# --- losses ---------------------------------------------------------------------------------------


async def test_a_dead_registry_changes_nothing_and_is_shown(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.registry.down = True
        await spine.poll()

        def shown() -> bool:
            catalogue = node.gateway.catalogue
            return catalogue is not None and bool(catalogue.source_error)

        await becomes(shown, "the catalogue says so")
        assert node.gateway.points(M, A) == 1
        assert node.gateway.version(M, 2) is not None


async def test_an_empty_registry_changes_nothing(node: NodeInMemory) -> None:
    async with node.following(1) as spine:
        node.registry.forget(M)
        await polled(spine, times=3)
        assert node.gateway.points(M, A) == 1
        assert spine.listings.error is not None


async def test_a_lost_table_comes_back_with_the_registry_down(node: NodeInMemory) -> None:
    await node.followed(1)
    node.registry.down = True
    node.gateway.restart(lose_table=True)
    async with node.following(1) as spine:
        await becomes(lambda: node.gateway.catalogue, "the catalogue is published")
        await idle(spine)
        assert spine.ledger.activations_of(M, A)[0].asked_by == "recovery"


IN_THE_WAY = (
    NoDiskRoomError("the disk is nearly full"),
    IncompleteArtifactError("files are missing"),
    StoreError("the disk refused"),
    SourceError("the storage does not answer"),
)


@pytest.mark.parametrize("error", IN_THE_WAY, ids=lambda error: type(error).__name__)
async def test_a_rollback_needs_no_comparison_that_cannot_be_made(
    node: NodeInMemory, error: SyncError
) -> None:
    node.registry.tells_listings = False
    async with node.following(1, 2):
        node.registry.fetch_error = error
        await node.operators.hold(Hold(M, A, 2, 1, node.registry.digest(M, 1), "operator", 1.0))
        await node.serves(1)


@pytest.mark.parametrize(
    "error",
    [error for error in IN_THE_WAY if not isinstance(error, IncompleteArtifactError)],
    ids=lambda error: type(error).__name__,
)
async def test_a_lost_table_comes_back_without_a_comparison_that_cannot_be_made(
    node: NodeInMemory, error: SyncError
) -> None:
    node.registry.tells_listings = False
    await node.followed(1)
    node.registry.fetch_error = error
    node.gateway.restart(lose_table=True)
    async with node.control_plane():
        await node.serves(1)


async def test_what_cannot_be_compared_because_it_is_incomplete_is_not_recovered(
    node: NodeInMemory,
) -> None:
    node.registry.tells_listings = False
    await node.followed(1)
    node.registry.fetch_error = IncompleteArtifactError("files are missing")
    node.gateway.restart(lose_table=True)
    async with node.control_plane() as spine:
        await becomes(lambda: spine.steps.backoff.get(("activate", M, A)), "it is not activated")
        assert node.gateway.points(M, A) is None
        node.registry.fetch_error = None
        await node.serves(1)


async def test_a_promotion_waits_until_its_bytes_were_compared(node: NodeInMemory) -> None:
    node.registry.tells_listings = False
    async with node.following(1) as spine:
        await node.brings(2)
        node.registry.fetch_error = NoDiskRoomError("the disk is nearly full")
        await node.promotes(2)
        await becomes(lambda: spine.steps.backoff.get(("activate", M, A)), "the comparison fails")
        assert node.gateway.points(M, A) == 1
        node.registry.fetch_error = None
        await node.serves(2)


async def test_a_promotion_waits_for_no_retry_of_another_one(node: NodeInMemory) -> None:
    node.registry.publish(M, 3, latest=False)
    async with node.following(1) as spine:
        node.gateway.refuses[M, A] = ("table_write_failed", "the disk is full")
        await node.promotes(2)
        await becomes(lambda: spine.steps.backoff.get(("activate", M, A)), "it is refused")
        for _ in range(9):  # as if it had gone on for long
            spine.steps.backoff.failed(
                ("activate", M, A), "full", goal=(2, node.registry.digest(M, 2))
            )
        node.gateway.refuses.clear()
        await promoted(node, 3)


@pytest.mark.parametrize("to", [1, 4])
async def test_what_is_due_now_does_not_wait_for_an_older_comparison(
    node: NodeInMemory, to: int
) -> None:
    for version in (3, 4):
        node.registry.publish(M, version)
    node.registry.without_latest(M)
    node.registry.tells_listings = False
    async with node.following(1, 2) as spine:
        await node.brings(3)
        await idle(spine)
        node.registry.hold_fetches["fake:/churn/3"] = threading.Event()
        await node.promotes(3)
        await becomes(lambda: ("activate", M, A) in spine.steps.busy, "version 3 is compared")
        if to == 1:
            await node.operators.hold(Hold(M, A, 3, 1, node.registry.digest(M, 1), "operator", 1.0))
        else:
            await node.promotes(4)
        await node.settles_at(to)
        assert [one.version for one in node.gateway.activations] == [1, 2, to]
        staging = node.folder / "incoming"
        await becomes(lambda: not list(staging.iterdir()), "the fetch of version 3 has ended")


async def test_a_rollback_to_bytes_that_were_altered_since_is_refused(node: NodeInMemory) -> None:
    node.registry.tells_listings = False
    async with node.following(1, 2):
        before = node.registry.digest(M, 1)
        node.registry.tamper(M, 1)
        await node.operators.hold(Hold(M, A, 2, 1, before, "operator", 1.0))
        await node.shows(1, VersionState.QUARANTINED)
        await node.stays_at(2)


async def test_a_lost_ledger_is_filled_again_and_trusts_nothing_anew(node: NodeInMemory) -> None:
    async with node.following(1):
        await node.brings(2)
    (node.folder / "ledger.db").unlink()
    node.registry.tamper(M, 2)
    node.registry.point(M, A, 2)
    async with node.control_plane() as spine:
        await node.shows(2, VersionState.QUARANTINED)
        assert node.gateway.points(M, A) == 1
        await idle(spine)
        assert spine.ledger.activations_of(M, A)[-1].asked_by == "adopted"


async def test_a_ledger_deleted_while_it_runs_is_made_anew(node: NodeInMemory) -> None:
    async with node.at_rest(1) as spine:
        (node.folder / "ledger.db").unlink()
        await spine.next_decision()
        await idle(spine)
        assert spine.journal.trouble is None
        assert (M, 1) in spine.ledger.view().accepted
        await promoted(node, 2)
        assert [a.version for a in spine.ledger.activations_of(M, A)] == [2, 1]


async def test_a_move_is_recorded_once_though_the_ledger_cannot_be_read_just_after(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.at_rest(1) as spine:
        read, record, failures = spine.ledger.view, spine.ledger.activated, [1] * 3

        def view(models: AbstractSet[str] | None = None) -> LedgerView:
            if recorded and failures:
                failures.pop()
                raise LedgerError("the ledger does not answer: a failover")
            return read(models)

        def activated(activation: Activation) -> None:
            record(activation)
            recorded.append(activation.version)

        recorded = list[int]()
        monkeypatch.setattr(spine.ledger, "view", view)
        monkeypatch.setattr(spine.ledger, "activated", activated)
        await promoted(node, 2)
        await becomes(lambda: not failures, "the ledger is read again")
        await idle(spine)
        moves = spine.ledger.activations_of(M, A)
        assert [(one.version, one.asked_by) for one in moves] == [(2, "poll"), (1, "poll")]


@pytest.mark.parametrize("lasting", [False, True])
async def test_a_move_that_an_operator_wanted_is_recorded_later_as_the_operators(
    node: NodeInMemory, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.at_rest(1) as spine:
        record, failures = spine.ledger.activated, [1]

        def activated(activation: Activation) -> None:
            if failures:
                failures.pop()
                raise LedgerError("the ledger does not answer: a failover")
            record(activation)

        monkeypatch.setattr(spine.ledger, "activated", activated)
        digest = node.registry.digest(M, 2)
        await node.brings(2)
        await node.operators.hold(Hold(M, A, 1, 2, digest, "operator", 1.0, lasting=lasting))
        await node.settles_at(2)
        await becomes(lambda: len(spine.ledger.activations_of(M, A)) == 2, "it is recorded")
        last = spine.ledger.activations_of(M, A)[0]
        assert (last.version, last.asked_by, last.pinned) == (2, "operator", lasting)


async def test_a_lost_artifact_store_is_fetched_again(node: NodeInMemory) -> None:
    async with node.control_plane():
        await node.serves(1)
    shutil.rmtree(node.folder / "artifacts")
    async with node.control_plane():
        await node.shows(1, VersionState.AVAILABLE)


async def test_a_gateway_that_is_back_without_news_is_followed_at_once(node: NodeInMemory) -> None:
    async with node.at_rest(1) as spine:
        node.gateway.down = True  # as one that is frozen: its long poll stays open, and it is gone
        await node.promotes(2)
        await becomes(lambda: spine.observation.unreachable, "another call notices")
        node.gateway.down = False
        began_at = time.monotonic()
        await node.serves(2)
        assert time.monotonic() - began_at < OBSERVE_TIMEOUT_S / 2


async def test_it_ends_in_the_middle_of_a_fetch(node: NodeInMemory) -> None:
    node.registry.hold_fetches[M] = threading.Event()
    async with node.control_plane() as spine:
        await becomes(lambda: spine.steps.busy, "a fetch is under way")
        spine.threads.stop()
    assert list((node.folder / "incoming").iterdir()) == []


async def test_a_gateway_that_was_silent_is_heard_again_at_once(node: NodeInMemory) -> None:
    """What it says is what it says then: nothing of it need have changed."""
    async with node.at_rest(1) as spine:
        spine.observation.suspect("it did not answer")
        await becomes(lambda: spine.observation.unreachable, "it is lost")
        await becomes(lambda: not spine.observation.unreachable, "it is heard", patience_s=10)
