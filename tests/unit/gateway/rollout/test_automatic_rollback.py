"""Promotions that live traffic shows to be worse are rolled back."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import contract
from gateway.contract.references import AliasRef, ArtifactRef
from gateway.errors import LoadError, RolloutRefusedError, TableFileError
from gateway.observability.live_tallies import LiveTallies
from gateway.rollout import automatic_rollback
from gateway.rollout.automatic_rollback import AutomaticRollback
from gateway.routing.table_file import TableFile
from tests.fakes.activations import activation
from tests.unit.gateway.rollout.test_rollout import D, Stand

WINDOW_S = 600.0
A = ("m", "champion")


class Watched(Stand):
    """A rollout with the automatic rollback. The test makes the traffic and sets the time."""

    def __init__(self, folder, table=None, window_s=WINDOW_S):
        super().__init__(folder, table)
        self.now = 0.0
        self.node.clock = lambda: 1000.0 + self.now
        self.tallies = LiveTallies()
        self.automatic = AutomaticRollback(
            node=self.node,
            rollout=self.rollout,
            live_tallies=self.tallies,
            min_requests=20,
            window_s=window_s,
            clock=lambda: 10_000.0 + self.now,
        )

    async def promoted(self, *versions, alias="champion", asked_by="poll"):
        for version in versions:
            await self.moved(version, alias=alias, asked_by=asked_by)
            await self.looked()

    async def moved(self, version, *, alias="champion", asked_by="poll"):
        ref = ArtifactRef("m", version, D[version])
        self.residents.ready.add(ref)
        request = activation(self.node.table, alias, ref, asked_by=asked_by)
        await self.rollout.activate(request)

    def traffic(self, version, answered=0, faults=0, seconds=0.001):
        key = ArtifactRef("m", version, D[version])
        for outcome in [seconds] * answered + [None] * faults:
            self.tallies.count(key, outcome)

    async def looked(self):
        """Look, and let all that came of it end."""
        self.automatic.look()
        while self.automatic._rollbacks:
            await asyncio.gather(*self.automatic._rollbacks.values())
            self.automatic.look()

    async def sees(self, *traffic):
        """Have traffic, and look at it."""
        self.traffic(*traffic)
        await self.looked()

    def active(self, alias="champion"):
        return self.node.table.active[AliasRef("m", alias)]

    def held(self):
        return [(hold.alias, hold.version) for hold in self.node.table.refused_digests]


@pytest.fixture
async def watched(tmp_path):
    stand = Watched(tmp_path)
    await stand.publish()
    await stand.promoted(1)
    stand.traffic(1, 100)
    return stand


async def test_a_version_that_fails_on_live_traffic_is_rolled_back_and_held(watched, tmp_path):
    await watched.promoted(2)
    await watched.sees(2, 15, 4)
    assert watched.active().version == 2, "nineteen requests prove nothing"
    await watched.sees(2, 1)
    now = watched.active()
    assert (now.version, now.digest, now.previous_version) == (1, D[1], 2)
    assert (now.asked_by, now.since) == ("gateway", 1000.0)
    (hold,) = watched.node.table.refused_digests
    assert (hold.version, hold.digest, hold.to_version, hold.generation) == (2, D[2], 1, 3)
    assert "automatic rollback to version 1" in hold.reason
    assert "4 of 20 requests failed" in hold.reason
    assert TableFile(tmp_path).load("champion") == watched.node.table
    assert (await watched.rollout.observe(0)).refused_digests == [hold]
    assert watched.residents.staged[-1] == (1, 2)
    assert watched.residents.unstaged[-1].startswith("rollback-")


async def test_a_slower_version_is_rolled_back_once_later_answers_confirm_it(watched):
    await watched.promoted(2)
    await watched.sees(2, 100, 0, 1.0)
    assert watched.active().version == 2, "this may be a stall of the machine"
    watched.now = 9.9
    await watched.sees(2, 100, 0, 1.0)
    assert watched.active().version == 2
    watched.now = 10.0
    await watched.looked()
    assert watched.active().version == 1
    (hold,) = watched.node.table.refused_digests
    assert "the slowest 5% of 100 answers took 0.94 s" in hold.reason


async def test_a_stall_of_the_machine_rolls_nothing_back(watched):
    """All answers of a moment are slow, whatever the version."""
    await watched.promoted(2)
    for _ in range(3):
        await watched.sees(2, 100, 0, 1.0)
        watched.now += 10.0
        await watched.sees(2, 100)
        assert watched.active().version == 2


async def test_a_slower_version_is_confirmed_by_enough_answers(watched):
    await watched.promoted(2)
    await watched.sees(2, 100, 0, 1.0)
    watched.now = 60.0
    await watched.sees(2, 19, 0, 1.0)
    assert watched.active().version == 2
    await watched.sees(2, 1, 0, 1.0)
    assert watched.active().version == 1


async def test_an_observation_continues_when_its_version_is_no_longer_listed(watched):
    await watched.promoted(2)
    watched.traffic(2, 0, 19)
    models = [contract.CatalogueModel(name="m", versions=[])]
    gone = contract.Catalogue(writer="w", epoch=2, models=models)
    entry = watched.active()
    watched.node.replace(watched.node.table.with_catalogue(gone))
    assert watched.active() is not entry, "it knows its own policy now"
    await watched.looked()
    watched.traffic(2, 0, 1)
    watched.node.replace(watched.node.table.with_catalogue(gone))
    await watched.looked()
    assert "20 of 20 requests failed" in watched.node.warnings[A], "those before count too"


async def test_a_rolled_back_version_is_refused_until_it_is_released(watched, tmp_path):
    await watched.promoted(2)
    await watched.sees(2, 0, 20)
    with pytest.raises(RolloutRefusedError, match="automatic rollback"):
        await watched.promoted(2)
    request = contract.AllowRequest(model="m", alias="champion", digest=D[2])
    generation = watched.node.table.generation
    for _ in range(2):
        assert (await watched.rollout.allow(request)).generation == generation
    assert TableFile(tmp_path).load("champion").refused_digests == ()
    await watched.promoted(2)
    await watched.sees(2, 100)
    assert watched.active().version == 2, "it is compared by its requests since"


async def test_a_good_version_stays_and_is_not_observed_after_its_window(watched):
    await watched.promoted(2)
    await watched.sees(2, 1000)
    watched.now += WINDOW_S + 1
    await watched.sees(2, 0, 1000)
    assert watched.active().version == 2


@pytest.mark.parametrize("asked_by", ["operator", "recovery", "adopted", None])
async def test_only_promotions_by_the_registry_are_rolled_back(watched, asked_by):
    await watched.promoted(2, asked_by=asked_by or "operator")
    if asked_by is None:  # as an older gateway wrote it down
        unknown = watched.active().model_copy(update={"asked_by": None})
        watched.node.replace(watched.node.table.with_active(unknown))
    await watched.sees(2, 0, 100)
    assert watched.active().version == 2


async def test_an_alias_without_a_previous_version_stays(tmp_path):
    stand = Watched(tmp_path)
    await stand.publish()
    await stand.promoted(1)
    await stand.sees(1, 0, 100)
    assert stand.active().version == 1
    assert stand.node.warnings == {}


async def test_the_same_bytes_under_another_number_are_not_observed(watched):
    same = watched.active().model_copy(
        update={"version": 2, "previous_version": 1, "previous_digest": D[1]}
    )
    watched.node.replace(watched.node.table.with_active(same))
    await watched.sees(2, 0, 100)
    assert watched.active().version == 2


async def test_a_window_of_0_s_switches_the_automatic_rollback_off(tmp_path):
    stand = Watched(tmp_path, window_s=0.0)
    async with asyncio.timeout(5):
        await stand.automatic.run()


async def test_every_alias_is_rolled_back_to_its_own_previous_version(watched):
    await watched.promoted(2, 4, alias="canary")
    await watched.promoted(2, 3, alias="old")
    watched.now += WINDOW_S + 1
    await watched.promoted(3)
    await watched.promoted(3, alias="canary")
    await watched.sees(3, 0, 20)
    assert (watched.active().version, watched.active("canary").version) == (1, 4)
    assert watched.active("old").version == 3, "its window is over"
    assert sorted(watched.held()) == [("canary", 3), ("champion", 3)]


# --- two moves ------------------------------------------------------------------------------------


async def test_a_rolled_back_alias_is_not_observed(watched):
    await watched.promoted(2)
    watched.traffic(2, 100)
    watched.now += 5
    await watched.promoted(3)
    await watched.sees(3, 0, 20)
    assert (watched.active().version, watched.held()) == (2, [("champion", 3)])
    await watched.sees(2, 0, 200)
    assert (watched.active().version, watched.active().previous_version) == (2, 3)
    assert watched.node.warnings == {}


async def test_a_promotion_during_a_rollback_stays(watched):
    await watched.promoted(2)
    watched.residents.gate.clear()
    watched.traffic(2, 0, 20)
    watched.automatic.look()
    await asyncio.sleep(0)  # it begins, and waits for the worker
    assert watched.residents.staged == [(1, 2)]
    await watched.moved(3)
    watched.residents.gate.set()
    await watched.looked()
    assert (watched.active().version, watched.active().previous_version) == (3, 2)
    assert watched.held() == []


# --- rollbacks that fail --------------------------------------------------------------------------


def catalogue(**of_1: Any) -> contract.Catalogue:
    versions = [
        contract.CatalogueVersion.model_validate(
            {"version": n, "state": "available", "digest": D[n]} | (of_1 if n == 1 else {})
        )
        for n in D
    ]
    if of_1.get("gone"):
        versions = versions[1:]
    model = contract.CatalogueModel(name="m", versions=versions)
    return contract.Catalogue(writer="w", epoch=9, models=[model])


@pytest.mark.parametrize(
    ("of_1", "says"),
    [
        ({"state": "quarantined", "reason": "wrong bytes"}, "may not serve: wrong bytes"),
        ({"state": "deleted"}, "no longer has version 1"),
        ({"gone": True}, "no longer has version 1"),
        ({"rejected": True, "reason": "it answers NaN"}, "may not serve: it answers NaN"),
        ({"expected_digest": D[4]}, "has other bytes"),
        ({"digest": None}, "its bytes are gone"),
    ],
)
async def test_an_inadmissible_previous_version_stops_the_rollback(watched, of_1, says):
    await watched.promoted(2)
    body = catalogue(**of_1)
    await watched.rollout.catalogue.take(body, body.model_dump_json().encode())
    await watched.sees(2, 0, 20)
    assert (watched.active().version, watched.held()) == (2, [])
    assert says in watched.node.warnings[A]
    assert "20 of 20 requests failed" in watched.node.warnings[A]
    await watched.promoted(3)
    assert watched.node.warnings == {}


async def test_a_rollback_that_failed_is_tried_again_every_ten_seconds(watched):
    await watched.promoted(2)
    watched.residents.failures[1] = LoadError("worker_died", "it was killed")
    watched.traffic(2, 0, 20)
    with capture_logs() as logs:
        await watched.looked()
    assert [entry["event"] for entry in logs] == ["rollback.refused"]
    assert "it was killed" in watched.node.warnings[A]
    tries = len(watched.residents.staged)
    for second in range(1, 36):
        watched.now = float(second)
        await watched.looked()
    assert len(watched.residents.staged) == tries + 3
    watched.residents.failures.clear()
    watched.now = 40.0
    await watched.looked()
    assert (watched.active().version, watched.node.warnings) == (1, {})


async def test_without_room_for_both_versions_it_rolls_back_at_once(watched):
    await watched.promoted(2)
    watched.residents.failures[1] = LoadError("no_room", "two do not fit")
    await watched.sees(2, 0, 20)
    assert watched.active().version == 1


@pytest.mark.parametrize(
    ("swap", "other", "used"),
    [
        (None, None, "blue_green"),
        ("auto", None, "auto"),
        ("unload_first", None, "unload_first"),
        # another alias goes on meaning the version that fails: it is not unloaded for this one
        ("unload_first", "challenger", "blue_green"),
    ],
)
async def test_the_previous_version_comes_up_as_its_policy_requires(watched, swap, other, used):
    await watched.publish(epoch=2, swap=swap)
    if other is not None:
        await watched.promoted(2, alias=other, asked_by="operator")
    await watched.promoted(2)
    await watched.sees(2, 0, 20)
    assert (watched.active().version, watched.residents.swaps[-1]) == (1, (used, 1))


async def test_a_failed_write_changes_nothing_and_is_tried_again(watched, monkeypatch):
    await watched.promoted(2)
    watched.traffic(2, 0, 20)

    def full(table, moved):
        raise TableFileError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(watched.file, "save_change", full)
        await watched.looked()
    assert (watched.active().version, watched.held()) == (2, [])
    watched.now += 11
    await watched.looked()
    assert watched.active().version == 1


# --- over a restart -------------------------------------------------------------------------------


async def test_an_observation_continues_after_a_restart_with_new_requests(watched, tmp_path):
    await watched.promoted(2)
    await watched.sees(2, 0, 19)
    again = Watched(tmp_path, TableFile(tmp_path).load("champion"))
    again.now = 60.0
    await again.sees(2, 0, 19)
    assert again.active().version == 2
    await again.sees(2, 0, 20)
    assert again.active().version == 1


@pytest.mark.parametrize("now", [WINDOW_S + 1, -3600.0], ids=["it is over", "set back"])
async def test_a_clock_beyond_the_observation_starts_none_after_a_restart(watched, tmp_path, now):
    await watched.promoted(2)
    again = Watched(tmp_path, TableFile(tmp_path).load("champion"))
    again.now = now
    await again.looked()
    await again.sees(2, 0, 100)
    assert again.active().version == 2


# --- the loop -------------------------------------------------------------------------------------


async def test_run_looks_every_second_and_survives_an_error(watched, monkeypatch):
    await watched.promoted(2)
    real, tries = watched.rollout.roll_back, []

    def passes(seconds):
        watched.now += seconds

    async def roll_back(*args, **kwargs):
        tries.append(args)
        if len(tries) == 1:
            asyncio.get_running_loop().call_later(0.05, passes, 11)
            raise RuntimeError("odd")
        await real(*args, **kwargs)

    monkeypatch.setattr(watched.rollout, "roll_back", roll_back)
    monkeypatch.setattr(automatic_rollback, "_LOOK_EVERY_S", 0.01)
    running = asyncio.ensure_future(watched.automatic.run())
    watched.traffic(2, 0, 20)
    async with asyncio.timeout(10):
        while watched.active().version != 1:
            await watched.node.next_change()
    assert len(tries) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_holds_of_an_alias_are_bounded(watched):
    table = watched.node.table
    for number in range(40):
        hold = contract.RefusedDigest(
            model="m", alias="champion", digest=f"sha256:{number:064x}", reason="", version=9
        )
        table = table.rolled_back(watched.active(), hold)
    assert len(table.refused_digests) == 16
    assert table.refused_digests[-1].digest == f"sha256:{39:064x}"
