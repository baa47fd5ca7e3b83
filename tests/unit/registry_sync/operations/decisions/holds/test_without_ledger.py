"""Rollback, pin and freeze while the ledger takes nothing: in force at once, recorded later."""

from typing import Any

import httpx
import pytest

from gateway.contract import AliasRef
from registry_sync.domain import HoldChange, HoldsSnapshot
from registry_sync.errors import LedgerError
from registry_sync.ledger.holds_file import HoldsFile
from tests.fakes.disk import fill_disk
from tests.fakes.nodes import A, M, NodeInMemory, idle, ledger_answers, promoted
from tests.fakes.operating import asking, decide, listening
from tests.fakes.waiting import becomes

ALIAS = {"model": M, "alias": A}
SHORTAGE = "holds.json cannot be read now: Too many open files"


VERSIONS = 3


async def answer(client: httpx.AsyncClient, route: str, **body: Any) -> dict[str, Any]:
    if route not in ("/freeze", "/unfreeze"):
        return await decide(client, route, **body)
    answered = await client.post(route)
    assert answered.status_code == 202, answered.text
    return dict(answered.json())


async def told(client: httpx.AsyncClient) -> list[tuple[str, int | None, str | None]]:
    """What history says, the newest first, fetches and stages left out."""
    entries = (await client.get("/history")).json()["entries"]
    kept = [one for one in entries if one["what"] not in ("fetch", "stage", "allow_digest")]
    return [(one["what"], one["version"], one["asked_by"]) for one in kept]


def waiting(node: NodeInMemory) -> HoldsSnapshot:
    return HoldsFile(node.folder / "holds.json").read()


async def test_what_operators_decide_is_in_force_and_recorded_when_the_ledger_takes_it(
    node: NodeInMemory,
) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        before = len(await told(client))
        with node.refusing_ledger():
            back = await answer(client, "/rollback", **ALIAS)
            assert (back["outcome"], back["to_version"]) == ("active", 1)
            assert "not recorded yet" in back["not_recorded"]
            assert "waits in holds.json" in back["not_recorded"]
            frozen = await answer(client, "/freeze")
            assert (frozen["changed"], bool(frozen["not_recorded"])) == (True, True)
            pinned = await answer(client, "/pin", **ALIAS, version=2)
            assert (pinned["outcome"], bool(pinned["not_recorded"])) == ("active", True)
            assert node.gateway.points(M, A) == 2
            await idle(spine)
            (waits,) = [
                one for one in (await client.get("/state")).json()["problems"] if "ledger" in one
            ]
            assert "the ledger has not recorded 3 decisions and 2 moves: all of that waits" in waits
            changes = waiting(node).changes
            assert [(one.what, one.asked_by) for one in changes] == [
                ("hold", "operator"),
                ("freeze", "operator"),
                ("hold", "operator"),
            ]
            assert [one.at for one in changes] == sorted(one.at for one in changes)
        await ledger_answers(spine)
        await idle(spine)
        news = (await told(client))[: -before or None]
        assert sorted(news, key=str) == sorted(
            [
                ("hold", 1, "operator"),
                ("activate", 1, "operator"),
                ("freeze", None, "operator"),
                ("pin", 2, "operator"),
                ("activate", 2, "operator"),
            ],
            key=str,
        )
        view = spine.ledger.view()
        assert view.holds[AliasRef(M, A)] == changes[2].hold
        assert view.freeze is not None
        assert view.freeze.at == changes[1].at
        assert (waiting(node).changes, waiting(node).activations) == ((), ())
        assert (await client.get("/state")).json()["problems"] == []


