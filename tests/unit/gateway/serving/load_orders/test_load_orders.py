"""What tags change: each of them something of its own, a version's before its model's."""

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
from gateway.contract.references import ReplicaKey
from gateway.errors import LoadError
from gateway.routing.node import Node
from gateway.routing.route_table import RouteTable
from gateway.serving.kept_proofs import Proofs
from gateway.serving.load_orders import Versions, WorkerLimits
from gateway.system.files.sealed import seal
from gateway.worker.loading.proofs.proof import Proof
from tests.contracts.damage import DAMAGES, Damage

LIMITS = WorkerLimits(threads=1, memory_bytes=2, batch_bytes=3, answer_bytes=4)
SIZE = 1000


def key(version: int = 1, model: str = "m") -> ReplicaKey:
    return ReplicaKey(model, version, f"sha256:{version:064x}")


def versions(
    policy: Policy | None = None,
    own: Policy | None = None,
    *,
    active: int | None = None,
    environment: Environment | None = None,
    store: Path = Path("/nowhere"),
) -> Versions:
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
    return Versions(Node(node_id="n", boot_id="b", table=table), store, LIMITS)


@pytest.mark.parametrize(
    ("policy", "own", "first", "second"),
    [
        (None, None, 1, 1),
        (Policy(replicas=2), None, 2, 2),
        (Policy(replicas=2), Policy(replicas=3), 3, 2),
        (None, Policy(replicas=3), 3, 1),
        (Policy(pin=True, timeout_s=3.0), None, 1, 1),
    ],
)
def test_replicas_says_how_many_workers(
    policy: Policy | None, own: Policy | None, first: int, second: int
) -> None:
    asked = versions(policy, own)
    assert [asked.replicas(key(1)), asked.replicas(key(2))] == [first, second]


@pytest.mark.parametrize(
    ("policy", "own", "first", "second"),
    [
        (None, None, False, False),
        (Policy(pin=True), None, True, True),
        (Policy(pin=False), None, False, False),
        (Policy(pin=True), Policy(pin=False), False, True),
        (None, Policy(pin=True), True, False),
        (Policy(replicas=2, load="preload"), None, False, False),
    ],
)
def test_a_pin_makes_a_version_go_last(
    policy: Policy | None, own: Policy | None, *, first: bool, second: bool
) -> None:
    asked = versions(policy, own)
    assert [asked.returns(key(1)), asked.returns(key(2))] == [first, second]


def test_tags_keep_no_worker_of_bytes_that_no_caller_can_mean() -> None:
    anew = CatalogueVersion(
        version=1,
        state=VersionState.AVAILABLE,
        digest=key(9).digest,
        accepted_digest=key(9).digest,
    )
    policy = Policy(pin=True, replicas=3, timeout_s=2.0)
    model = CatalogueModel(name="m", versions=[anew], policy=policy)
    table = RouteTable("champion", catalogue=Catalogue(writer="w", epoch=1, models=[model]))
    old, new, gone = key(1), key(1)._replace(digest=key(9).digest), key(2)
    asked = Versions(Node(node_id="n", boot_id="b", table=table), Path("/nowhere"), LIMITS)
    found = [(asked.returns(k), asked.replicas(k), asked.ends_when_idle(k)) for k in (old, gone)]
    assert found == [(False, 1, True)] * 2
    assert (asked.returns(new), asked.replicas(new), asked.ends_when_idle(new)) == (
        True,
        3,
        False,
    )
    where: Any = {"model": "m", "alias": "champion", "version": 1, "digest": old.digest}
    served = table.with_active(ActiveAlias(**where, since=1.0))
    asked = Versions(Node(node_id="n", boot_id="b", table=served), Path("/nowhere"), LIMITS)
    assert asked.returns(old)
    assert not asked.ends_when_idle(old)


def test_so_does_an_active_alias_with_these_bytes_only() -> None:
    asked = versions(active=2)
    assert asked.returns(key(2))
    assert not asked.returns(key(1))
    assert not asked.returns(key(2)._replace(digest=key(1).digest))


def test_timeout_s_is_the_time_of_one_request() -> None:
    asked = versions(Policy(timeout_s=2.0), Policy(timeout_s=0.5))
    assert [asked.timeout_s(key(1)), asked.timeout_s(key(2))] == [0.5, 2.0]
    assert versions().timeout_s(key(1)) is None


@pytest.mark.parametrize("load", [None, "lazy", "preload", "on_demand"])
def test_load_says_who_ends_when_idle_and_who_is_resident_from_the_start(load: str | None) -> None:
    asked = versions(Policy(load=load), active=2)
    assert asked.ends_when_idle(key(1)) is (load == "on_demand")
    assert asked.preloaded() == ([key(2)] if load == "preload" else [])


