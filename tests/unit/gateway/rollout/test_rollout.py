"""Stage, activate, retire, observe: what is acknowledged, refused, and remembered on disk."""

import asyncio
from typing import cast

import pytest

from gateway import contract
from gateway.contract.references import AliasRef, ArtifactRef
from gateway.errors import LoadError, RolloutRefusedError
from gateway.observability.metrics import Telemetry
from gateway.rollout import standbys
from gateway.rollout.rollout import Rollout
from gateway.routing.node import MOST_EVENTS, Node
from gateway.routing.route_table import RouteTable
from gateway.routing.table_file import TableFile
from gateway.serving.residency.decision import ResidentLimits
from gateway.serving.residency.eviction_costs import EvictionCosts
from gateway.serving.residency.resident_set import ResidentSet
from gateway.worker.protocol.messages import Loaded
from tests.fakes.activations import activation
from tests.fakes.disk import fill_disk

D = {n: f"sha256:{n:064x}" for n in range(1, 5)}
LOADED = Loaded(1, {"load": 0.5}, "passed", "alone", "", "pyfunc", "")


class FakeResidents:
    """Brings up what it is told to, and remembers who was spared."""

    def __init__(self):
        self.failures, self.ready, self.unstaged = {}, set(), []
        self.gate = asyncio.Event()
        self.gate.set()
        self.staged, self.swaps, self.renewed = [], [], []
        self.replaced = []
        self.looks = 0
        self.limits = ResidentLimits(8, 2**30)
        self.eviction_costs = EvictionCosts(lambda: 0.0)

    def residents(self):
        return []

    def rebalance(self):
        self.looks += 1

    async def stage(self, key, stage_id, *, replaces, swap, replicas, wait_s):
        self.swaps.append((swap, replicas))
        self.replaced.append(replaces)
        self.staged.append((key.version, replaces.version if replaces else None))
        await self.gate.wait()
        if key.version in self.failures:
            raise self.failures[key.version]
        self.ready.add(key)
        return LOADED

    def unstage(self, stage_id):
        self.unstaged.append(stage_id)

    def is_ready(self, key):
        return key in self.ready

    def renew(self, key):
        self.renewed.append(key)

    def digests(self):
        return {key.digest for key in self.ready}


class Stand:
    """One rollout with everything around it."""

    def __init__(self, folder, table=None):
        self.file = TableFile(folder)
        self.node = Node(
            node_id="n", boot_id="b", table=table or RouteTable(default_alias="champion")
        )
        self.residents = FakeResidents()
        self.rollout = Rollout(
            node=self.node,
            residents=cast("ResidentSet", self.residents),
            table_file=self.file,
            telemetry=Telemetry(),
            stage_wait_s=5,
        )

    async def publish(self, epoch=1, writer="w", aliases=None, swap=None, gone=()):
        versions = [
            contract.CatalogueVersion(
                version=n, state="available", digest=None if n in gone else D[n]
            )
            for n in D
        ]
        catalogue = contract.Catalogue(
            writer=writer,
            epoch=epoch,
            models=[
                contract.CatalogueModel(
                    name="m",
                    versions=versions,
                    aliases=aliases or {},
                    policy=contract.Policy(swap=swap),
                )
            ],
        )
        return await self.rollout.catalogue.take(catalogue, catalogue.model_dump_json().encode())

    async def stage(self, version, *, keep=True, replaces=None, alias=None):
        stage_id = f"s{version}"
        self.rollout.standbys.start(
            contract.StageRequest(
                stage_id=stage_id,
                model="m",
                version=version,
                digest=D[version],
                keep=keep,
                replaces=replaces,
                alias=alias,
            )
        )
        return await self.outcome(stage_id)

    async def outcome(self, stage_id):
        seq = 0
        async with asyncio.timeout(5):
            while True:
                state = await self.rollout.observe(seq)
                for event in state.events:
                    if event.stage.stage_id == stage_id:
                        return event.stage
                seq = state.seq

    async def activate(self, version, *, alias="champion", stage_id=None, digest=None, **members):
        ref = ArtifactRef("m", version, digest or D[version])
        stage_id = stage_id or f"s{version}"
        request = activation(self.node.table, alias, ref, stage_id=stage_id, **members)
        return await self.rollout.activate(request)


@pytest.fixture
async def stand(tmp_path):
    return Stand(tmp_path)


async def refused(awaitable):
    with pytest.raises(RolloutRefusedError) as raised:
        await awaitable
    return raised.value.code


async def test_a_catalogue_has_the_resident_set_look_at_what_is_asked_of_versions_now(stand):
    await stand.publish()
    assert stand.residents.looks == 1


