"""What changes of one model costs what that model has: taken, told, and written."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway import contract
from gateway.bootstrap import _LoadObserver
from gateway.contract.references import AliasRef, ArtifactRef
from gateway.errors import RolloutRefusedError
from gateway.observability.metrics import Telemetry
from gateway.routing import node
from gateway.routing.route_table import RouteTable
from tests.fakes.activations import activation
from tests.unit.gateway.rollout.test_rollout import D, Stand


def model(name: str, state: str = "available", versions: int = 2) -> contract.CatalogueModel:
    listed = [
        contract.CatalogueVersion.model_validate({"version": n, "state": state, "digest": D[n]})
        for n in range(1, versions + 1)
    ]
    return contract.CatalogueModel(name=name, versions=listed)


def change(
    revision: int, name: str, of: contract.CatalogueModel | None, *, epoch: int = 1
) -> contract.ModelChange:
    return contract.ModelChange(writer="w", epoch=epoch, revision=revision, name=name, model=of)


async def taken(stand: Stand, one: contract.ModelChange) -> None:
    await stand.rollout.catalogue.take_model(one, one.model_dump_json().encode())


@pytest.fixture
async def stand(tmp_path: Path) -> Stand:
    """A gateway with a catalogue of two models, in which each version 1 is active."""
    stand = Stand(tmp_path)
    models = [model("m"), model("n")]
    catalogue = contract.Catalogue(writer="w", epoch=1, models=models)
    await stand.rollout.catalogue.take(catalogue, catalogue.model_dump_json().encode())
    for name in ("m", "n"):
        stand.residents.ready |= {ArtifactRef(name, n, D[n]) for n in D}
        await activate(stand, name, "champion", 1)
    return stand


async def activate(stand: Stand, name: str, alias: str, version: int) -> contract.Ack:
    ref = ArtifactRef(name, version, D[version])
    return await stand.rollout.activate(activation(stand.node.table, alias, ref))


# --- the catalogue --------------------------------------------------------------------------------


async def test_one_model_changes_and_the_others_stay(stand: Stand) -> None:
    await taken(stand, change(1, "m", model("m", versions=3)))
    table = stand.node.table
    assert (len(table.model("m").versions), len(table.model("n").versions)) == (3, 2)
    assert table.version("m", 3).digest == D[3]
    await taken(stand, change(2, "new", model("new")))
    await taken(stand, change(3, "n", None))
    assert stand.node.table.names() == ["m", "n", "new"], "n is active still"
    assert stand.file.load("champion").names() == ["m", "n", "new"]
    assert stand.node.table.catalogue == stand.file.load("champion").catalogue


async def test_a_change_of_another_snapshot_is_refused_and_one_taken_before_is_none(
    stand: Stand,
) -> None:
    with pytest.raises(RolloutRefusedError, match="epoch 1"):
        await taken(stand, change(1, "m", model("m"), epoch=2))
    await taken(stand, change(2, "m", model("m", versions=3)))
    await taken(stand, change(1, "m", model("m", versions=1)))
    assert len(stand.node.table.model("m").versions) == 3
    catalogue = contract.Catalogue(writer="w", epoch=2, models=[model("m")])
    await stand.rollout.catalogue.take(catalogue, catalogue.model_dump_json().encode())
    await taken(stand, change(1, "m", model("m", versions=1), epoch=2))
    assert len(stand.node.table.model("m").versions) == 1, "its snapshot counts anew"


async def test_changes_that_take_too_much_of_the_disk_are_refused_for_a_snapshot(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand.file, "are_model_changes_long", lambda: True)
    with pytest.raises(RolloutRefusedError, match="whole catalogue") as refused:
        await taken(stand, change(1, "m", model("m", versions=3)))
    assert refused.value.code == "stale_epoch"
    assert len(stand.node.table.model("m").versions) == 2


async def test_a_full_disk_takes_no_change_and_callers_see_it(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "catalogue.changes").unlink(missing_ok=True)
    (tmp_path / "catalogue.changes").symlink_to("catalogue.changes")

    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    stand.file._models.add = refuse  # type: ignore[method-assign, assignment]
    await taken(stand, change(1, "m", model("m", versions=3)))
    assert stand.node.table.version("m", 3).digest == D[3]


async def test_what_a_gone_model_said_of_its_bytes_is_kept_for_its_alias(stand: Stand) -> None:
    own = contract.Environment(kind="own", python="/usr/bin/python3", digest="e")
    listed = contract.CatalogueVersion.model_validate(
        {"version": 1, "state": "available", "digest": D[1], "environment": own}
    )
    of = contract.CatalogueModel(name="m", versions=[listed])
    await taken(stand, change(1, "m", of))
    seq = stand.node.seq
    await taken(stand, change(2, "m", None))
    assert stand.node.table.environment_of(ArtifactRef("m", 1, D[1])) == own
    assert stand.file.load("champion").environment_of(ArtifactRef("m", 1, D[1])) == own
    told = await stand.rollout.observe(seq, "b")
    assert [(one.model, one.environment) for one in told.active] == [("m", own)]


# --- observe --------------------------------------------------------------------------------------


async def test_a_difference_has_what_moved_and_nothing_else(stand: Stand) -> None:
    whole = await stand.rollout.observe(0, "b")
    assert (whole.since, len(whole.active)) == (None, 2)
    await activate(stand, "m", "champion", 2)
    told = await stand.rollout.observe(whole.seq, "b")
    assert (told.since, told.inactive) == (whole.seq, [])
    assert [(one.model, one.version) for one in told.active] == [("m", 2)]
    await stand.rollout.retire(contract.RetireRequest(model="n", alias="champion"))
    last = await stand.rollout.observe(told.seq, "b")
    assert (last.active, [one.model for one in last.inactive]) == ([], ["n"])
    both = await stand.rollout.observe(whole.seq, "b")
    assert ([one.model for one in both.active], len(both.inactive)) == (["m"], 1)


async def test_a_long_poll_counts_as_listening_while_it_lasts(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = list[int]()
    monkeypatch.setattr(stand.node, "listening", noted.append)
    waiting = asyncio.create_task(stand.rollout.observe(stand.node.seq, "b"))
    await asyncio.sleep(0)
    assert noted == [1]
    waiting.cancel()
    await asyncio.wait([waiting])
    assert noted == [1, -1]


async def test_who_has_no_state_of_this_boot_is_told_the_whole_one(stand: Stand) -> None:
    seq = stand.node.seq - 1
    for told in (
        await stand.rollout.observe(seq),  # an older control plane
        await stand.rollout.observe(seq, "another boot"),
        await stand.rollout.observe(stand.node.seq - 100_000, "b"),
    ):
        assert (told.since, len(told.active)) == (None, 2)


async def test_who_is_too_far_behind_is_told_the_whole_one(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.routing.node._MAX_MOVES", 3)
    states = [stand.node.seq]
    for turn in range(6):
        await activate(stand, "m", "champion", 1 + (turn + 1) % 2)
        states.append(stand.node.seq)
    assert (await stand.rollout.observe(states[0], "b")).since is None
    assert (await stand.rollout.observe(states[-2], "b")).since == states[-2]
    for number in range(5):
        stand.node.want(f"m{number}", 1)
    assert (await stand.rollout.observe(states[-1], "b")).since is None, "of wishes, too"
    assert len((await stand.rollout.observe(stand.node.seq - 1, "b")).wanted) == 1


async def test_what_changes_nothing_to_decide_on_is_no_news(stand: Stand) -> None:
    observer, key = _LoadObserver(Telemetry(), stand.node), ArtifactRef("m", 1, D[1])
    seq = stand.node.seq
    observer.loaded(key, 0.1, 1000)
    observer.load_failed(key, "load_failed", "it raised")
    observer.ended(key, "made room", evicted=True, died=False)
    await stand.rollout.catalogue.confirm(
        contract.UnchangedCatalogue(writer="w", epoch=1, listed_at=1.0)
    )
    await taken(stand, change(1, "m", model("m", versions=3)))
    assert stand.node.seq == seq
    observer.load_failed(key, "integrity", "a file was altered")
    assert stand.node.seq > seq
    seq = stand.node.seq
    observer.loaded(key, 0.1, 1000)
    assert stand.node.seq > seq, "the copy is whole again"


# --- activations that wait for the disk together --------------------------------------------------


async def test_activations_that_are_due_together_share_one_write(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    save = stand.file.save_change

    def count(table: RouteTable, moved: list[AliasRef]) -> None:
        writes.append(len(moved))
        save(table, moved)

    monkeypatch.setattr(stand.file, "save_change", count)
    generation = stand.node.table.generation
    acks = await asyncio.gather(
        *(activate(stand, "m", f"a{n}", 1) for n in range(20)),
        activate(stand, "n", "champion", 2),
    )
    assert [ack.generation for ack in acks] == list(range(generation + 1, generation + 22))
    assert sum(writes) == 21
    assert len(writes) <= 3
    assert stand.file.load("champion").active == stand.node.table.active


async def test_one_that_is_refused_takes_none_of_its_batch_with_it(stand: Stand) -> None:
    one, other, third = await asyncio.gather(
        activate(stand, "m", "champion", 2),
        activate(stand, "m", "champion", 3),
        activate(stand, "n", "champion", 2),
        return_exceptions=True,
    )
    assert isinstance(other, RolloutRefusedError)
    assert other.code == "generation_mismatch"
    assert isinstance(one, contract.Ack)
    assert isinstance(third, contract.Ack)
    versions = {one.version for one in stand.node.table.active.values()}
    assert versions == {2}


async def test_a_caller_that_leaves_stops_no_write(stand: Stand) -> None:
    leaving = asyncio.ensure_future(activate(stand, "m", "champion", 2))
    await asyncio.sleep(0)
    leaving.cancel()
    await activate(stand, "n", "champion", 2)
    assert stand.file.load("champion").active == stand.node.table.active


# --- wishes ---------------------------------------------------------------------------------------


def named(
    wishes: Sequence[contract.AwaitedVersion | contract.AbandonedVersion],
) -> list[tuple[str, int]]:
    return sorted((one.model, one.version) for one in wishes)


async def test_a_difference_has_the_wishes_that_came_or_went(stand: Stand) -> None:
    for number in range(1000):
        stand.node.want(f"m{number}", 1, "champion")
    whole = await stand.rollout.observe(0, "b")
    assert (len(whole.wanted), whole.unwanted) == (1000, [])
    await activate(stand, "m", "champion", 2)
    told = await stand.rollout.observe(whole.seq, "b")
    assert (told.since, told.wanted, told.unwanted) == (whole.seq, [], [])
    stand.node.want("n", 2)
    stand.node.unwant("m7", 1, "champion")
    stand.node.want("m8", 2, "champion")
    stand.node.unwant("m8", 2, "champion")
    last = await stand.rollout.observe(told.seq, "b")
    assert (named(last.wanted), named(last.unwanted)) == ([("n", 2)], [("m7", 1), ("m8", 2)])
    await taken(stand, change(1, "n", model("n", versions=2)))  # its bytes are here
    met = await stand.rollout.observe(last.seq, "b")
    assert (met.wanted, named(met.unwanted)) == ([], [("n", 2)])
    assert len((await stand.rollout.observe(0)).wanted) == 999


async def test_5000_wishes_are_kept_and_those_of_one_model_looked_at(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5000):
        stand.node.want(f"m{number}", 1, "champion")
    stand.node.want("m", 2, "new")
    assert len(stand.node.wanted()) == 5001
    looked, real = list[str](), node._is_met

    def is_met(table: RouteTable, name: str, version: int, alias: str | None) -> bool:
        looked.append(name)
        return real(table, name, version, alias)

    monkeypatch.setattr(node, "_is_met", is_met)
    await activate(stand, "m", "new", 2)
    await taken(stand, change(1, "n", model("n", versions=3)))
    assert looked == ["m"]
    assert len(stand.node.wanted()) == 5000
