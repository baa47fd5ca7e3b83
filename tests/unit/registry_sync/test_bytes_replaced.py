"""The publisher replaces the bytes of a version that an operator holds, and stamps them anew."""

import shutil
from pathlib import Path

import pytest

from registry_sync.records import Hold
from tests.fakes.gateway import becomes
from tests.unit.registry_sync.nodes import A, M, NodeInMemory, idle
from tests.unit.registry_sync.operating import asking


@pytest.fixture
async def node(tmp_path: Path) -> NodeInMemory:
    return NodeInMemory.with_versions(tmp_path, 2)


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
    async with node.control_plane() as spine, asking(node, spine) as client:
        await node.serves(1)
        await client.post("/pin", json={"model": M, "alias": A, "version": 2})
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
        again = await client.post("/pin", json={"model": M, "alias": A, "version": 2})
        assert again.json()["outcome"] == "active", again.json()


async def test_a_version_that_is_not_listed_is_compared_with_what_is_meant_first(
    node: NodeInMemory,
) -> None:
    async with node.control_plane() as spine:
        await node.serves(1)
        node.registry.publish("other", 1, stamp="sha256:" + "0" * 64)
        meant = "sha256:" + "1" * 64
        await spine.hold(Hold("other", A, None, 1, meant, "operator", 1.0))
        fetch = ("fetch", "other", 1)
        await becomes(lambda: spine.steps.backoff.get(fetch), "it was looked at")
        failure = spine.steps.backoff.get(fetch)
        assert failure is not None
        assert "has other bytes in the registry now" in failure.reason
        assert "fake:/other/1" not in node.registry.fetched
