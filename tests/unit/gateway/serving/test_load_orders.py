"""Requirements of versions by their tags, and the orders that their workers receive."""

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.contract.catalogue import (
    Catalogue,
    CatalogueModel,
    CatalogueVersion,
    Environment,
    Policy,
    VersionState,
)
from gateway.contract.node_state import ActiveAlias
from gateway.contract.references import ArtifactRef
from gateway.errors import LoadError
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.kept_proofs import KeptProofs
from gateway.serving.load_orders import LoadOrders, WorkerLimits, cuda_devices
from gateway.system.files.sealed import seal
from gateway.worker.loading.proofs.proof import Proof
from tests.contracts.damage import DAMAGES, Damage

LIMITS = WorkerLimits(threads=1, memory_bytes=2, batch_bytes=3, answer_bytes=4)
SIZE = 1000


def key(version: int = 1, model: str = "m") -> ArtifactRef:
    return ArtifactRef(model, version, f"sha256:{version:064x}")


def orders_of(
    policy: Policy | None = None,
    own: Policy | None = None,
    *,
    active: int | None = None,
    environment: Environment | None = None,
    store: Path = Path("/nowhere"),
) -> LoadOrders:
    """The versions 1 and 2 of a model with this policy; ``own`` is version 1's alone."""
    listed = [
        CatalogueVersion(
            version=number,
            state=VersionState.AVAILABLE,
            digest=key(number).digest,
            size_bytes=SIZE,
            policy=own if number == 1 else None,
            environment=environment or Environment(),
        )
        for number in (1, 2)
    ]
    model = CatalogueModel(name="m", versions=listed, policy=policy or Policy())
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[model]))
    if active is not None:
        where: Any = {"model": "m", "alias": "champion", "version": active}
        alias = ActiveAlias(**where, digest=key(active).digest, since=1.0, asked_by="poll")
        table = table.with_active(alias)
    return LoadOrders(Node(node_id="n", boot_id="b", table=table), store, LIMITS)


@pytest.mark.parametrize(
    ("policy", "own", "first", "second"),
    [
        (None, None, 1, 1),
        (Policy(replicas=2), None, 2, 2),
        (Policy(replicas=2), Policy(replicas=3), 3, 2),
        (None, Policy(replicas=3), 3, 1),
        (Policy(keep_resident=True, timeout_s=3.0), None, 1, 1),
    ],
)
def test_tag_sets_the_number_of_replicas(
    policy: Policy | None, own: Policy | None, first: int, second: int
) -> None:
    orders = orders_of(policy, own)
    assert [orders.replicas(key(1)), orders.replicas(key(2))] == [first, second]


@pytest.mark.parametrize(
    ("policy", "own", "first", "second"),
    [
        (None, None, False, False),
        (Policy(keep_resident=True), None, True, True),
        (Policy(keep_resident=False), None, False, False),
        (Policy(keep_resident=True), Policy(keep_resident=False), False, True),
        (None, Policy(keep_resident=True), True, False),
        (Policy(replicas=2, load="preload"), None, False, False),
    ],
)
def test_tag_keeps_a_version_resident(
    policy: Policy | None, own: Policy | None, *, first: bool, second: bool
) -> None:
    orders = orders_of(policy, own)
    assert [orders.restarts(key(1)), orders.restarts(key(2))] == [first, second]


def test_tags_do_not_apply_to_bytes_that_no_caller_can_mean() -> None:
    anew = CatalogueVersion(
        version=1,
        state=VersionState.AVAILABLE,
        digest=key(9).digest,
        accepted_digest=key(9).digest,
    )
    policy = Policy(keep_resident=True, replicas=3, timeout_s=2.0)
    model = CatalogueModel(name="m", versions=[anew], policy=policy)
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[model]))
    old, new, gone = key(1), key(1)._replace(digest=key(9).digest), key(2)
    orders = LoadOrders(Node(node_id="n", boot_id="b", table=table), Path("/nowhere"), LIMITS)
    found = [
        (orders.restarts(k), orders.replicas(k), orders.ends_when_idle(k)) for k in (old, gone)
    ]
    assert found == [(False, 1, True)] * 2
    assert (orders.restarts(new), orders.replicas(new), orders.ends_when_idle(new)) == (
        True,
        3,
        False,
    )
    where: Any = {"model": "m", "alias": "champion", "version": 1, "digest": old.digest}
    served = table.with_active(ActiveAlias(**where, since=1.0))
    orders = LoadOrders(Node(node_id="n", boot_id="b", table=served), Path("/nowhere"), LIMITS)
    assert orders.restarts(old)
    assert not orders.ends_when_idle(old)


