"""The publisher replaces the bytes of a version that an operator holds, and stamps them anew."""

import shutil
import threading

import pytest

from gateway.contract.references import AliasRef
from registry_sync.domain import Hold
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.operating import asking, decide, refused
from tests.fakes.waiting import becomes


def replace_bytes(node: NodeInMemory, version: int, *, stamp: bool = True) -> None:
    node.registry.tamper(M, version)
    if stamp:
        node.registry.stamp(M, version, node.registry.digest(M, version))


def lose_copies(node: NodeInMemory) -> None:
    for path in (node.folder / "artifacts").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(node.folder / "artifacts")


@pytest.mark.parametrize("stamped", [True, False])
async def test_bytes_that_a_hold_means_and_nobody_has_are_not_fetched_for_ever(
    node: NodeInMemory, stamped: bool
) -> None:
    if stamped:
        node.registry.stamp(M, 2, node.registry.digest(M, 2))
    async with node.following(1) as spine, asking(node, spine) as client:
        await decide(client, "/pin", model=M, alias=A, version=2)
        await idle(spine)
    lose_copies(node)
    if not stamped:
        (node.folder / "ledger.db").unlink()  # nobody remembers what was seen first
    node.gateway.restart(lose_table=True)
    replace_bytes(node, 2, stamp=stamped)
    before = len(node.registry.fetched)
    async with node.control_plane() as spine, asking(node, spine) as client:
        for _ in range(10):
            await idle(spine)
        assert len(node.registry.fetched) - before <= 1
        asked = {"model": M, "selector": A}
        (told,) = (await client.get("/explain", params=asked)).json()["selectors"]
        assert told["why"] == "replaced"
        assert "`pin` takes it as it is now, `unpin` follows the registry" in told["reason"]
        again = await decide(client, "/pin", model=M, alias=A, version=2)
        assert again["outcome"] == "active", again


async def test_a_version_that_is_not_listed_is_compared_with_what_is_meant_first(
    node: NodeInMemory,
) -> None:
    async with node.following(1) as spine:
        node.registry.publish("other", 1, stamp="sha256:" + "0" * 64)
        meant = "sha256:" + "1" * 64
        await node.operators.hold(Hold("other", A, None, 1, meant, "operator", 1.0))
        fetch = ("fetch", "other", 1)
        await becomes(lambda: spine.steps.backoff.get(fetch), "it was looked at")
        failure = spine.steps.backoff.get(fetch)
        assert failure is not None
        assert "has other bytes in the registry now" in failure.reason
        assert "fake:/other/1" not in node.registry.fetched


async def test_a_rollback_to_bytes_that_were_replaced_says_at_once_how_to_go_on(
    node: NodeInMemory,
) -> None:
    node.registry.stamp(M, 1, node.registry.digest(M, 1))
    async with node.following(1, 2) as spine, asking(node, spine) as client:
        replace_bytes(node, 1)
        await spine.poll()
        assert "`rollback --to 1`" in await refused(client, "/rollback", model=M, alias=A)
        assert (node.gateway.points(M, A), spine.journal.view.holds) == (2, {})
        answer = await decide(client, "/rollback", model=M, alias=A, version=1)
        assert answer["outcome"] == "active", answer
        digest = node.gateway.active[AliasRef(M, A)].digest
        assert (node.gateway.points(M, A), digest) == (1, node.registry.digest(M, 1))


@pytest.mark.parametrize("held", [True, False])
async def test_what_served_comes_back_after_a_lost_table_though_its_bytes_were_replaced(
    node: NodeInMemory, held: bool
) -> None:
    before = node.registry.digest(M, 1)
    node.registry.stamp(M, 1, before)
    async with node.following(1) as spine, asking(node, spine) as client:
        if held:
            await decide(client, "/pin", model=M, alias=A, version=1)
        await idle(spine)
        fetching = node.registry.hold_fetches[f"fake:/{M}/1"] = threading.Event()
        replace_bytes(node, 1)
        await spine.poll()  # remembered, so that the next one begins with it
    node.gateway.restart(lose_table=True)
    async with node.following(1) as spine:
        assert node.gateway.active[AliasRef(M, A)].digest == before
        fetching.set()
        await idle(spine)
        expected = before if held else node.registry.digest(M, 1)
        assert node.gateway.active[AliasRef(M, A)].digest == expected