async def test_a_promotion_moves_the_alias_and_keeps_the_old_one_as_previous(stand):
    await stand.publish()
    await stand.stage(1)
    await stand.activate(1)
    outcome = await stand.stage(2, replaces=1)
    assert (outcome.failure, outcome.durations_s) == (None, LOADED.durations_s)
    assert await stand.stage(2, replaces=1) == outcome, "asked twice, it is done once"
    ack = await stand.activate(2)
    assert ack.generation == 2
    assert stand.residents.staged == [(1, None), (2, 1)]
    active = stand.node.table.active[AliasRef("m", "champion")]
    assert (active.version, active.previous_version, active.previous_digest) == (2, 1, D[1])


async def test_what_is_acknowledged_is_on_disk(stand, tmp_path):
    await stand.publish()
    await stand.stage(1)
    await stand.activate(1)
    assert TableFile(tmp_path).load("champion") == stand.node.table


async def test_a_table_that_cannot_be_written_is_not_acknowledged_and_changes_nothing(
    stand, monkeypatch
):
    await stand.publish()
    await stand.stage(1)
    before = stand.node.table
    fill_disk(monkeypatch)
    assert await refused(stand.activate(1)) == "table_write_failed"
    assert stand.node.table is before


async def test_when_it_is_closed_nothing_is_staged_any_more(stand):
    stand.residents.gate.clear()
    request = contract.StageRequest(stage_id="s1", model="m", version=1, digest=D[1])
    stand.rollout.standbys.start(request)
    await asyncio.sleep(0)
    await stand.rollout.close()
    assert stand.residents.staged == [(1, None)]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failed_stage_is_reported_and_cannot_be_activated(stand):
    stand.residents.failures[2] = LoadError("warm_up_failed", "the example predicts NaN")
    outcome = await stand.stage(2)
    assert (outcome.failure, outcome.message) == ("warm_up_failed", "the example predicts NaN")
    assert await refused(stand.activate(2)) == "not_staged"


@pytest.mark.parametrize("step", ["_swap", "_stand_by"])
async def test_a_stage_that_fails_unexpectedly_is_reported(stand, monkeypatch, step):

    def fail(*_):
        raise RuntimeError("out of order")

    monkeypatch.setattr(stand.rollout.standbys, step, fail)
    outcome = await stand.stage(2)
    assert outcome.failure == "internal_error"
    assert "out of order" in outcome.message
    assert stand.residents.unstaged == ["s2"]


async def test_staged_bytes_are_not_other_bytes(stand):
    assert await refused(stand.activate(1)) == "not_staged"
    await stand.stage(1)
    assert await refused(stand.activate(1, digest=D[2])) == "not_staged"


async def test_an_alias_that_has_moved_on_refuses(stand):
    for version in (1, 2):
        await stand.stage(version)
    await stand.activate(1)
    for other in ({}, {"version": 2, "digest": D[1]}, {"version": 1, "digest": D[2]}):
        assert await refused(stand.activate(2, if_active=other)) == "generation_mismatch"


async def test_a_held_digest_is_refused_with_its_reason(tmp_path):
    hold = contract.RefusedDigest(
        model="m", alias="champion", digest=D[2], reason="rolled back: too many errors"
    )
    stand = Stand(tmp_path, RouteTable(default_alias="champion", refused_digests=(hold,)))
    await stand.stage(2)
    with pytest.raises(RolloutRefusedError, match="too many errors"):
        await stand.activate(2)


async def test_an_activation_asked_twice_is_acknowledged_twice_and_done_once(stand):
    await stand.stage(1)
    first = await stand.activate(1, if_active={})
    again = await stand.activate(1, if_active={})
    assert first == again
    assert stand.node.table.generation == 1


async def test_a_standby_is_spared_until_it_is_activated(stand):
    await stand.stage(1)
    state = await stand.rollout.observe(0)
    assert [one.version for one in state.standbys] == [1]
    assert stand.residents.unstaged == []
    await stand.activate(1)
    assert stand.residents.unstaged == ["s1"]
    assert (await stand.rollout.observe(0)).standbys == []


async def test_a_standby_that_is_taken_away_is_spared_no_longer(stand):
    await stand.stage(1)
    before = await stand.rollout.observe(0)
    for _ in range(2):  # asking again is fine
        await stand.rollout.retire(contract.RetireRequest(model="m", stage_id="s1"))
    assert stand.residents.unstaged == ["s1"]
    told = await stand.rollout.observe(before.seq)
    assert (told.standbys, told.generation) == ([], before.generation)


