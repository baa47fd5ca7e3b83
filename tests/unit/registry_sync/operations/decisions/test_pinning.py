"""Pins and freezes, over the operations listener's application and the command."""

import re
import threading
from typing import Any

import httpx
import pytest

from tests.fakes.nodes import A, M, NodeInMemory, idle, moved
from tests.fakes.operating import asking, decide, listening, refused
from tests.fakes.waiting import becomes
from tests.unit.registry_sync.operations.test_explained_model import quarantined

VERSIONS = 3


async def pinned(client: httpx.AsyncClient, version: int, alias: str = A) -> dict[str, Any]:
    return await decide(client, "/pin", model=M, alias=alias, version=version)


async def test_a_pin_stays_wherever_the_registry_moves_the_alias(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        answer = await pinned(client, 2)  # never here before, and nobody stamped it
        assert (answer["outcome"], answer["from_version"], answer["to_version"]) == ("active", 1, 2)
        assert node.gateway.points(M, A) == 2
        await moved(node, 3)
        assert node.gateway.points(M, A) == 2
        (model,) = (await client.get("/state")).json()["models"]
        (alias,) = model["aliases"]
        assert (alias["held_at"], alias["pinned"], alias["aspired"]) == (2, True, 3)
        assert "until `unpin`" in alias["reason"]
        assert node.gateway.catalogue is not None
        assert "pinned at version 2" in node.gateway.catalogue.models[0].notes[A]
        answer = await decide(client, "/unpin", model=M, alias=A)
        assert (answer["was"], answer["was_pinned"]) == (2, True)
        assert answer["explained"][0]["aspired"] == 3
        await node.serves(3)


async def test_a_pin_outlives_the_alias_in_the_registry(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        assert (await pinned(client, 1))["outcome"] == "active"
        node.registry.unpoint(M, A)
        for _ in range(3):
            await spine.poll()
        await node.stays_at(1)
        await decide(client, "/unpin", model=M, alias=A)
        await becomes(lambda: node.gateway.points(M, A) is None, "it is retired")


async def test_a_pin_that_cannot_serve_stays_and_what_served_serves(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, listening(node, spine) as command:
        assert (await command("rollback", f"{M}@{A}")).exit_code == 0
        node.gateway.fails[M, 3] = ("load_failed", "a library is missing")
        done = await command("pin", f"{M}@{A}", "3")
        assert done.exit_code == 1
        assert f"{M}@{A} is not at version 3: pinned at version 3 by operator" in done.stderr
        assert "a library is missing" in done.stderr
        assert "It means version 1" in done.stderr
        await idle(spine)
        assert node.gateway.points(M, A) == 1  # and not 2, which was rolled back from
        (hold,) = spine.journal.view.holds.values()
        assert (hold.target_version, hold.lasting) == (3, True)


async def test_what_is_quarantined_is_not_pinned(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await quarantined(node, spine)
        reason = await refused(client, "/pin", model=M, alias=A, version=2)
        assert spine.journal.view.quarantines[M, 2].reason in reason
        assert spine.journal.view.holds == {}
        await node.stays_at(1)


async def test_a_rollback_ends_a_pin_and_says_so(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await pinned(client, 2)
        await idle(spine)
        answer = await decide(client, "/rollback", model=M, alias=A)
        assert (answer["outcome"], answer["to_version"]) == ("active", 1)
        assert (answer["was_pinned"], answer["explained"][0]["hold"]["while_aspired"]) == (True, 1)
        await moved(node, 3)
        assert node.gateway.points(M, A) == 3


async def test_a_version_whose_stamp_is_not_its_digest_is_pinned_and_never_serves(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.registry.stamp(M, 2, node.registry.digest(M, 2))
        node.registry.tamper(M, 2)
        await spine.poll()
        answer = await pinned(client, 2)
        assert (answer["outcome"], answer["explained"][0]["why"]) == ("refused", "quarantined")
        await idle(spine)
        assert (node.gateway.points(M, A), len(spine.journal.view.holds)) == (1, 1)
        assert "stamped" in await refused(client, "/pin", model=M, alias=A, version=2)


async def test_a_version_with_wrong_bytes_is_not_pinned(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        del node.registry.files[f"fake:/{M}/2"]["MLmodel"]
        answer = await pinned(client, 2)
        assert answer["pinned"] is False
        assert answer["reason"]
        await idle(spine)
        assert (node.gateway.points(M, A), spine.journal.view.holds) == (1, {})


async def test_a_version_whose_bytes_were_never_right_is_not_fetched_to_be_pinned(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.registry.spoil(M, 2)
        assert (await pinned(client, 2))["pinned"] is False
        (quarantine,) = spine.journal.view.quarantines.values()
        assert (quarantine.version, quarantine.expected_digest) == (2, None)
        reason = await refused(client, "/pin", model=M, alias=A, version=2)
        assert quarantine.reason in reason


@pytest.mark.parametrize(
    ("route", "body", "status", "says"),
    [
        ("/pin", {"model": M, "alias": "chmpion", "version": 1}, 404, "it has: champion"),
        ("/pin", {"model": "other", "alias": A, "version": 1}, 404, "alias of 'other'"),
        ("/pin", {"model": M, "alias": A, "version": 0}, 422, ""),
        ("/unpin", {"model": M, "alias": A}, 409, "neither pinned nor held"),
    ],
)
async def test_what_cannot_be_pinned_is_said(
    node: NodeInMemory, route: str, body: dict[str, object], status: int, says: str
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        answer = await client.post(route, json=body)
    assert answer.status_code == status
    assert says in str(answer.json()["detail"])


async def test_a_pin_that_is_not_waited_for_can_be_asked_for_again(node: NodeInMemory) -> None:
    gate = node.registry.hold_fetches[f"fake:/{M}/2"] = threading.Event()
    async with node.following(1) as spine, listening(node, spine) as command:
        done = await command("pin", f"{M}@{A}", "2", "--no-wait")
        assert done.exit_code == 4
        assert f"{M}@{A} is not pinned, and stays at version 1" in done.stderr
        assert "pin it again after the fetch" in done.stderr
        assert spine.journal.view.holds == {}
        gate.set()
        await becomes(lambda: (M, 2) in spine.journal.view.accepted, "its bytes are here")
        done = await command("pin", f"{M}@{A}", "2", "--no-wait")
        assert (done.exit_code, "pinned at version 2 by operator" in done.stdout) == (0, True)
        await node.serves(2)


# --- freeze ---------------------------------------------------------------------------------------


async def test_nothing_follows_the_registry_while_frozen(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        assert (await client.post("/freeze")).json()["changed"] is True
        assert (await client.post("/freeze")).json()["changed"] is False
        for asked_by in ("poll", "webhook"):
            node.registry.point(M, A, 2)
            await spine.poll(asked_by)
            await node.stays_at(1)
        assert spine.journal.view.accepted.keys() == {(M, 1), (M, 2)}  # it is here, and checked
        state = (await client.get("/state")).json()
        assert state["frozen"]["asked_by"] == "operator"
        assert "until `unfreeze`" in state["models"][0]["aliases"][0]["reason"]
        assert (await client.post("/unfreeze")).json() == {
            "frozen": None,
            "changed": True,
            "moving": [],
            "not_recorded": None,
        }
        await node.serves(2)
        assert (await client.post("/unfreeze")).json()["changed"] is False


async def test_a_promotion_under_way_does_not_end_in_a_frozen_node(node: NodeInMemory) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        node.gateway.stages_wait = True
        await node.promotes(2)
        await becomes(lambda: len(node.gateway.stages) == 2, "the standby is being warmed")
        await client.post("/freeze")
        node.gateway.end_stage(node.gateway.stages[-1])
        await node.stays_at(1)


async def test_operators_move_aliases_of_a_frozen_node(node: NodeInMemory) -> None:
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        await client.post("/freeze")
        rolled = await decide(client, "/rollback", model=M, alias=A)
        assert (rolled["outcome"], node.gateway.points(M, A)) == ("active", 1)
        assert (await pinned(client, 3))["outcome"] == "active"
        await decide(client, "/unpin", model=M, alias=A)
        await node.stays_at(3)


async def test_a_freeze_survives_a_restart_and_a_lost_ledger_and_the_table_comes_back(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine, asking(node, spine) as client:
        await client.post("/freeze")
    (node.folder / "ledger.db").unlink()
    async with node.control_plane() as spine:
        await moved(node, 2)
        assert node.gateway.points(M, A) == 1
        node.gateway.restart(lose_table=True)
        await node.serves(1)
        await node.stays_at(1)


async def test_the_command_pins_and_freezes(node: NodeInMemory) -> None:
    async with node.following(1) as spine, listening(node, spine) as command:
        done = await command("pin", f"{M}@{A}", "2")
        assert done.exit_code == 0, done.stderr
        assert f"{M}@{A} is pinned at version 2 (was 1)." in done.stdout
        assert (await command("freeze")).exit_code == 0
        shown = await command("status")
        assert re.search(rf"{M}@{A} +2 → 1 \(pinned\)", shown.stdout)
        assert re.search(r"frozen \d+ s ago by operator", shown.stdout)
        done = await command("unpin", f"{M}@{A}")
        assert "It stays at version 2: this node is frozen" in done.stdout
        assert "follows the registry again" in (await command("unfreeze")).stdout
        await node.serves(1)
        done = await command("unpin", f"{M}@{A}", "--json")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "neither pinned nor held" in done.stderr
        refused = await command("pin", f"{M}@{A}", "9")
        assert refused.exit_code == 1
        assert "is not pinned, and stays at version 1" in refused.stderr
