"""A disk budget that fits two of four versions, with their bytes on a real S3 server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from gateway.contract.references import AliasRef
from registry_sync.sources.s3_layout import ModelLocation
from registry_sync.sources.s3_publisher import Publisher, read_folder
from registry_sync.sources.s3_registry import connect_s3_registry
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from registry_sync.sources.storage.s3 import connect_s3
from tests.fakes.nodes import A, M, NodeInMemory, idle
from tests.fakes.registry import FakeRegistry
from tests.fakes.waiting import becomes
from tests.servers import Seaweed

pytestmark = pytest.mark.integration

BUCKET = "budget"
VERSION_BYTES = 2 * 2**20
BUDGET_BYTES = 2 * VERSION_BYTES + VERSION_BYTES // 2
ACTIVE = 4


@pytest.fixture
def registry(s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """Four published versions, of which the last one is the champion; and how to fetch them."""
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    s3.make_bucket(BUCKET)
    root = f"s3://{BUCKET}/{uuid4().hex}"
    publisher = Publisher(connect_s3(os.environ), ModelLocation.at(f"{root}/{M}"))
    for version in range(1, ACTIVE + 1):
        folder = tmp_path / f"model-{version}"
        folder.mkdir()
        (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: m}}\n")
        (folder / "weights").write_bytes(os.urandom(VERSION_BYTES))
        read = read_folder(folder, max_files=10, max_bytes=2**30, on_bytes=lambda *_: None)
        publisher.publish(read, version, (A,) if version == ACTIVE else (), lambda *_: None)
    source = connect_s3_registry(root, os.environ)
    limits = FetchLimits(disk_floor_bytes=0, stable_after_s=0)
    fetcher = Fetcher(tracking_uri="", limits=limits, environ=os.environ)
    both: Any = SimpleNamespace(
        **{name: getattr(source, name) for name in ("aspired", "model", "version", "locate")},
        fetch=fetcher.fetch,
        remote_listing=fetcher.remote_listing,
    )
    return cast("FakeRegistry", both)


def on_disk(node_dir: Path) -> int:
    """Count the bytes of everything in the store, and of what is on its way there."""
    folders = (node_dir / "artifacts", node_dir / "incoming")
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)


async def test_every_version_is_served_in_its_turn_and_the_budget_holds(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    node = NodeInMemory(folder, registry=registry, disk_budget_bytes=BUDGET_BYTES)
    async with node.following(ACTIVE) as spine:
        for versions in ((1,), (2,), (3,), (1, 2)):  # and two of them at once
            for version in versions:
                node.gateway.want(M, version)
            while node.gateway.wanted:
                node.operators.try_now(M)
                assert spine.store.use().over_bytes == 0
                await asyncio.sleep(0.01)
            await idle(spine)
            assert on_disk(folder) <= BUDGET_BYTES
            assert node.gateway.points(M, A) == ACTIVE
        await becomes(lambda: spine.store.use().coming_bytes == 0, "nothing is on its way")
        digests = set(spine.store.all())
        assert len(digests) == 2
        assert node.gateway.active[AliasRef(M, A)].digest in digests
    assert 2 * VERSION_BYTES <= on_disk(folder) <= BUDGET_BYTES
