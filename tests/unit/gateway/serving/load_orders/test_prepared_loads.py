"""What a worker is told before it loads a version."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Policy,
    VersionState,
)
from gateway.contract.references import ReplicaKey
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.load_orders import Versions, WorkerLimits, cuda_devices

MIB = 1024 * 1024
LIMITS = WorkerLimits(threads=3, memory_bytes=7 * MIB, batch_bytes=5 * MIB, answer_bytes=9 * MIB)
DIGEST = "sha256:" + "a" * 64


def prepare(folder: Path, model: Policy, own: Policy | None) -> Any:
    """What makes the orders, on a node that lists version 1 of ``m`` with these policies."""
    (folder / f"{'a' * 64}.json").write_text(json.dumps({"format_version": 1}))
    version = CatalogueVersion(version=1, state=VersionState.AVAILABLE, digest=DIGEST, policy=own)
    listed = CatalogueModel(name="m", versions=[version], policy=model)
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[listed]))
    node = Node(node_id="n", boot_id="b", table=table)
    return Versions(node, folder, LIMITS).load_order


@pytest.mark.parametrize(
    ("model", "own", "rows"),
    [
        (Policy(), None, 1024),
        (Policy(max_batch_rows=64), None, 64),
        (Policy(max_batch_rows=64), Policy(timeout_s=1.0), 64),
        (Policy(max_batch_rows=64), Policy(max_batch_rows=1), 1),
    ],
)
async def test_as_many_rows_are_joined_as_the_version_says_or_else_its_model(
    tmp_path: Path, model: Policy, own: Policy | None, rows: int
) -> None:
    load = await prepare(tmp_path, model, own)(ReplicaKey("m", 1, DIGEST))
    assert load.max_batch_rows == rows


async def test_what_is_served_and_no_longer_listed_is_loaded_as_ever(tmp_path: Path) -> None:
    load = await prepare(tmp_path, Policy(max_batch_rows=64), None)(ReplicaKey("gone", 1, DIGEST))
    assert load.max_batch_rows == 1024


async def test_a_worker_is_told_what_it_may_use(tmp_path: Path) -> None:
    load = await prepare(tmp_path, Policy(), None)(ReplicaKey("m", 1, DIGEST))
    assert (load.threads, load.memory_bytes, load.max_batch_bytes) == (3, 7 * MIB, 5 * MIB)
    assert load.max_answer_bytes == 9 * MIB


@pytest.mark.parametrize(
    ("environ", "driver", "devices"),
    [
        ({}, True, "all"),
        ({}, False, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, True, "0,1"),
        ({"CUDA_VISIBLE_DEVICES": ""}, True, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True, None),
    ],
)
def test_workers_may_use_the_gpus_that_the_gateway_sees(
    tmp_path: Path, environ: dict[str, str], driver: bool, devices: str | None
) -> None:
    if driver:
        (tmp_path / "driver").touch()
    assert cuda_devices(environ, tmp_path / "driver") == devices


@pytest.mark.parametrize(
    ("loader", "devices", "told"),
    [
        ("mlflow.pytorch", "all", (sys.executable, "all", None)),
        ("mlflow.pytorch", None, (None, None, 7 * MIB)),
        ("mlflow.sklearn", "all", (None, None, 7 * MIB)),
    ],
)
async def test_a_torch_model_is_started_not_forked_where_there_is_a_gpu(
    tmp_path: Path,
    loader: str,
    devices: str | None,
    told: tuple[str | None, str | None, int | None],
) -> None:
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[]))
    described = {"format_version": 1, "loader_module": loader}
    (tmp_path / f"{'a' * 64}.json").write_text(json.dumps(described))
    versions = Versions(
        Node(node_id="n", boot_id="b", table=table), tmp_path, replace(LIMITS, cuda_devices=devices)
    )
    load = await versions.load_order(ReplicaKey("m", 1, DIGEST))
    assert (load.interpreter, load.cuda_devices, load.memory_bytes) == told
