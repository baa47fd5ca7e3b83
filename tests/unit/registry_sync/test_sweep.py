"""The sweep removes what may go, after the gateway was told, and nothing when it cannot be."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from registry_sync.artifact_store import ArtifactStore
from registry_sync.aspired import Aspired
from registry_sync.records import LedgerView
from registry_sync.sweep import Sweep, SweepLimits
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
