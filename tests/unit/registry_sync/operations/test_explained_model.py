"""Explain, sync and quarantine, over the operations listener's application and the command."""

import json
import re
import threading
from typing import Any

import httpx
import pytest

from registry_sync.domain.aspired import Aspired
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.operating import asking, decide, listening, refused
from tests.fakes.waiting import becomes


async def explained(client: httpx.AsyncClient, selector: str | None = A) -> dict[str, Any]:
    params = {"model": M} | ({"selector": selector} if selector else {})
    answer = await client.get("/explain", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def quarantined(node: NodeInMemory, spine: Any) -> None:
    """Stamp version 2 with the digest that it has, alter its bytes, and promote it."""
    node.registry.stamp(M, 2, node.registry.digest(M, 2))
    node.registry.tamper(M, 2)
    await node.promotes(2)
    await becomes(lambda: (M, 2) in spine.journal.view.quarantines, "it is quarantined")
    await idle(spine)


# --- explain --------------------------------------------------------------------------------------


async def test_what_follows_the_registry_is_explained(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        answer = await explained(client, f"@{A}")
    (one,) = answer["selectors"]
    assert (one["version"], one["previous"], one["aspired"], one["target"]) == (2, 1, 2, 2)
    assert (one["why"], one["asked_by"], one["hold"]) == ("follows", "poll", None)
    assert [version["version"] for version in answer["versions"]] == [2]
    assert all(version["description"] is None for version in answer["versions"])
    first = answer["attempts"][0]
    assert (first["what"], first["previous"], first["version"]) == ("activate", 1, 2)
    assert set(first["durations_s"]) >= {"confirm", "activate"}
    assert {entry["what"] for entry in answer["attempts"]} == {"activate", "stage", "fetch"}


async def test_what_is_in_the_way_is_explained(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await quarantined(node, spine)
        answer = await explained(client)
        (one,) = answer["selectors"]
        assert (one["version"], one["aspired"], one["target"]) == (1, 2, None)
        assert one["why"] == "quarantined"
        assert [(v["version"], v["state"]) for v in answer["versions"]] == [
            (1, "available"),
            (2, "quarantined"),
        ]
        assert answer["attempts"][0]["what"] in ("quarantine", "fetch")
        by_number = (await explained(client, "2"))["selectors"][0]
        assert (by_number["selector"], by_number["why"]) == ("2", "quarantined")


async def test_what_is_tried_again_says_when(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.gateway.fails[M, 2] = ("no_room", "all slots are leased")
        await node.promotes(2)
        await becomes(spine.steps.backoff.failures, "the stage has failed")
        await idle(spine)
        (one,) = (await explained(client))["selectors"]
        reason = "version 2 could not be loaded, and that is tried again: all slots are leased"
        assert (one["why"], one["reason"]) == ("failing", reason)
        (alias,) = (await client.get("/state")).json()["models"][0]["aliases"]
        assert alias["reason"] == reason
        catalogue = node.gateway.catalogue
        assert catalogue is not None
        assert catalogue.models[0].notes == {A: reason}
        assert one["failures"] >= 1
        assert one["failure"] == "all slots are leased"
        assert one["retry_at"].endswith("Z")


async def test_every_alias_is_explained_and_a_hold_and_a_freeze_are_shown(
    node: NodeInMemory,
) -> None:
    node.registry.point(M, "shadow", 2)
    async with node.following(1) as spine, asking(node, spine) as client:
        await node.serves(2, "shadow")
        await decide(client, "/pin", model=M, alias=A, version=2)
        await client.post("/freeze")
        answer = await explained(client, None)
    assert [one["selector"] for one in answer["selectors"]] == ["@champion", "@shadow"]
    hold = answer["selectors"][0]["hold"]
    assert (hold["version"], hold["pinned"], hold["asked_by"]) == (2, True, "operator")
    assert answer["frozen"]["asked_by"] == "operator"
    assert {"pin", "freeze"} <= {entry["what"] for entry in answer["attempts"]}


async def test_it_is_explained_with_every_neighbour_down(node: NodeInMemory) -> None:
    async with node.at_rest(1) as spine, asking(node, spine) as client:
        node.registry.down = True
        await spine.poll()
        node.gateway.stop()
        await becomes(lambda: spine.observation.unreachable, "the gateway is seen to be gone")
        node.break_ledger()
        answer = await explained(client)
    assert answer["selectors"][0]["version"] == 1
    assert None not in (answer["source_error"], answer["gateway_error"], answer["ledger_error"])
    assert answer["attempts"] == []


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"model": "other"}, "knows a model 'other'"),
        ({"model": M, "selector": "chmpion"}, "it has: champion"),
        ({"model": M, "selector": "9"}, "has a version 9"),
        ({"model": M, "selector": "a b"}, "neither a version nor an alias"),
    ],
)
async def test_what_nobody_knows_is_said(
    node: NodeInMemory, params: dict[str, str], says: str
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        answer = await client.get("/explain", params=params)
    assert answer.status_code == 404
    assert says in answer.json()["detail"]


# --- sync -----------------------------------------------------------------------------------------


async def synced(client: httpx.AsyncClient, model: str = M) -> dict[str, Any]:
    return await decide(client, "/sync", model=model)


async def test_sync_promotes_now_and_waits_for_it(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.registry.point(M, A, 2)
        answer = await synced(client)
        assert (answer["outcome"], answer["reason"]) == ("done", None)
        assert answer["explained"][0]["version"] == 2
        assert node.gateway.points(M, A) == 2
        await idle(spine)
        assert (await explained(client))["selectors"][0]["asked_by"] == "sync"
        await decide(client, "/rollback", model=M, alias=A)
        assert node.gateway.points(M, A) == 1  # what is synced is rolled back as what is polled


async def test_sync_tries_at_once_what_waits_for_its_next_try(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.gateway.fails[M, 2] = ("no_room", "all slots are leased")
        node.registry.point(M, A, 2)
        assert (await synced(client))["outcome"] == "pending"
        for _ in range(8):  # far enough for the next try to be minutes away
            spine.steps.backoff.failed(next(iter(spine.steps.backoff.failures())), "as before")
        node.gateway.fails.clear()
        assert (await synced(client))["outcome"] == "done"
        assert node.gateway.points(M, A) == 2


async def test_sync_does_not_promote_on_a_frozen_node(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await client.post("/freeze")
        node.registry.point(M, A, 2)
        answer = await synced(client)
        assert answer["outcome"] == "done"
        assert "frozen" in answer["explained"][0]["reason"]
        assert node.gateway.points(M, A) == 1


async def test_sync_says_what_cannot_be(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await quarantined(node, spine)
        assert (await synced(client))["outcome"] == "refused"
        node.registry.down = True
        answer = await synced(client)
        assert (answer["outcome"], answer["reason"]) == ("refused", "the registry does not answer")
        unknown = await client.get("/explain", params={"model": "other"})
        assert unknown.status_code == 404
        assert "the registry does not answer" in unknown.json()["detail"]


# --- quarantine -----------------------------------------------------------------------------------


async def released(client: httpx.AsyncClient) -> dict[str, Any]:
    return await decide(client, "/quarantine/retry", model=M, version=2)


async def test_a_quarantine_is_listed_and_released_once_the_bytes_are_right(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await quarantined(node, spine)
        (one,) = (await client.get("/quarantine")).json()["quarantines"]
        assert (one["model"], one["version"], one["listed"], one["asked_by"]) == (
            M,
            2,
            True,
            "poll",
        )
        answer = await released(client)
        assert answer["outcome"] == "refused"
        assert answer["reason"]
        assert node.gateway.points(M, A) == 1
        wrong = node.registry.files[f"fake:/{M}/2"]
        wrong["data/weights"] = wrong["data/weights"].removesuffix(b" altered")
        assert (await released(client))["outcome"] == "accepted"
        await node.serves(2)
        assert (await client.get("/quarantine")).json() == {"quarantines": []}
        again = await refused(client, "/quarantine/retry", model=M, version=2)
        assert "is not quarantined" in again
        await idle(spine)
        entries = (await client.get("/history", params={"model": M})).json()["entries"]
        told = [(e["what"], e["asked_by"]) for e in entries if e["what"] in ("quarantine", "retry")]
        assert told == [
            ("retry", "operator"),
            ("quarantine", "operator"),
            ("retry", "operator"),
            ("quarantine", "poll"),
        ]


async def test_a_release_whose_bytes_cannot_be_fetched_is_pending(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await quarantined(node, spine)
        node.registry.down = True
        answer = await released(client)
        assert (answer["outcome"], answer["reason"]) == ("pending", "the registry does not answer")


async def test_a_quarantine_of_a_deleted_version_is_released(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await quarantined(node, spine)
        node.registry.point(M, A, 1)
        listed = node.registry.models[M].versions
        del listed[2]  # type: ignore[attr-defined]  # a dict, in the fake
        await spine.poll()
        (one,) = (await client.get("/quarantine")).json()["quarantines"]
        assert one["listed"] is False
        assert (await released(client))["outcome"] == "ended"


# --- the commands ---------------------------------------------------------------------------------


async def test_the_commands_explain_sync_and_release(node: NodeInMemory) -> None:
    async with node.following(1) as spine, listening(node, spine) as command:
        await quarantined(node, spine)
        told = await command("explain", M, f"@{A}")
        assert told.exit_code == 0, told.stderr
        assert re.search(rf"{M}@{A} means version 1 here, since .* by poll", told.stdout)
        assert "the registry points it at version 2" in told.stdout
        assert "quarantined: " in told.stdout
        assert re.search(
            r"fetch +2 +refused +poll +\d+\.\d\d s\n.*\n? +locate .*fetch \d", told.stdout
        )
        as_json = await command("explain", M, "--json")
        assert json.loads(as_json.stdout)["selectors"][0]["why"] == "quarantined"
        shown = await command("quarantine", "list")
        assert re.search(rf"{M}/2 +not as stamped +\d+ s ago +sha256:", shown.stdout)
        refused = await command("quarantine", "retry", f"{M}/2")
        assert refused.exit_code == 1
        assert f"{M}/2 is quarantined again: " in refused.stderr
        assert (await command("sync", M)).exit_code == 1
        node.registry.point(M, A, 1)
        done = await command("sync", M)
        assert (done.exit_code, done.stderr) == (0, "")
        assert re.search(rf"{M}@{A} +1 ", done.stdout)
        await command("freeze")
        told = await command("history", M)
        assert re.search(r"\(this node\) +freeze +- +complete +operator", told.stdout)


async def test_sync_that_takes_longer_than_its_patience_is_pending(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.cli.waiting.LONGEST_S", 0.2)
    gate = node.registry.hold_fetches[f"fake:/{M}/2"] = threading.Event()
    async with node.following(1) as spine, listening(node, spine) as command:
        node.registry.point(M, A, 2)
        assert (await command("sync", M)).exit_code == 4
        gate.set()
        await node.serves(2)


async def test_sync_does_not_wait_for_a_registry_for_ever(
    node: NodeInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    listed = node.registry.aspired
    async with node.following(1) as spine, asking(node, spine) as client:

        def slowly(_before: Aspired | None = None) -> Aspired:
            gate.wait()
            return listed()

        monkeypatch.setattr(node.registry, "aspired", slowly)
        answer = await synced(client)
        assert (answer["outcome"], answer["explained"][0]["version"]) == ("pending", 1)
        assert "has not answered within" in answer["reason"]
        gate.set()
        monkeypatch.undo()
        assert (await client.post("/sync", json={"model": M})).json()["outcome"] == "pending"
        await becomes(lambda: not node.view.unfinished(M), "the registry is listed")
        assert (await explained(client))["source_error"] is None