async def test_what_was_decided_while_it_was_away_is_recorded_as_late(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another decision that the ledger has by then may be newer, and counts."""
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        with monkeypatch.context() as broken:  # as a database that nothing connects to
            broken.setattr(spine.ledger, "ensure", unreadable)
            assert (await answer(client, "/freeze"))["not_recorded"]
        record, recorded = spine.ledger.record, list[tuple[str, bool]]()

        def note(change: HoldChange, *, late: bool) -> None:
            recorded.append((change.what, late))
            record(change, late=late)

        monkeypatch.setattr(spine.ledger, "record", note)
        await ledger_answers(spine)
        await answer(client, "/unfreeze")
        assert recorded == [("freeze", True), ("unfreeze", False)]


async def test_they_outlive_a_restart_without_it(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        with node.refusing_ledger():
            await answer(client, "/rollback", **ALIAS)
            await answer(client, "/freeze")
            await idle(spine)
    content = node.break_ledger()
    async with node.at_rest() as spine, asking(node, spine) as client:
        assert (node.gateway.points(M, A), bool(spine.journal.view.freeze)) == (1, True)
        assert (await answer(client, "/freeze"))["changed"] is False
        await answer(client, "/unfreeze")
        node.registry.point(M, A, 3)
        node.mend_ledger(content)
        await ledger_answers(spine)
        await idle(spine)
        moves = [one.version for one in spine.ledger.activations_of(M, A)]
        assert moves[:3] == [1, 2, 1]
        whats = {what for what, _, _ in await told(client)}
        assert {"hold", "freeze", "unfreeze"} <= whats


async def test_nothing_is_promoted_before_what_waits_in_the_file_can_be_read(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        with node.refusing_ledger():
            await answer(client, "/freeze")
            await idle(spine)
    node.registry.point(M, A, 3)

    def short(_: HoldsFile) -> HoldsSnapshot:
        raise LedgerError(SHORTAGE)

    # The ledger is read, and takes nothing, all the while: what counts comes from the file.
    with node.refusing_ledger(), monkeypatch.context() as broken:
        broken.setattr(HoldsFile, "read", short)
        async with node.at_rest() as spine:
            # A fetch that could not be recorded is told of in between.
            await becomes(lambda: spine.journal.trouble == SHORTAGE, "the file is told of")
            assert not spine.journal.answered
            assert node.gateway.points(M, A) == 2
            broken.undo()
            spine.wake()
            await becomes(lambda: spine.journal.answered, "the ledger has been read")
            await idle(spine)
            assert spine.journal.view.freeze
            assert node.gateway.points(M, A) == 2


async def test_where_the_disk_takes_nothing_either_they_wait_in_memory_and_that_is_said(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        with node.refusing_ledger():
            with monkeypatch.context() as full:
                fill_disk(full)
                back = await answer(client, "/rollback", **ALIAS)
                assert back["outcome"] == "active"
                assert "waits in memory, and is lost if" in back["not_recorded"]
                assert "No space left" in back["not_recorded"]
                problems = (await client.get("/state")).json()["problems"]
                assert any("holds.json cannot be written" in one for one in problems)
                ready = (await client.get("/health/ready")).json()
                assert ready["status"] == "ready"
                said = " ".join(ready["not_written"])
                for words in ("the ledger cannot be used", "holds.json cannot", "waits in memory"):
                    assert words in said
                await idle(spine)
            await spine.next_decision()
            assert [one.what for one in waiting(node).changes] == ["hold"]  # there is room
        await ledger_answers(spine)
        await idle(spine)
        assert spine.ledger.view().holds[AliasRef(M, A)].target_version == 1
        assert (await client.get("/health/ready")).json()["not_written"] == []


async def test_a_rollback_that_only_the_ledger_could_place_says_so(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        with monkeypatch.context() as broken:
            broken.setattr(spine.ledger, "activations_of", unreadable)
            assert (await answer(client, "/rollback", **ALIAS))["to_version"] == 1
            again = await client.post("/rollback", json=ALIAS)
        assert again.status_code == 409
        assert "in the ledger only (it is away): name the version with --to" in again.text


def unreadable(*_: object, **__: object) -> None:
    raise LedgerError("it is away")


async def test_the_commands_say_what_is_not_recorded(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, listening(node, spine) as command:
        with node.refusing_ledger():
            for words in (
                ("rollback", f"{M}@{A}"),
                ("pin", f"{M}@{A}", "2"),
                ("unpin", f"{M}@{A}"),
                ("freeze",),
                ("unfreeze",),
            ):
                done = await command(*words)
                assert done.exit_code == 0, (words, done.stderr)
                assert "It is in force, and not recorded yet: the ledger" in done.stderr, words
            assert "the ledger has not recorded 5 decisions" in (await command("status")).stdout


async def test_what_only_the_ledger_can_end_stays_and_that_is_said(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        await promoted(node, 1)
        node.gateway.fails[M, 3] = ("load_failed", "broken")
        node.registry.point(M, "trial", 3)
        node.registry.tamper(M, 2)
        await node.promotes(2)
        await becomes(lambda: spine.journal.view.rejections, "version 3 is rejected")
        await becomes(lambda: spine.journal.view.quarantines, "version 2 is quarantined")
        await idle(spine)
        with node.refusing_ledger():
            for route, stays in (
                ("/retry", f"{M}/3 stays rejected"),
                ("/quarantine/retry", f"{M}/2 stays quarantined"),
            ):
                body = {"model": M, "version": 3 if route == "/retry" else 2}
                answered = await client.post(route, json=body)
                assert answered.status_code == 503, answered.text
                said = answered.json()["detail"]
                assert said.startswith(f"{stays}, since its end is not recorded")
                assert "run the command again" in said
        view = spine.journal.view
        assert [version for _, version, _ in view.rejections] == [3]
        assert view.quarantines.keys() == {(M, 2)}
