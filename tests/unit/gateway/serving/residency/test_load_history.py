"""The history of loads: sizes, load times and pauses."""

import pytest

from gateway.contract.references import ArtifactRef
from gateway.errors import LoadError, ModelLoadFailedError
from gateway.serving.residency import load_history
from gateway.serving.residency.load_history import LoadHistory, back_off_s

NO_LUCK = LoadError("load_failed", "no luck")


def key(name="a"):
    return ArtifactRef(name, 1, "sha256:" + "a" * 64)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def record(clock):
    return LoadHistory(clock)


def bytes_of(record, key):
    """The expected peak of the next load, or 0 without an earlier one."""
    return record.needed_bytes(key, lambda _: 0, 1000)


def test_nothing_is_known_of_a_new_version(record):
    assert bytes_of(record, key()) == 0
    assert record.trouble(key()) is None
    assert record.pause_s(key()) == 0
    assert record.expected_load_s(key()) > 0


def test_last_load_counts(record):
    record.loaded(key(), 4.0, 100)
    record.loaded(key(), 4.0, 200)
    assert bytes_of(record, key()) == 200


def test_expected_load_time_is_the_last_of_the_version_or_of_any(record):
    record.loaded(key("a"), 4.0, 100)
    record.loaded(key("b"), 9.0, 100)
    assert record.expected_load_s(key("a")) == 4.0
    assert record.expected_load_s(key("c")) == 9.0


def test_failures_in_a_row_back_off_until_a_load_succeeds(record, clock):
    assert [record.load_failed(key(), NO_LUCK) for _ in range(3)] == [1, 2, 4]
    clock.now += 100
    record.loaded(key(), 1.0, 100)
    assert record.load_failed(key(), NO_LUCK) == 1


def test_callers_of_a_failed_version_are_refused_during_its_pause(record, clock):
    pause_s = record.load_failed(key(), LoadError("load_failed", "no module named x"))
    with pytest.raises(ModelLoadFailedError, match="no module named x") as refused:
        record.pause_s(key())
    assert refused.value.retry_after_s == pause_s
    clock.now += pause_s
    assert record.pause_s(key()) == 0


def test_the_refusal_says_whose_failure_it_was(record, clock):
    clock.now += record.load_failed(key(), LoadError("worker_not_started", "no descriptors"))
    assert record.pause_s(key()) == 0
    record.load_failed(key(), LoadError("worker_not_started", "no descriptors"))
    with pytest.raises(ModelLoadFailedError) as refused:
        record.pause_s(key())
    assert refused.value.failure == "worker_not_started"
    record.forgive(key())
    for _ in range(3):
        record.died(key(), "killed", had_answered=False)
    with pytest.raises(ModelLoadFailedError) as refused:
        record.pause_s(key())
    assert refused.value.failure == "worker_died"


def test_few_deaths_are_forgiven(record, clock):
    for _ in range(2):
        record.died(key(), "segfault", had_answered=False)
    assert record.trouble(key()) is None
    record.died(key(), "segfault", had_answered=False)
    assert record.trouble(key()) == ("its worker died 3 times in 1 s: segfault", 1.0)
    clock.now += load_history._DEATHS_COUNT_S + 1
    record.died(key(), "segfault", had_answered=False)
    assert record.trouble(key()) is None


@pytest.mark.parametrize("apart_s", [40.0, 190.0, 1800.0])
def test_version_whose_replicas_hang_again_and_again_pauses(record, clock, apart_s):
    pauses = 0
    for _ in range(20):
        record.died(key(), "it was stuck", had_answered=True, lived_s=apart_s)
        pauses += record.trouble(key()) is not None
        clock.now += apart_s
    assert pauses == 18
    assert record.trouble(key()) is None
    assert " times in " in str(record.keeps_dying(key()))
    assert "it was stuck" in str(record.keeps_dying(key()))
    clock.now += max(load_history._DEATHS_COUNT_S, 4 * apart_s)
    assert record.keeps_dying(key()) is None


def test_callers_wait_for_the_pause_of_a_version_that_had_served(record):
    for _ in range(9):
        record.died(key(), "killed", had_answered=True)
    assert record.pause_s(key()) == load_history._SERVED_BACK_OFF_S


def test_forgiving_removes_failures_and_keeps_measurements(record):
    record.loaded(key(), 4.0, 100)
    record.load_failed(key(), NO_LUCK)
    record.forgive(key())
    assert record.pause_s(key()) == 0
    assert bytes_of(record, key()) == 100


def test_oldest_entry_is_removed_beyond_the_bound(monkeypatch):
    monkeypatch.setattr(load_history, "_REMEMBERED", 2)
    record = LoadHistory()
    for name in ("a", "b", "a", "c"):
        record.loaded(key(name), 1.0, 1)
    assert [bytes_of(record, key(name)) for name in ("a", "b", "c")] == [1, 0, 1]


def test_back_off_grows_and_is_bounded():
    waits = [back_off_s(n) for n in range(1, 40)]
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == 60


def test_next_replica_takes_over_the_faded_heat(record, clock):
    assert record.take_heat(key()) == 0
    record.keep_heat(key(), 3.0)
    record.keep_heat(key(), 1.0)  # of a second worker
    clock.now += 60
    assert record.take_heat(key()) == pytest.approx(2.0)
    assert record.take_heat(key()) == 0


def test_peak_size_of_a_model_is_known_for_its_next_version(record):
    record.loaded(key("a"), 1.0, 100, 300)
    assert bytes_of(record, key("a")._replace(version=2)) == 300
