"""A version is more than its name and number: deleted and made anew, altered, gone, renamed."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contract import AliasRef
from gateway.contract.catalogue import VersionState
from registry_sync.domain import Initiator
from registry_sync.domain.creation import FIRST_CREATION
from registry_sync.errors import LedgerError, SourceError
from registry_sync.reconcile.reconciler import Reconciler
from tests.fakes.callers import WAITS, answer
from tests.fakes.nodes import A, M, NodeInMemory, idle, polled, promoted
from tests.fakes.operating import asking, decide, listening, refused
from tests.fakes.waiting import becomes

MLFLOW, S3 = True, False
KINDS = pytest.mark.parametrize("marks", [MLFLOW, S3], ids=["marks", "no marks"])
STAMPS = pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])


def node_on(folder: Path, *, marks: bool = MLFLOW, stamped: bool = False) -> NodeInMemory:
    """A node whose registry has version 1 of a model, the alias at it."""
    node = NodeInMemory(folder)
    node.registry.marks_creations = marks
    node.registry.publish(M, 1)
    if stamped:
        node.registry.stamp(M, 1, node.registry.digest(M, 1))
    node.registry.without_latest(M)
    node.registry.point(M, A, 1)
    return node


@pytest.fixture
def node(tmp_path: Path) -> NodeInMemory:
    return node_on(tmp_path)


def make_anew(node: NodeInMemory, *, stamped: bool = False) -> str:
    """Make version 1 anew, with other bytes, the alias at it."""
    digest = node.registry.make_anew(M, 1, stamp=stamped)
    node.registry.without_latest(M)
    node.registry.point(M, A, 1)
    return digest


async def made_anew(node: NodeInMemory, *, stamped: bool = False) -> str:
    """Make version 1 anew, and have that listed."""
    digest = make_anew(node, stamped=stamped)
    await node.plane.reconciler.poll()
    return digest


async def gone(node: NodeInMemory, spine: Reconciler) -> None:
    """Have the model deleted, and two listings see it; another model is there still."""
    node.registry.publish("other", 1)
    node.registry.forget(M)
    await polled(spine, times=2)


def answers(node: NodeInMemory, selector: str) -> str:
    return answer(node.gateway, M, selector)


async def means(node: NodeInMemory, digest: str) -> None:
    await becomes(lambda: answers(node, f"@{A}") == digest, "the alias means the new bytes")


async def explained(client: httpx.AsyncClient, selector: str) -> dict[str, Any]:
    found = (await client.get("/explain", params={"model": M, "selector": selector})).json()
    told: dict[str, Any] = found["selectors"][0]
    return told


async def history(client: httpx.AsyncClient) -> list[str]:
    entries = (await client.get("/history", params={"model": M})).json()["entries"]
    return [entry["what"] for entry in entries]


# --- made anew ------------------------------------------------------------------------------------


@STAMPS
async def test_a_version_made_anew_is_another_one_where_nobody_saw_it_go(
    tmp_path: Path, stamped: bool
) -> None:
    node = node_on(tmp_path, stamped=stamped)
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, asking(node, spine) as client:
        node.gateway.stages_wait = True
        new = await made_anew(node, stamped=stamped)
        await becomes(lambda: len(node.gateway.stages) == 2, "the new bytes are staged")
        assert answers(node, f"@{A}") == old, "until its successor is active"
        assert answers(node, "1") == new, "for a caller by number the old bytes are over"
        told = await explained(client, A)
        assert told["why"] == "under_way"
        assert "made anew" in told["reason"]
        node.gateway.stages_wait = False
        node.gateway.end_stage(node.gateway.stages[1])
        await means(node, new)
        await idle(spine)
        assert (await explained(client, A))["why"] == "follows"
        assert "made anew" in await history(client)
        known = spine.journal.view.accepted[M, 1]
        assert (known.digest, known.creation) == (new, node.registry.version(M, 1).creation)


async def test_callers_by_number_wait_for_bytes_that_are_not_here_yet(node: NodeInMemory) -> None:
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine:
        new = make_anew(node)
        release = node.registry.hold_fetches[f"fake:/{M}/1/1"] = threading.Event()
        await spine.poll()
        await node.shows(1, VersionState.FETCHING)
        assert (answers(node, "1"), answers(node, f"@{A}")) == (WAITS, old)
        release.set()
        await means(node, new)
        assert answers(node, "1") == new


@KINDS
@STAMPS
async def test_a_version_made_anew_is_another_one_where_it_was_seen_to_go(
    tmp_path: Path, marks: bool, stamped: bool
) -> None:
    node = node_on(tmp_path, marks=marks, stamped=stamped or not marks)
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, asking(node, spine) as client:
        await gone(node, spine)
        assert answers(node, f"@{A}") == "alias_not_found"
        assert answers(node, "1") == old, "it answers while its bytes are kept"
        new = await made_anew(node, stamped=stamped or not marks)
        await means(node, new)
        assert answers(node, "1") == new
        await idle(spine)
        assert "made anew" in await history(client)
        assert spine.journal.view.quarantines == {}


@KINDS
async def test_that_a_version_was_gone_is_known_after_a_restart(
    tmp_path: Path, marks: bool
) -> None:
    node = node_on(tmp_path, marks=marks, stamped=True)
    async with node.following(1) as spine:
        await gone(node, spine)
    new = make_anew(node, stamped=True)
    async with node.control_plane() as spine:
        await means(node, new)
        await idle(spine)
        assert spine.journal.view.quarantines == {}


async def test_one_listing_that_lacks_a_version_does_not_make_it_anew(tmp_path: Path) -> None:
    node = node_on(tmp_path, marks=S3, stamped=True)
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine:
        node.registry.publish("other", 1)
        for _ in range(3):
            kept = node.registry.models.pop(M)
            await spine.poll()
            node.registry.models[M] = kept
            await spine.poll()
        await made_anew(node, stamped=True)
        await node.shows(1, VersionState.QUARANTINED)
        assert (answers(node, f"@{A}"), answers(node, "1")) == (old, old)


@STAMPS
async def test_a_model_that_was_renamed_away_leaves_its_name_to_another(
    tmp_path: Path, stamped: bool
) -> None:
    node = node_on(tmp_path, stamped=stamped)
    old = node.registry.digest(M, 1)
    async with node.following(1):
        node.registry.rename(M, "archived")
        new = await made_anew(node, stamped=stamped)
        await means(node, new)
        await becomes(
            lambda: answer(node.gateway, "archived", f"@{A}") == old, "the other name has the bytes"
        )
        assert answers(node, "1") == new
        assert answer(node.gateway, "archived", "1") == old


@pytest.mark.parametrize("was_there", [True, False])
async def test_a_model_that_is_renamed_keeps_its_digest_also_over_a_used_name(
    tmp_path: Path, was_there: bool
) -> None:
    node = NodeInMemory(tmp_path)
    node.registry.publish("next", 1)
    node.registry.point("next", A, 1)
    if was_there:
        make_anew(node)
    async with node.control_plane() as spine:
        good = node.registry.digest("next", 1)
        await becomes(lambda: answer(node.gateway, "next", f"@{A}") == good, "it serves")
        if was_there:
            await means(node, node.registry.digest(M, 1))
            node.registry.forget(M)
        await idle(spine)
        node.registry.rename("next", M)
        node.registry.tamper(M, 1)
        node.gateway.restart(lose_table=True)  # the bytes are compared before they serve
        await spine.poll()
        await node.shows(1, VersionState.QUARANTINED)
        await idle(spine)
        assert spine.journal.view.quarantines[M, 1].expected_digest == good
        assert answers(node, f"@{A}") != node.registry.digest(M, 1)


async def test_a_renamed_version_keeps_its_digest_where_its_old_name_was_taken_first(
    node: NodeInMemory,
) -> None:
    """A hint shows the model that took the name before any listing shows the one that left it."""
    async with node.following(1) as spine:
        node.registry.rename(M, "archived")
        new = make_anew(node)
        spine.hint(M, Initiator.WEBHOOK)
        await means(node, new)
        node.registry.tamper("archived", 1)
        await spine.poll()
        await becomes(lambda: ("archived", 1) in spine.journal.view.quarantines, "it is altered")
        assert "data/weights" in spine.journal.view.quarantines["archived", 1].reason


async def test_what_an_operator_accepted_goes_along_when_a_model_gets_its_old_name_back(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, listening(node, spine) as command:
        node.registry.rename(M, "archived")
        node.registry.tamper("archived", 1)
        new = node.registry.digest("archived", 1)
        await spine.poll()
        await becomes(lambda: ("archived", 1) in spine.journal.view.quarantines, "it is altered")
        accepted = await command("quarantine", "accept", "archived/1")
        assert accepted.exit_code == 0, accepted.stderr
        await spine.poll()
        node.registry.rename("archived", M)
        await spine.poll()
        await means(node, new)
        assert (M, 1) not in spine.journal.view.quarantines


async def test_nothing_goes_back_from_a_version_made_anew_to_its_predecessor(
    node: NodeInMemory,
) -> None:
    async with node.at_rest(1) as spine, asking(node, spine) as client:
        new = await made_anew(node)
        await means(node, new)
        await idle(spine)
        reason = await refused(client, "/rollback", model=M, alias=A)
        assert "point the alias at another version" in reason
        assert "rollback --to" not in reason, "that is what is active"
        assert spine.journal.view.holds == {}
        assert answers(node, f"@{A}") == new


@STAMPS
@pytest.mark.parametrize("remembered", [True, False])
async def test_old_bytes_do_not_answer_by_number_where_the_newest_listing_was_not_written(
    tmp_path: Path, stamped: bool, remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_on(tmp_path, stamped=stamped)
    old = node.registry.digest(M, 1)

    def refuse(*_: object) -> None:
        raise LedgerError("the process is killed before this")

    async with node.control_plane() as spine:
        if not remembered:
            monkeypatch.setattr(spine.ledger, "remember_listing", refuse)
        await means(node, old)
        await idle(spine)
        make_anew(node, stamped=stamped)
        node.registry.fetch_error = SourceError("the storage does not answer")
        monkeypatch.setattr(spine.ledger, "remember_listing", refuse)
        await spine.poll()
        await becomes(lambda: answers(node, "1") == WAITS, "callers wait for the new bytes")
    monkeypatch.undo()
    node.registry.down = True
    async with node.control_plane() as spine:
        await becomes(lambda: spine.listings.error is not None, "the registry is down")
        await idle(spine)
        assert answers(node, "1") in (WAITS, "model_load_failed")
        assert answers(node, f"@{A}") == old, "what serves, serves"
        node.registry.down, node.registry.fetch_error = False, None
        await spine.poll()
        await means(node, node.registry.digest(M, 1))


async def test_the_same_bytes_made_anew_change_nothing_for_callers(node: NodeInMemory) -> None:
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, asking(node, spine) as client:
        make_anew(node)
        node.registry.files[f"fake:/{M}/1/1"] = node.registry.files[f"fake:/{M}/1"]
        await polled(spine)
        assert (answers(node, f"@{A}"), answers(node, "1")) == (old, old)
        assert (await explained(client, A))["why"] == "follows"
        assert spine.journal.view.accepted[M, 1].creation == node.registry.version(M, 1).creation
        assert node.gateway.generation == 1


async def test_one_made_anew_that_does_not_load_leaves_what_served(node: NodeInMemory) -> None:
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, asking(node, spine) as client:
        node.gateway.fails[M, 1] = ("warm_up_failed", "it answers nonsense")
        new = await made_anew(node)
        await becomes(lambda: spine.journal.view.rejections, "it is rejected")
        await idle(spine)
        assert (answers(node, f"@{A}"), answers(node, "1")) == (old, new)
        told = await explained(client, A)
        assert told["why"] == "rejected"
        assert "the bytes of its predecessor serve" in told["reason"]
        assert "it answers nonsense" in told["reason"]
        (model,) = (await client.get("/state")).json()["models"]
        assert model["aliases"][0]["reason"] == told["reason"]


async def test_a_version_made_anew_with_wrong_bytes_answers_no_caller(node: NodeInMemory) -> None:
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, asking(node, spine) as client:
        make_anew(node, stamped=True)
        node.registry.tamper(M, 1)
        await spine.poll()
        await node.shows(1, VersionState.QUARANTINED)
        assert answers(node, f"@{A}") == old, "the verified copy goes on"
        assert answers(node, "1") == "version_quarantined", "but not under another one's number"
        told = await explained(client, A)
        assert (told["why"], told["version"]) == ("quarantined", 1)
        assert "made anew" in told["reason"]


async def test_a_fetch_of_a_creation_that_is_gone_holds_up_nothing(node: NodeInMemory) -> None:
    node.registry.hold_fetches[f"fake:/{M}/1"] = threading.Event()  # which nobody sets
    async with node.control_plane() as spine:
        await becomes(lambda: ("fetch", M, 1) in spine.steps.busy, "its bytes are on their way")
        new = await made_anew(node)
        await means(node, new)


async def test_a_creation_that_is_replaced_during_its_fetch_is_not_accepted(
    node: NodeInMemory,
) -> None:
    fetch = node.registry.fetch

    def replaced_meanwhile(*args: Any, **kwargs: Any) -> Any:
        found = fetch(*args, **kwargs)
        if not node.registry.made_anew:
            make_anew(node)
        return found

    node.registry.fetch = replaced_meanwhile  # type: ignore[method-assign]
    old = node.registry.digest(M, 1)
    async with node.control_plane() as spine:
        failed = ("fetch", M, 1)
        await becomes(lambda: spine.steps.backoff.get(failed), "the fetch is given up")
        failure = spine.steps.backoff.get(failed)
        assert failure is not None
        assert "made anew in the registry while its bytes were fetched" in failure.reason
        await spine.poll()
        await means(node, node.registry.digest(M, 1))
        assert old not in spine.artifacts


# --- what outlives a version ----------------------------------------------------------------------


@KINDS
async def test_a_quarantine_of_the_predecessor_says_nothing_of_the_next(
    tmp_path: Path, marks: bool
) -> None:
    node = node_on(tmp_path, marks=marks, stamped=True)
    async with node.following(1) as spine, asking(node, spine) as client:
        node.registry.tamper(M, 1)
        node.gateway.restart(lose_table=True)
        await becomes(lambda: spine.journal.view.quarantines, "it is quarantined")
        (shown,) = (await client.get("/quarantine")).json()["quarantines"]
        assert shown["incident"] == ("not_as_stamped" if marks else "altered")
        await gone(node, spine)
        (shown,) = (await client.get("/quarantine")).json()["quarantines"]
        assert shown["incident"] == "gone"
        new = await made_anew(node, stamped=True)
        await means(node, new)
        await idle(spine)
        assert spine.journal.view.quarantines == {}


async def test_a_rejection_of_the_same_bytes_is_tried_once_more(node: NodeInMemory) -> None:
    node.gateway.fails[M, 1] = ("load_failed", "no such library")
    async with node.control_plane() as spine:
        await becomes(lambda: spine.journal.view.rejections, "it is rejected")
        node.gateway.fails.clear()
        make_anew(node)
        node.registry.files[f"fake:/{M}/1/1"] = node.registry.files[f"fake:/{M}/1"]
        await spine.poll()
        await means(node, node.registry.digest(M, 1))


async def test_a_hold_ends_when_the_version_that_it_kept_away_is_made_anew(
    tmp_path: Path,
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        answered = await decide(client, "/rollback", model=M, alias=A)
        assert answered["outcome"] == "active", answered
        await idle(spine)
        new = node.registry.make_anew(M, 2)
        node.registry.without_latest(M)
        await spine.poll()
        await becomes(lambda: answers(node, f"@{A}") == new, "it is a new version, and followed")
        assert spine.journal.view.holds == {}


@pytest.mark.parametrize("by_rule", [True, False])
async def test_what_an_operator_pinned_is_not_what_was_made_anew(
    tmp_path: Path, by_rule: bool
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, asking(node, spine) as client:
        if by_rule:
            await promoted(node, 2)
            node.gateway.go_back(M, A, "it failed")
            await becomes(lambda: spine.journal.view.holds, "that is recorded")
        else:
            await decide(client, "/pin", model=M, alias=A, version=1)
        await idle(spine)
        new = node.registry.make_anew(M, 1)
        node.registry.point(M, A, 2 if by_rule else 1)
        node.registry.without_latest(M)
        await polled(spine)
        assert answers(node, f"@{A}") == old, "what serves, serves"
        node.gateway.want(M, 1)
        await becomes(lambda: answers(node, "1") == new, "callers by number get what there is")
        node.gateway.restart(lose_table=True)
        await idle(spine)
        told = await explained(client, A)
        held = spine.journal.view.holds[AliasRef(M, A)]
        assert held.target_creation not in (None, node.registry.version(M, 1).creation)
        assert "made anew" in told["reason"], told
        assert "`pin` takes it as it is now" in told["reason"]
        again = await decide(client, "/pin", model=M, alias=A, version=1)
        assert again["outcome"] == "active", again
        assert answers(node, f"@{A}") == new


async def test_an_older_record_without_a_creation_learns_it_from_the_next_listing(
    node: NodeInMemory,
) -> None:
    old = node.registry.digest(M, 1)
    async with node.at_rest(1) as spine:
        known = spine.journal.view.accepted[M, 1]
        spine.ledger.accept(type(known)(M, 1, old, None, False, known.listing))
        stored = spine.store.get(old)
        assert stored is not None
        spine.store.accept(old, replace(stored.accepted[0], creation=None))
    async with node.control_plane() as spine:
        mark = node.registry.version(M, 1).creation
        await becomes(
            lambda: spine.journal.view.accepted[M, 1].creation == mark,
            "it is known whose bytes were accepted",
        )
        stored = spine.store.get(old)
        assert stored is not None
        assert stored.accepted[0].creation == mark, "a ledger may be lost"
        assert node.registry.fetched == [f"fake:/{M}/1"], "and nothing was fetched for that"
        new = await made_anew(node)
        await means(node, new)


@pytest.mark.parametrize("lost", ["the mark", "the ledger"])
async def test_an_older_record_without_a_creation_is_not_about_what_was_made_after_it(
    tmp_path: Path, lost: str
) -> None:
    """The node missed the deletion, and its release knew no creations: the old bytes are over."""
    node = node_on(tmp_path)
    old = node.registry.digest(M, 1)
    async with node.at_rest(1) as spine:
        stored = spine.store.get(old)
        assert stored is not None
        (acceptance,) = stored.accepted
        spine.store.accept(old, replace(acceptance, creation=None))
        known = spine.journal.view.accepted[M, 1]
        spine.ledger.accept(replace(known, creation=None))
    if lost == "the ledger":
        (tmp_path / "ledger.db").unlink()
    node.registry.registered_at = time.time() + 1.0
    new = make_anew(node)
    async with node.control_plane(poll=False) as spine:
        node.gateway.stages_wait = True
        stages = len(node.gateway.stages)
        await spine.poll()
        await becomes(lambda: len(node.gateway.stages) > stages, "the new bytes are staged")
        assert answers(node, "1") == new
        node.gateway.stages_wait = False
        node.gateway.end_stage(node.gateway.stages[-1])
        await means(node, new)


# --- withdrawn ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["quarantined", "rejected", "not ready"])
@pytest.mark.parametrize("restart", [True, False])
async def test_a_withdrawn_alias_does_not_come_back_where_it_was(
    tmp_path: Path, how: str, restart: bool
) -> None:
    node = NodeInMemory.with_versions(tmp_path, 2)

    async def wished_elsewhere(spine: Reconciler) -> None:
        if how == "quarantined":
            node.registry.stamp(M, 2, node.registry.digest(M, 2))
            node.registry.tamper(M, 2)
        elif how == "rejected":
            node.gateway.fails[M, 2] = ("load_failed", "no such library")
        if how == "not ready":
            node.registry.unfollow(M, A)
        else:
            node.registry.point(M, A, 2)
        await polled(spine, times=2)
        assert node.gateway.points(M, A) is None
        assert [one.asked_by for one in spine.ledger.activations_of(M, A)] == ["poll"]

    async with node.at_rest(1) as spine:
        node.registry.unpoint(M, A)
        await polled(spine, times=2)
        assert node.gateway.points(M, A) is None
        if not restart:
            await wished_elsewhere(spine)
    if restart:
        async with node.control_plane() as spine:
            await wished_elsewhere(spine)


async def test_a_removal_that_the_gateway_did_not_take_goes_on_and_is_no_new_activation(
    node: NodeInMemory,
) -> None:
    async with node.at_rest(1) as spine:
        node.registry.unpoint(M, A)
        await spine.poll()
        retire = node.gateway.retire

        async def refused(_request: Any) -> Any:
            raise node.gateway._nack("table_write_failed", "the disk is full")

        node.gateway.retire = refused  # type: ignore[method-assign,assignment]
        await spine.poll()
        await becomes(lambda: spine.steps.backoff.get(("retire", M, A)), "it is refused")
        await node.stays_at(1)
        assert len(spine.ledger.activations_of(M, A)) == 1
        node.gateway.retire = retire  # type: ignore[method-assign]
        node.operators.try_now(M)
        await becomes(lambda: node.gateway.points(M, A) is None, "it is taken away")


# --- altered --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["bytes", "manifest and bytes"])
async def test_what_is_altered_under_a_number_that_stays_is_accepted_by_an_operator_only(
    tmp_path: Path, what: str
) -> None:
    marks = MLFLOW if what == "bytes" else S3
    node = node_on(tmp_path, marks=marks, stamped=not marks)
    old = node.registry.digest(M, 1)
    async with node.following(1) as spine, listening(node, spine) as command:
        node.registry.tamper(M, 1)
        if not marks:
            node.registry.stamp(M, 1, node.registry.digest(M, 1))
        new = node.registry.digest(M, 1)
        await spine.poll()
        if marks:
            node.gateway.restart(lose_table=True)  # it is compared before it is activated again
        await node.shows(1, VersionState.QUARANTINED)
        await means(node, old)
        assert answers(node, "1") == old, "the verified copy that served before goes on"
        (told,) = json.loads((await command("quarantine", "list", "--json")).stdout)["quarantines"]
        assert told["incident"] == "altered"
        assert f"`registry-gateway quarantine accept {M}/1`" in told["way_out"]
        released = await command("quarantine", "retry", f"{M}/1")
        assert released.exit_code == 1
        assert answers(node, f"@{A}") == old
        accepted = await command("quarantine", "accept", f"{M}/1")
        assert accepted.exit_code == 0, accepted.stderr
        await means(node, new)
        assert answers(node, "1") == new
        await idle(spine)
        assert spine.journal.view.quarantines == {}
        assert (await command("quarantine", "accept", f"{M}/1")).exit_code == 1


async def altered(node: NodeInMemory, spine: Reconciler) -> str:
    """Have the bytes and the manifest of version 1 altered, and found so; the digest found."""
    node.registry.tamper(M, 1)
    new = node.registry.digest(M, 1)
    node.registry.stamp(M, 1, new)
    await spine.poll()
    await node.shows(1, VersionState.QUARANTINED)
    return new


async def test_an_acceptance_follows_a_fetch_that_is_under_way(tmp_path: Path) -> None:
    node = node_on(tmp_path, marks=S3, stamped=True)
    async with node.following(1) as spine, asking(node, spine) as client:
        new = await altered(node, spine)
        await idle(spine)
        proceed = node.registry.hold_fetches[M] = threading.Event()
        fetches = len(node.registry.fetched)
        node.operators.fetch(M, 1)
        await becomes(lambda: spine.fetch_step.fetches, "the bytes are looked at once more")
        answered = await client.post("/quarantine/accept", json={"model": M, "version": 1})
        assert answered.status_code == 202
        (explained,) = answered.json()["explained"]
        assert (explained["why"], explained["doing"]) == ("quarantined", ["fetch"])
        proceed.set()
        await means(node, new)
        assert len(node.registry.fetched) == fetches + 2


async def test_an_acceptance_whose_fetch_fails_says_what_failed_and_to_ask_again(
    tmp_path: Path,
) -> None:
    node = node_on(tmp_path, marks=S3, stamped=True)
    async with node.following(1) as spine, listening(node, spine) as command:
        new = await altered(node, spine)
        await idle(spine)
        node.registry.fetch_error = SourceError("the storage does not answer")
        refused = await command("quarantine", "accept", f"{M}/1")
        assert refused.exit_code == 1
        told = " ".join(refused.stderr.split())
        assert "the storage does not answer; nothing has changed" in told
        assert f"run `registry-gateway quarantine accept {M}/1` again" in told
        node.registry.fetch_error = None
        assert (await command("quarantine", "accept", f"{M}/1")).exit_code == 0
        await means(node, new)


async def test_accepted_bytes_answer_although_the_quarantine_could_not_be_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_on(tmp_path, marks=S3, stamped=True)
    async with node.following(1) as spine, listening(node, spine) as command:
        new = await altered(node, spine)

        def refuse(*_: object) -> bool:
            raise LedgerError("the disk is full")

        monkeypatch.setattr(spine.ledger, "end_quarantine", refuse)
        assert (await command("quarantine", "accept", f"{M}/1")).exit_code == 0
        await means(node, new)
        assert answers(node, "1") == new


async def test_a_manifest_that_cannot_be_read_for_a_while_makes_nothing_anew(
    tmp_path: Path,
) -> None:
    node = node_on(tmp_path, marks=S3, stamped=True)
    async with node.following(1) as spine:
        node.registry.publish(M, 2, latest=False)
        node.registry.leave_out(M, 1)
        for _ in range(3):
            await spine.poll()
        await made_anew(node, stamped=True)
        await node.shows(1, VersionState.QUARANTINED)
        assert spine.journal.view.accepted[M, 1].creation == FIRST_CREATION