def test_replica_of_an_active_alias_restarts() -> None:
    orders = orders_of(active=2)
    assert orders.restarts(key(2))
    assert not orders.restarts(key(1))
    assert not orders.restarts(key(2)._replace(digest=key(1).digest))


def test_tag_sets_the_time_out() -> None:
    orders = orders_of(Policy(timeout_s=2.0), Policy(timeout_s=0.5))
    assert [orders.timeout_s(key(1)), orders.timeout_s(key(2))] == [0.5, 2.0]
    assert orders_of().timeout_s(key(1)) is None


@pytest.mark.parametrize("load", [None, "lazy", "preload", "on_demand"])
def test_tag_sets_when_a_version_is_loaded(load: str | None) -> None:
    orders = orders_of(Policy(load=load), active=2)
    assert orders.ends_when_idle(key(1)) is (load == "on_demand")
    assert orders.preloaded() == ([key(2)] if load == "preload" else [])


def test_servable_versions_are_active_or_listed_with_their_bytes() -> None:
    unknown, other = key(3), key(1)._replace(digest=key(9).digest)
    gone = key(1, "gone")
    assert orders_of(active=2).servable([key(1), unknown, other, gone, key(2)]) == [key(1), key(2)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_description(tmp_path, flavor="sklearn")
    return tmp_path


def write_description(folder: Path, **members: str) -> None:
    described = {"format_version": 1, "digest": key(1).digest, **members}
    (folder / f"{1:064x}.json").write_bytes(orjson.dumps(described))


@pytest.mark.parametrize(
    ("policy", "own", "rows"),
    [
        (None, None, 1024),
        (Policy(max_batch_rows=64), None, 64),
        (Policy(max_batch_rows=64), Policy(timeout_s=1.0), 64),
        (Policy(max_batch_rows=64), Policy(max_batch_rows=1), 1),
    ],
)
async def test_order_has_the_policy_of_its_version(
    store: Path, policy: Policy | None, own: Policy | None, rows: int
) -> None:
    order = await orders_of(policy, own, store=store).load_order(key(1))
    assert order.max_batch_rows == rows
    assert (order.threads, order.memory_bytes) == (1, 2)
    assert (order.max_batch_bytes, order.max_answer_bytes) == (3, 4)
    assert order.description["flavor"] == "sklearn"


async def test_order_of_a_version_that_is_no_longer_listed_has_the_defaults(store: Path) -> None:
    orders = orders_of(Policy(max_batch_rows=64), store=store)
    order = await orders.load_order(key(1, "gone"))
    assert (order.max_batch_rows, order.interpreter) == (1024, None)


async def test_order_has_the_time_out(store: Path) -> None:
    order = await orders_of(Policy(timeout_s=2.0), store=store).load_order(key(1))
    assert order.timeout_s == 2.0
    assert (await orders_of(store=store).load_order(key(1))).timeout_s == LIMITS.timeout_s


async def test_order_has_the_interpreter_of_an_own_environment(
    store: Path,
) -> None:
    own = Environment(kind="own", python="/envs/1/bin/python")
    assert (await orders_of(environment=own, store=store).load_order(key(1))).interpreter == (
        "/envs/1/bin/python"
    )
    assert (await orders_of(store=store).load_order(key(1))).interpreter is None
    with pytest.raises(LoadError, match="not built"):
        await orders_of(environment=Environment(kind="own"), store=store).load_order(key(1))


async def test_order_has_the_proof_of_an_earlier_worker(store: Path, tmp_path: Path) -> None:
    proofs = KeptProofs(tmp_path / "proofs")
    orders = orders_of(store=store)
    orders._proofs, orders._limits = proofs, replace(LIMITS, proof_budget_s=7.0)
    first = await orders.load_order(key(1))
    assert (first.proof, first.proof_budget_s, first.environment) == (None, 7.0, "")
    proof = Proof(made_with="3", batching="joined", joined_rows=9, decided=True)
    proofs.keep(first, proof)
    assert (await orders.load_order(key(1))).proof == proof.as_header()
    own = orders_of(
        store=store,
        environment=Environment(kind="own", python="/p", digest="sha256:e"),
    )
    own._proofs = proofs
    order = await own.load_order(key(1))
    assert (order.environment, order.proof) == ("sha256:e", None)
    await proofs.close()


@pytest.mark.parametrize(
    ("loader", "devices", "expected"),
    [
        ("mlflow.pytorch", "all", (sys.executable, "all", None)),
        ("mlflow.pytorch", None, (None, None, 2)),
        ("mlflow.sklearn", "all", (None, None, 2)),
    ],
)
async def test_order_of_a_torch_model_on_a_gpu_has_no_fork_and_no_memory_limit(
    store: Path, loader: str, devices: str | None, expected: tuple[Any, ...]
) -> None:
    write_description(store, loader_module=loader)
    orders = orders_of(store=store)
    orders._limits = replace(LIMITS, cuda_devices=devices)
    order = await orders.load_order(key(1))
    assert (order.interpreter, order.cuda_devices, order.memory_bytes) == expected


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
def test_workers_may_use_the_gpus_of_the_gateway(
    tmp_path: Path, environ: dict[str, str], driver: bool, devices: str | None
) -> None:
    if driver:
        (tmp_path / "driver").touch()
    assert cuda_devices(environ, tmp_path / "driver") == devices


@pytest.mark.parametrize(
    ("text", "failure", "reason"),
    [
        (None, "integrity", "not in this node's artifact store"),
        ("{", "integrity", "is damaged: it is not JSON"),
        ('{"hello": "world"}', "integrity", "is damaged: it describes another"),
        ('{"format_version": 1, "digest": "sha256:0"}', "integrity", "describes another"),
        ('{"format_version": 2}', "unsupported", "upgrade the gateway"),
    ],
)
async def test_unusable_description_fails_the_load(
    tmp_path: Path, text: str | None, failure: str, reason: str
) -> None:
    if text is not None:
        (tmp_path / f"{1:064x}.json").write_text(text)
    with pytest.raises(LoadError, match=reason) as refused:
        await orders_of(store=tmp_path).load_order(key(1))
    assert refused.value.failure == failure


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
async def test_damaged_description_fails_the_load_as_damaged_copy(
    store: Path, damage: Damage
) -> None:
    path = store / f"{1:064x}.json"
    path.write_bytes(seal(b'{\n "format_version": 1,\n "digest": "%b"\n}' % key(1).digest.encode()))
    assert (await orders_of(store=store).load_order(key(1))).digest == key(1).digest
    damage.apply(path)
    with pytest.raises(LoadError, match=r"the description of .* is damaged: it") as refused:
        await orders_of(store=store).load_order(key(1))
    assert refused.value.failure == "integrity"


async def test_unreadable_description_fails_the_load_as_transient(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LoadError, match="Too many open files") as refused:
        await orders_of(store=store).load_order(key(1))
    assert refused.value.failure == "unavailable"


def test_estimate_depends_on_size_and_environment() -> None:
    shared, own = orders_of(), orders_of(environment=Environment(kind="own", python="/p"))
    nothing = shared.estimate_bytes(key(1, "unknown"))
    assert shared.estimate_bytes(key(1)) == nothing + 2 * SIZE
    assert own.estimate_bytes(key(1)) > shared.estimate_bytes(key(1))
