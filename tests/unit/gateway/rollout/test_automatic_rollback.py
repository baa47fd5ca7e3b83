"""The rule: what the registry promoted and live traffic shows to be worse is taken back."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import contract
from gateway.contract.references import ReplicaKey
from gateway.errors import LoadError, RolloutRefusedError, TableFileError
from gateway.observability.live_tallies import LiveRecord
from gateway.rollout import automatic_rollback
from gateway.rollout.automatic_rollback import RollbackRule
from gateway.rollout.live_comparison import Margins
from gateway.routing.table_file import TableFile
from tests.unit.gateway.rollout.test_rollout import D, Stand

MARGINS = Margins(min_requests=20, error_share=0.05, latency_ratio=3.0, latency_floor_s=0.05)
WINDOW_S = 600.0
A = ("m", "champion")


class Ruled(Stand):
    """A rollout under the rule. Traffic is what the test says; time is what it sets."""

    def __init__(self, folder, table=None, window_s=WINDOW_S):
        super().__init__(folder, table)
        self.now = 0.0
        self.node.clock = lambda: 1000.0 + self.now
        self.record = LiveRecord()
        self.rule = RollbackRule(
            node=self.node,
            rollout=self.rollout,
            live_record=self.record,
            margins=MARGINS,
            window_s=window_s,
            clock=lambda: 10_000.0 + self.now,
        )

    async def promoted(self, *versions, alias="champion", asked_by="poll"):
        for version in versions:
            self.residents.ready.add(ReplicaKey("m", version, D[version]))
            await self.rollout.activate(
                contract.ActivateRequest(
                    model="m",
                    alias=alias,
                    version=version,
                    digest=D[version],
                    if_generation=self.node.table.generation,
                    asked_by=asked_by,
                )
            )
            await self.looked()

    def traffic(self, version, answered=0, faults=0, seconds=0.001):
        key = ReplicaKey("m", version, D[version])
        for _ in range(answered):
            self.record.answered(key, seconds)
        for _ in range(faults):
            self.record.failed(key)

    async def looked(self):
        """Look, and let all that came of it end."""
        self.rule.look()
        await self.rule._turn_record()
        while self.rule._going:
            await asyncio.gather(*self.rule._going.values())
            self.rule.look()

    def active(self, alias="champion"):
        return self.node.table.active["m", alias]

    def held(self):
        return [(hold.alias, hold.version) for hold in self.node.table.holds]


@pytest.fixture
async def ruled(tmp_path):
    stand = Ruled(tmp_path)
    await stand.publish()
    await stand.promoted(1)
    stand.traffic(1, 100)
    return stand


async def test_a_version_that_fails_on_live_traffic_is_taken_back_and_held(ruled, tmp_path):
    await ruled.promoted(2)
    ruled.traffic(2, 15, 4)
    await ruled.looked()
    assert ruled.active().version == 2, "nineteen requests prove nothing"
    ruled.traffic(2, 1)
    await ruled.looked()
    now = ruled.active()
    assert (now.version, now.digest, now.previous_version) == (1, D[1], 2)
    assert (now.asked_by, now.since) == ("rule", 1000.0)
    (hold,) = ruled.node.table.holds
    assert (hold.version, hold.digest, hold.to_version, hold.generation) == (2, D[2], 1, 3)
    assert "went back to version 1 by rule" in hold.reason
    assert "4 of 20 requests failed" in hold.reason
    assert TableFile(tmp_path).load("champion") == ruled.node.table
    assert (await ruled.rollout.observe(0)).holds == [hold]
    assert ruled.residents.staged[-1] == (1, 2)
    assert ruled.residents.unstaged[-1].startswith("rule-")


async def test_a_trial_goes_on_when_its_version_is_listed_no_more(ruled):
    await ruled.promoted(2)
    ruled.traffic(2, 0, 19)
    models = [contract.CatalogueModel(name="m", versions=[])]
    gone = contract.Catalogue(writer="w", epoch=2, models=models)
    entry = ruled.active()
    ruled.node.replace(ruled.node.table.with_catalogue(gone))
    assert ruled.active() is not entry, "it knows its own policy now"
    await ruled.looked()
    ruled.traffic(2, 0, 1)
    ruled.node.replace(ruled.node.table.with_catalogue(gone))
    trial = ruled.rule._trials["m", "champion"]
    assert trial.before.requests == 0, "what was counted before counts still"


async def test_what_was_taken_back_is_refused_until_it_is_released(ruled, tmp_path):
    await ruled.promoted(2)
    ruled.traffic(2, 0, 20)
    await ruled.looked()
    with pytest.raises(RolloutRefusedError, match="by rule"):
        await ruled.promoted(2)
    request = contract.ReleaseRequest(model="m", alias="champion", digest=D[2])
    generation = ruled.node.table.generation
    for _ in range(2):
        assert (await ruled.rollout.release(request)).generation == generation
    assert TableFile(tmp_path).load("champion").holds == ()
    await ruled.promoted(2)
    assert ruled.active().version == 2


async def test_one_more_try_is_judged_by_its_own_requests(ruled):
    await ruled.promoted(2)
    ruled.traffic(2, 0, 20)
    await ruled.looked()
    request = contract.ReleaseRequest(model="m", alias="champion", digest=D[2])
    await ruled.rollout.release(request)
    await ruled.promoted(2)
    ruled.traffic(2, 100)
    await ruled.looked()
    assert ruled.active().version == 2


async def test_a_slow_version_is_taken_back(ruled):
    await ruled.promoted(2)
    ruled.traffic(2, 100, seconds=0.5)
    await ruled.looked()
    assert ruled.active().version == 1
    assert "before it: 0.00" in ruled.node.table.holds[0].reason


async def test_a_version_that_does_well_stays_and_is_not_judged_after_its_window(ruled):
    await ruled.promoted(2)
    ruled.traffic(2, 1000)
    await ruled.looked()
    ruled.now += WINDOW_S + 1
    ruled.traffic(2, 0, 1000)
    await ruled.looked()
    assert ruled.active().version == 2


@pytest.mark.parametrize("asked_by", ["operator", "recovery", "adopted", None])
async def test_only_what_the_registry_asked_for_is_taken_back(ruled, asked_by):
    await ruled.promoted(2, asked_by=asked_by or "operator")
    if asked_by is None:  # as an older gateway wrote it down
        unknown = ruled.active().model_copy(update={"asked_by": None})
        ruled.node.replace(ruled.node.table.with_active(unknown))
    ruled.traffic(2, 0, 100)
    await ruled.looked()
    assert ruled.active().version == 2


async def test_an_alias_without_a_previous_version_stays(tmp_path):
    stand = Ruled(tmp_path)
    await stand.publish()
    await stand.promoted(1)
    stand.traffic(1, 0, 100)
    await stand.looked()
    assert stand.active().version == 1
    assert stand.node.warnings == {}


async def test_the_same_bytes_under_another_number_are_no_way_back(ruled):
    same = ruled.active().model_copy(
        update={"version": 2, "previous_version": 1, "previous_digest": D[1]}
    )
    ruled.node.replace(ruled.node.table.with_active(same))
    ruled.traffic(2, 0, 100)
    await ruled.looked()
    assert ruled.active().version == 2


async def test_a_window_of_nothing_turns_the_rule_off(tmp_path):
    stand = Ruled(tmp_path, window_s=0.0)
    async with asyncio.timeout(5):
        await stand.rule.run()


async def test_every_alias_goes_back_to_its_own_previous_version(ruled):
    await ruled.promoted(2, 4, alias="canary")
    ruled.now += WINDOW_S + 1
    await ruled.promoted(3)
    await ruled.promoted(3, alias="canary")
    ruled.traffic(3, 0, 20)
    await ruled.looked()
    assert (ruled.active().version, ruled.active("canary").version) == (1, 4)
    assert sorted(ruled.held()) == [("canary", 3), ("champion", 3)]


async def test_one_alias_goes_back_and_the_other_stays_whose_trial_is_over(ruled):
    await ruled.promoted(2, 3, alias="old")
    ruled.now += WINDOW_S + 1
    await ruled.promoted(3)
    ruled.traffic(3, 0, 20)
    await ruled.looked()
    assert (ruled.active().version, ruled.active("old").version) == (1, 3)


# --- two swaps ------------------------------------------------------------------------------------


async def test_a_second_promotion_is_held_against_the_first(ruled):
    await ruled.promoted(2)
    ruled.traffic(2, 100)
    ruled.now += 5
    await ruled.promoted(3)
    ruled.traffic(3, 0, 20)
    await ruled.looked()
    assert (ruled.active().version, ruled.held()) == (2, [("champion", 3)])
    assert ruled.active().previous_version == 1, "version 2 is on trial still"


async def test_what_was_gone_back_to_and_was_on_trial_is_taken_back_too(ruled):
    await ruled.promoted(2)
    ruled.now += 5
    await ruled.promoted(3)
    ruled.traffic(3, 0, 20)
    await ruled.looked()
    ruled.traffic(2, 0, 20)
    await ruled.looked()
    assert ruled.active().version == 1
    assert ruled.held() == [("champion", 3), ("champion", 2)]
    ruled.traffic(1, 0, 200)
    await ruled.looked()
    assert ruled.active().version == 1, "there is nothing before it"


async def test_a_proved_version_that_was_gone_back_to_is_on_trial_no_more(ruled):
    await ruled.promoted(2)
    ruled.now += WINDOW_S + 1
    await ruled.looked()
    await ruled.promoted(3)
    ruled.traffic(3, 0, 20)
    await ruled.looked()
    ruled.traffic(2, 0, 200)
    await ruled.looked()
    assert (ruled.active().version, ruled.active().previous_version) == (2, 3)
    assert ruled.node.warnings == {}


async def test_a_promotion_while_it_goes_back_is_left_alone(ruled):
    await ruled.promoted(2)
    ruled.residents.gate.clear()
    ruled.traffic(2, 0, 20)
    ruled.rule.look()
    await asyncio.sleep(0)  # it begins, and waits for the worker
    assert ruled.residents.staged == [(1, 2)]
    request = contract.ActivateRequest(
        model="m",
        alias="champion",
        version=3,
        digest=D[3],
        if_generation=ruled.node.table.generation,
    )
    ruled.residents.ready.add(ReplicaKey("m", 3, D[3]))
    await ruled.rollout.activate(request)
    ruled.residents.gate.set()
    await ruled.looked()
    assert (ruled.active().version, ruled.active().previous_version) == (3, 2)
    assert ruled.held() == []


# --- what stands in the way -----------------------------------------------------------------------


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
async def test_there_is_no_going_back_to_what_may_not_serve(ruled, of_1, says):
    await ruled.promoted(2)
    body = catalogue(**of_1)
    await ruled.rollout.take_catalogue(body, body.model_dump_json().encode())
    ruled.traffic(2, 0, 20)
    await ruled.looked()
    assert (ruled.active().version, ruled.held()) == (2, [])
    assert says in ruled.node.warnings[A]
    assert "20 of 20 requests failed" in ruled.node.warnings[A]
    await ruled.promoted(3)
    assert ruled.node.warnings == {}


async def test_a_previous_version_that_does_not_come_up_is_tried_again_later(ruled):
    await ruled.promoted(2)
    ruled.residents.failures[1] = LoadError("worker_died", "it was killed")
    ruled.traffic(2, 0, 20)
    with capture_logs() as logs:
        await ruled.looked()
    assert [entry["event"] for entry in logs] == ["rollback.refused"]
    assert "it was killed" in ruled.node.warnings[A]
    ruled.residents.failures.clear()
    await ruled.looked()
    assert ruled.active().version == 2
    ruled.now += 11
    await ruled.looked()
    assert (ruled.active().version, ruled.node.warnings) == (1, {})


async def test_without_room_for_both_it_goes_back_at_once(ruled):
    await ruled.promoted(2)
    ruled.residents.failures[1] = LoadError("no_room", "two do not fit")
    ruled.traffic(2, 0, 20)
    await ruled.looked()
    assert ruled.active().version == 1


@pytest.mark.parametrize(
    ("swap", "other", "used"),
    [
        (None, None, "blue_green"),
        ("auto", None, "auto"),
        ("unload_first", None, "unload_first"),
        # another alias goes on meaning the version that fails: nobody unloads it for this one
        ("unload_first", "challenger", "blue_green"),
    ],
)
async def test_it_goes_back_as_the_tags_say_that_a_version_comes(ruled, swap, other, used):
    await ruled.publish(epoch=2, swap=swap)
    if other is not None:
        await ruled.promoted(2, alias=other, asked_by="operator")
    await ruled.promoted(2)
    ruled.traffic(2, 0, 20)
    await ruled.looked()
    assert (ruled.active().version, ruled.residents.swaps[-1]) == (1, (used, 1))


async def test_what_does_not_come_up_is_tried_less_and_less_often_and_once_more_at_the_end(ruled):
    await ruled.promoted(2)
    ruled.residents.failures[1] = LoadError("load_failed", "the lock is held")
    ruled.traffic(2, 0, 20)
    tries = []
    for second in range(int(WINDOW_S) + 10):
        ruled.now = float(second)
        before = len(ruled.residents.staged)
        await ruled.looked()
        tries += [second] * (len(ruled.residents.staged) - before)
    assert tries == [0, 10, 30, 70, 150, 310, 590]
    assert ruled.active().version == 2


async def test_what_comes_up_in_the_second_half_of_the_window_is_gone_back_to(ruled):
    await ruled.promoted(2)
    ruled.residents.failures[1] = LoadError("load_failed", "the lock is held")
    ruled.traffic(2, 0, 20)
    for second in range(int(WINDOW_S)):
        ruled.now = float(second)
        if second == 311:
            ruled.residents.failures.clear()
        await ruled.looked()
    assert (ruled.active().version, ruled.node.warnings) == (1, {})


async def test_what_is_refused_without_a_try_is_looked_at_every_ten_seconds(ruled, monkeypatch):
    """And lets no try wait that comes then."""
    await ruled.promoted(2)
    ruled.traffic(2, 0, 20)
    looks = []

    async def go_back(*_, **__):
        looks.append(int(ruled.now))
        if looks[-1] < 100:
            raise RolloutRefusedError("unknown_version", "version 1 may not serve")
        if looks[-1] == 110:
            raise RolloutRefusedError("table_write_failed", "no space left")
        raise RolloutRefusedError("not_staged", "version 1 does not come up")

    monkeypatch.setattr(ruled.rollout, "go_back", go_back)
    for second in range(181):
        ruled.now = float(second)
        await ruled.looked()
    assert looks == [*range(0, 111, 10), 130, 170]


async def test_a_disk_that_refuses_changes_nothing_and_is_asked_again(ruled, monkeypatch):
    await ruled.promoted(2)
    ruled.traffic(2, 0, 20)

    def full(table, moved):
        raise TableFileError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(ruled.file, "save_change", full)
        await ruled.looked()
    assert (ruled.active().version, ruled.held()) == (2, [])
    ruled.now += 11
    await ruled.looked()
    assert ruled.active().version == 1


# --- over a restart -------------------------------------------------------------------------------


async def test_a_trial_goes_on_after_a_restart_with_what_comes_then(ruled, tmp_path):
    """A gateway that is killed before the table is on disk is one that has decided nothing."""
    await ruled.promoted(2)
    ruled.traffic(2, 0, 19)
    await ruled.looked()
    again = Ruled(tmp_path, TableFile(tmp_path).load("champion"))
    again.now = 60.0
    again.traffic(2, 0, 19)
    await again.looked()
    assert again.active().version == 2
    again.traffic(2, 0, 20)
    await again.looked()
    assert again.active().version == 1


async def test_a_trial_that_ended_during_the_restart_is_over(ruled, tmp_path):
    await ruled.promoted(2)
    again = Ruled(tmp_path, TableFile(tmp_path).load("champion"))
    again.now = WINDOW_S + 1
    await again.looked()
    again.traffic(2, 0, 100)
    await again.looked()
    assert again.active().version == 2


async def test_a_clock_that_was_set_back_makes_no_trial_of_an_old_promotion(ruled, tmp_path):
    await ruled.promoted(2)
    again = Ruled(tmp_path, TableFile(tmp_path).load("champion"))
    again.now = -3600.0
    await again.looked()
    again.traffic(2, 0, 100)
    await again.looked()
    assert again.active().version == 2


# --- the loop -------------------------------------------------------------------------------------


async def test_the_rule_looks_by_itself_and_survives_a_fault_of_ours(ruled, monkeypatch):
    await ruled.promoted(2)
    real, tries = ruled.rollout.go_back, []

    def passes(seconds):
        ruled.now += seconds

    async def go_back(*args, **kwargs):
        tries.append(args)
        if len(tries) == 1:
            asyncio.get_running_loop().call_later(0.05, passes, 11)
            raise RuntimeError("odd")
        await real(*args, **kwargs)

    monkeypatch.setattr(ruled.rollout, "go_back", go_back)
    monkeypatch.setattr(automatic_rollback, "_LOOK_EVERY_S", 0.01)
    running = asyncio.ensure_future(ruled.rule.run())
    ruled.traffic(2, 0, 20)
    async with asyncio.timeout(10):
        while ruled.active().version != 1:
            await ruled.node.next_change()
    assert len(tries) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_only_so_many_holds_of_an_alias_are_kept(ruled):
    table = ruled.node.table
    for number in range(40):
        hold = contract.AliasHold(
            model="m", alias="champion", digest=f"sha256:{number:064x}", reason="", version=9
        )
        table = table.gone_back(ruled.active(), hold)
    assert len(table.holds) == 16
    assert table.holds[-1].digest == f"sha256:{39:064x}"