async def test_who_is_resident_is_told_with_the_next_answer_and_is_no_news_itself(stand):
    stand.node.libraries = "a mark"
    before = await stand.rollout.observe(0)
    served = ("m", 2, D[2]), ("m", 1, D[1]), ("other", 7, D[1])
    stand.residents.ready |= {ArtifactRef(*one) for one in served}
    after = await stand.rollout.observe(0)
    assert (before.resident, after.resident) == ([], [D[1], D[2]])
    assert after.libraries == "a mark"
    assert after.seq == before.seq


def test_planes_of_different_age_understand_each_other():
    told = contract.NodeState(node_id="n", boot_id="b", seq=1, generation=1, resident=[D[1]])
    older = told.model_dump(exclude={"resident"})
    assert contract.NodeState.model_validate(older).resident == []
    newer = told.model_dump() | {"what_nobody_knows_yet": 1}
    assert contract.NodeState.model_validate(newer) == told


async def test_a_standby_nobody_activates_is_given_up(stand, monkeypatch):
    monkeypatch.setattr(standbys, "STANDBY_TIMEOUT_S", 0.01)
    await stand.stage(1)
    async with asyncio.timeout(5):
        while stand.residents.unstaged != ["s1"]:
            await stand.node.next_change()


async def test_a_cold_stage_is_warmed_once_and_is_the_first_to_go(stand):
    await stand.stage(1, keep=False)
    assert stand.residents.unstaged == ["s1"]
    await stand.activate(1)


async def test_of_5000_outcomes_that_are_missed_the_newest_are_told(stand):
    for number in range(5000):
        stand.node.report(
            contract.StageOutcome(
                stage_id=f"s{number}", model="m", version=1, digest=D[1], durations_s={}
            )
        )
    events = (await stand.rollout.observe(0)).events
    assert (await stand.rollout.observe(0)).events == events, "until they are acknowledged"
    assert [one.stage.stage_id for one in events] == [
        f"s{number}" for number in range(5000 - MOST_EVENTS, 5000)
    ]
    stand.node.changed()
    assert (await stand.rollout.observe(events[-1].seq)).events == []


async def test_a_catalogue_that_is_not_complete_replaces_none_on_disk(tmp_path):
    def partial(epoch):
        return contract.Catalogue(
            writer="new", epoch=epoch, models=[], source_error="it said 403", complete=False
        )

    stand, table_file = Stand(tmp_path), TableFile(tmp_path)
    for catalogue in (partial(1), partial(2)):
        await stand.rollout.catalogue.take(catalogue, catalogue.model_dump_json().encode())
        kept = table_file.load("champion").catalogue
        assert kept is not None
        assert (kept.complete, kept.epoch) == (False, catalogue.epoch)
    await stand.publish(1)
    last = partial(3)
    await stand.rollout.catalogue.take(last, last.model_dump_json().encode())
    kept = table_file.load("champion").catalogue
    assert kept is not None
    assert (kept.complete, [model.name for model in kept.models]) == (True, ["m"])
    now = stand.node.table.catalogue
    assert now is not None
    assert (now.models, now.source_error) == (kept.models, "it said 403")
    unchanged = contract.UnchangedCatalogue(writer="new", epoch=3, source_error="it said 401")
    await stand.rollout.catalogue.confirm(unchanged)
    now = stand.node.table.catalogue
    assert now is not None
    assert (now.models, now.source_error) == (kept.models, "it said 401")


async def test_a_newer_contract_is_refused_with_a_sentence(tmp_path):
    newer = contract.Catalogue(contract_version=99, writer="w", epoch=1, models=[])
    with pytest.raises(RolloutRefusedError, match="upgrade the gateway"):
        await Stand(tmp_path).rollout.catalogue.take(newer, b"{}")


@pytest.mark.parametrize(
    ("moving", "registry", "swap"),
    [
        # the registry moves both: the old version has served
        ("champion", {"champion": 2, "challenger": 2}, "unload_first"),
        # the champion stays: nobody unloads it because another one moves
        ("challenger", {"champion": 1, "challenger": 2}, "blue_green"),
        ("latest", {"champion": 1, "challenger": 2, "latest": 2}, "blue_green"),
        # latest alone holds up no promotion
        ("challenger", {"champion": 2, "challenger": 2, "latest": 1}, "unload_first"),
    ],
)
async def test_what_another_alias_goes_on_meaning_is_not_unloaded_first(
    stand, moving, registry, swap
):
    await stand.publish(aliases=dict.fromkeys(registry, 1))
    await stand.stage(1)
    for alias in registry:
        await stand.activate(1, alias=alias)
    await stand.publish(epoch=2, aliases=registry, swap="unload_first")
    await stand.stage(2, replaces=1, alias=moving)
    assert stand.residents.swaps[-1] == (swap, 1)