def test_only_what_is_active_or_listed_with_its_bytes_is_still_here() -> None:
    unknown, other = key(3), key(1)._replace(digest=key(9).digest)
    gone = key(1, "gone")
    assert versions(active=2).still_here([key(1), unknown, other, gone, key(2)]) == [key(1), key(2)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_description(tmp_path, flavor="sklearn")
    return tmp_path


def write_description(folder: Path, **members: str) -> None:
    described = {"format_version": 1, "digest": key(1).digest, **members}
    (folder / f"{1:064x}.json").write_bytes(orjson.dumps(described))


async def test_max_batch_rows_is_told_to_the_worker(store: Path) -> None:
    told = await versions(Policy(max_batch_rows=7), store=store).load_order(key(1))
    assert told.max_batch_rows == 7
    assert (await versions(store=store).load_order(key(1))).max_batch_rows == 1024
    assert (told.threads, told.memory_bytes) == (1, 2)
    assert (told.max_batch_bytes, told.max_answer_bytes) == (3, 4)
    assert told.description["flavor"] == "sklearn"


async def test_the_time_of_an_answer_is_told_to_the_worker(store: Path) -> None:
    told = await versions(Policy(timeout_s=2.0), store=store).load_order(key(1))
    assert told.timeout_s == 2.0
    assert (await versions(store=store).load_order(key(1))).timeout_s == LIMITS.timeout_s


async def test_an_own_environment_is_run_under_its_interpreter_and_not_under_ours(
    store: Path,
) -> None:
    own = Environment(kind="own", python="/envs/1/bin/python")
    assert (await versions(environment=own, store=store).load_order(key(1))).interpreter == (
        "/envs/1/bin/python"
    )
    assert (await versions(store=store).load_order(key(1))).interpreter is None
    with pytest.raises(LoadError, match="not built"):
        await versions(environment=Environment(kind="own"), store=store).load_order(key(1))


async def test_what_was_proved_of_an_artifact_is_told_to_its_next_worker(
    store: Path, tmp_path: Path
) -> None:
    proofs = Proofs(tmp_path / "proofs")
    asked = versions(store=store)
    asked._proofs, asked._limits = proofs, replace(LIMITS, proof_budget_s=7.0)
    first = await asked.load_order(key(1))
    assert (first.proof, first.proof_budget_s, first.environment) == (None, 7.0, "")
    proof = Proof(made_with={"python": "3"}, batching="joined", joined_rows=9, settled=True)
    proofs.keep(first, proof)
    told = (await asked.load_order(key(1))).proof
    assert told == proof.as_header()
    own = versions(
        store=store,
        environment=Environment(kind="own", python="/p", digest="sha256:e"),
    )
    own._proofs = proofs
    order = await own.load_order(key(1))
    assert (order.environment, order.proof) == ("sha256:e", None)
    await proofs.close()


async def test_a_worker_on_a_gpu_is_no_fork_and_has_no_bound_of_memory(store: Path) -> None:
    write_description(store, loader_module="mlflow.pytorch")
    asked = versions(store=store)
    assert (await asked.load_order(key(1))).cuda_devices is None
    asked._limits = WorkerLimits(1, 2, 3, 4, cuda_devices="0")
    told = await asked.load_order(key(1))
    assert (told.interpreter, told.cuda_devices, told.memory_bytes) == (sys.executable, "0", None)


@pytest.mark.parametrize(
    ("text", "failure", "says"),
    [
        (None, "integrity", "not in this node's artifact store"),
        ("{", "integrity", "is damaged: it is no JSON"),
        ('{"hello": "world"}', "integrity", "is damaged: it is another one"),
        ('{"format_version": 1, "digest": "sha256:0"}', "integrity", "is another one"),
        ('{"format_version": 2}', "unsupported", "upgrade the gateway"),
    ],
)
async def test_what_the_store_does_not_say_is_no_load(
    tmp_path: Path, text: str | None, failure: str, says: str
) -> None:
    if text is not None:
        (tmp_path / f"{1:064x}.json").write_text(text)
    with pytest.raises(LoadError, match=says) as refused:
        await versions(store=tmp_path).load_order(key(1))
    assert refused.value.failure == failure


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
async def test_a_damaged_description_is_a_damaged_copy(store: Path, damage: Damage) -> None:
    path = store / f"{1:064x}.json"
    path.write_bytes(seal(b'{\n "format_version": 1,\n "digest": "%b"\n}' % key(1).digest.encode()))
    assert (await versions(store=store).load_order(key(1))).digest == key(1).digest
    damage.apply(path)
    with pytest.raises(LoadError, match=r"the description of .* is damaged: it") as refused:
        await versions(store=store).load_order(key(1))
    assert refused.value.failure == "integrity"


async def test_a_description_that_cannot_be_read_now_says_nothing_of_the_copy(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LoadError, match="Too many open files") as refused:
        await versions(store=store).load_order(key(1))
    assert refused.value.failure == "unavailable"


def test_a_version_is_guessed_by_its_bytes_and_its_environment() -> None:
    shared, own = versions(), versions(environment=Environment(kind="own", python="/p"))
    nothing = shared.estimate(key(1, "unknown"))
    assert shared.estimate(key(1)) == nothing + 2 * SIZE
    assert own.estimate(key(1)) > shared.estimate(key(1))
