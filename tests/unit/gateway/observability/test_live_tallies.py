"""What is counted of live traffic, what is forgiven, and what is forgotten."""

from gateway.contract.references import ReplicaKey
from gateway.observability import live_tallies
from gateway.observability.live_tallies import LiveRecord
from gateway.observability.tally import Tally

KEY = ReplicaKey("m", 1, "sha256:" + "1" * 64)
OTHER = ReplicaKey("m", 2, "sha256:" + "2" * 64)


def served(record: LiveRecord, times: int, key: ReplicaKey = KEY) -> None:
    for _ in range(times):
        record.answered(key, 0.01)


def counts(tally: Tally) -> tuple[int, int, int]:
    return tally.answered, tally.faults, sum(tally.buckets)


def test_answers_and_faults_are_counted_for_each_version():
    record = LiveRecord()
    served(record, 3)
    record.failed(KEY)
    record.failed(OTHER)
    assert counts(record.total(KEY)) == (3, 1, 3)
    assert counts(record.total(OTHER)) == (0, 1, 0)
    assert (record.requests(KEY), record.requests(ReplicaKey("x", 1, "y"))) == (4, 0)


def test_the_first_worker_to_die_is_forgiven_with_all_that_was_in_it():
    record = LiveRecord()
    for pid in (7, 7, 7, 8, 8, 9):
        record.died(KEY, pid)
    assert record.total(KEY).faults == 3
    before = record.begin(KEY)
    for pid in (10, 10, 11):
        record.died(KEY, pid)
    assert record.total(KEY).since(before).faults == 1


async def test_lately_is_this_period_and_the_one_before():
    record = LiveRecord()
    served(record, 5)
    await record.turn()
    served(record, 2)
    assert record.lately(KEY).answered == 7
    await record.turn()
    served(record, 1)
    assert record.lately(KEY).answered == 3
    assert record.total(KEY).answered == 8


async def test_what_is_idle_for_two_periods_is_forgotten_but_what_is_on_trial():
    record = LiveRecord()
    record.begin(OTHER)
    served(record, 5)
    served(record, 4, OTHER)
    for _ in range(3):
        await record.turn()
    assert record.requests(KEY) == 0
    assert record.requests(OTHER) == 4
    record.end(OTHER)
    await record.turn()
    assert record.requests(OTHER) == 0


def of_version(version: int) -> ReplicaKey:
    return ReplicaKey("m", version, "d")


def test_only_so_many_versions_are_remembered_those_that_were_called_last(monkeypatch):
    monkeypatch.setattr(live_tallies, "_MOST_VERSIONS", 2)
    record = LiveRecord()
    for version in (1, 2, 1, 3):
        served(record, 1, of_version(version))
    assert [record.requests(of_version(version)) for version in (1, 2, 3)] == [2, 0, 1]


def test_5000_versions_are_remembered():
    record = LiveRecord()
    for version in range(5000):
        served(record, 1, of_version(version))
    assert all(record.requests(of_version(version)) == 1 for version in range(5000))


def test_what_is_on_trial_is_never_forgotten(monkeypatch):
    monkeypatch.setattr(live_tallies, "_MOST_VERSIONS", 100)
    record = LiveRecord()
    for _ in range(2):  # two aliases mean it
        record.begin(KEY)
    before = record.total(KEY)
    for _ in range(50):
        record.failed(KEY)
    record.end(KEY)
    for version in range(5000):
        served(record, 1, of_version(version))
    assert record.total(KEY).since(before).faults == 50
    assert len(record._entries) == 101
    record.end(KEY)
    for version in range(5000, 5200):
        served(record, 1, of_version(version))
    assert record.requests(KEY) == 0
    assert len(record._entries) == 100