async def test_a_damaged_copy_that_came_anew_is_loaded_without_a_pause(stand):
    await stand.publish()
    assert await refused(stand.publish()) == "stale_epoch"
    stand.node.copy_damaged(ArtifactRef("m", 1, D[1]), "altered")
    stand.node.copy_damaged(ArtifactRef("m", 2, D[2]), "altered")
    assert [one.digest for one in (await stand.rollout.observe(0)).damaged] == [D[1], D[2]]
    await stand.publish(epoch=2)
    assert stand.residents.renewed == [], "these are the bytes that are damaged"
    await stand.publish(epoch=3, gone=[1])
    await stand.publish(epoch=4)
    assert stand.residents.renewed == [ArtifactRef("m", 1, D[1])]
    assert [one.digest for one in (await stand.rollout.observe(0)).damaged] == [D[2]]


async def test_an_alias_is_retired_once_and_leaves_no_series(stand):
    await stand.publish()
    await stand.stage(1)
    for alias in ("champion", "build-1"):
        await stand.activate(1, alias=alias)
    for _ in range(2):
        ack = await stand.rollout.retire(contract.RetireRequest(model="m", alias="build-1"))
        assert ack.generation == 3
    assert list(stand.node.table.active) == [("m", "champion")]
    (family,) = stand.rollout._telemetry.swaps.collect()
    assert {sample.labels["alias"] for sample in family.samples} == {"champion"}


async def test_who_was_staged_twice_is_spared_no_longer_than_until_it_is_active(stand):
    await stand.publish()
    await stand.stage(1)
    stand.rollout.standbys.start(
        contract.StageRequest(stage_id="again", model="m", version=1, digest=D[1], keep=True)
    )
    await stand.outcome("again")
    await stand.activate(1)
    before = len(stand.residents.unstaged)
    await stand.activate(1, stage_id="again")
    assert stand.residents.unstaged[before:] == ["again"]


async def test_what_a_predecessor_runs_under_outlives_a_restart(stand, tmp_path):
    own = contract.Environment(kind="own", python="/environments/a/python")

    async def publish(epoch, digest, **members):
        version = contract.CatalogueVersion(
            version=1, state="available", digest=digest, accepted_digest=digest, **members
        )
        model = contract.CatalogueModel(name="m", versions=[version])
        catalogue = contract.Catalogue(writer="w", epoch=epoch, models=[model])
        await stand.rollout.catalogue.take(catalogue, catalogue.model_dump_json().encode())

    await publish(1, D[1], environment=own, policy=contract.Policy(timeout_s=9.0))
    await stand.stage(1)
    await stand.activate(1)
    await publish(2, D[2])
    for table in (stand.node.table, TableFile(tmp_path).load("champion")):
        assert table.environment_of(ArtifactRef("m", 1, D[1])) == own
        assert table.policy_of(ArtifactRef("m", 1, D[1])).timeout_s == 9.0
        assert table.environment_of(ArtifactRef("m", 1, D[2])) == contract.Environment()


@pytest.mark.parametrize("order", [("champion", "prod"), ("prod", "champion")])
@pytest.mark.parametrize("other", [D[2], D[3]])
async def test_a_stage_replaces_the_bytes_of_its_own_alias(tmp_path, order, other):
    table = RouteTable("champion")
    for alias in order:
        digest = D[1] if alias == "champion" else other
        table = table.with_active(
            contract.ActiveAlias(model="m", alias=alias, version=1, digest=digest, since=1.0)
        )
    stand = Stand(tmp_path, table)
    await stand.publish(swap="unload_first", aliases={"champion": 1})
    request = contract.StageRequest(
        stage_id="s", model="m", version=1, digest=D[2], replaces=1, alias="champion"
    )
    stand.rollout.standbys.start(request)
    await stand.outcome("s")
    assert stand.residents.replaced == [ArtifactRef("m", 1, D[1])]
    assert stand.residents.swaps == [("unload_first", 1)], "no other alias means these bytes"
    stand.rollout.standbys.start(request.model_copy(update={"stage_id": "again", "digest": D[1]}))
    await stand.outcome("again")
    assert stand.residents.replaced[1:] == [None], "no version replaces itself"


async def test_the_state_tells_how_full_the_set_is_and_what_evictions_cost(stand):
    residents, rollout = stand.residents, stand.rollout
    residents.eviction_costs.add("GATEWAY_MAX_RESIDENT", 3, 0.25)
    residency = (await rollout.observe(0)).residency
    assert residency is not None
    assert (residency.workers, residency.worker_limit) == (0, 8)
    assert (residency.memory_bytes, residency.memory_limit_bytes) == (0, 2**30)
    (cost,) = residency.eviction_costs
    assert (cost.setting, cost.requests, cost.longest_wait_s) == ("GATEWAY_MAX_RESIDENT", 3, 0.25)
