"""The sweep removes what may go, after the gateway was told, and nothing when it cannot be."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.control_contract import ActiveAlias, NodeState
from registry_sync.artifact_store import ArtifactStore, StoredArtifact
from registry_sync.aspired import Aspired, AspiredModel, AspiredVersion
from registry_sync.records import LedgerView, PinnedVersion
from registry_sync.sweep import Sweep, SweepLimits, choose
from registry_sync.threads import Threads
from tests.unit.registry_sync.artifacts import fetched


@pytest.mark.parametrize("gone", [False, True])
async def test_an_artifact_goes_only_after_the_gateway_was_told(tmp_path, gone):
    store = ArtifactStore(tmp_path, clock=lambda: 0.0)
    store.open()
    with store.staging() as folder:
        digest = store.add(fetched(folder), {}).digest
    threads = Threads()
    told = []

    async def next_decision():
        told.append(digest in spine.arrival.artifacts or not store.get(digest))
        await asyncio.sleep(0)

    async def write(*_):
        return True

    node = SimpleNamespace(active=[], standbys=[], wanted=[])
    spine: Any = SimpleNamespace(
        announcer=SimpleNamespace(offers=lambda _: gone),
        arrival=SimpleNamespace(artifacts=store.all()),
        journal=SimpleNamespace(view=LedgerView(), write=write),
        ledger=SimpleNamespace(prune=None),
        listings=SimpleNamespace(count=2, aspired=Aspired(models={}, listed_at=0.0)),
        next_decision=next_decision,
        observation=SimpleNamespace(node=node, unreachable=None),
        store=store,
        threads=threads,
        wake=lambda: None,
    )
    limits = SweepLimits(rollback_window_s=10.0, disk_floor_bytes=0)
    sweep = Sweep(spine, limits=limits, folder=tmp_path, clock=lambda: 100.0)
    await sweep.run()
    assert told == [False]
    assert (digest in spine.arrival.artifacts) is gone
    assert (store.get(digest) is not None) is gone
    assert threads.close(patience_s=5)


def digest_of(version: int) -> str:
    return f"sha256:{version:064x}"


@pytest.mark.parametrize(
    ("lacking_bytes", "goes"),
    [(-5, [6]), (0, [6]), (100, [6]), (101, [6, 3]), (200, [6, 3]), (201, [6, 3, 2]), (999, None)],
)
def test_of_what_may_be_called_by_number_no_more_goes_than_the_disk_lacks(lacking_bytes, goes):
    """1 to 5 are listed; 5 is active, 3 came first and 4 last; 6 is listed no longer."""
    came_at = {3: 10.0, 2: 20.0, 1: 30.0, 5: 40.0, 6: 50.0, 4: 95.0}
    stored = {
        digest_of(version): StoredArtifact(digest_of(version), Path("x"), 100, {}, (), at)
        for version, at in came_at.items()
    }
    versions = {n: AspiredVersion("m", n, "there") for n in (1, 2, 3, 4, 5)}
    active = ActiveAlias(model="m", alias="champion", version=5, digest=digest_of(5), since=0.0)
    doomed = choose(
        stored,
        node=NodeState(node_id="n", boot_id="b", seq=1, generation=1, active=[active]),
        aspired=Aspired({"m": AspiredModel("m", versions, {"champion": 5})}, listed_at=0.0),
        ledger=LedgerView(
            pins={("m", n): PinnedVersion("m", n, digest_of(n), None, False, None) for n in came_at}
        ),
        now=100.0,
        limits=SweepLimits(rollback_window_s=10.0, disk_floor_bytes=0),
        lacking_bytes=lacking_bytes,
    )
    assert doomed == [digest_of(version) for version in goes or [6, 3, 2, 1]]
