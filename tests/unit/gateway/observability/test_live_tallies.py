"""The counts of live traffic, by version and period."""

from gateway.contract.references import ArtifactRef
from gateway.observability import live_tallies
from gateway.observability.live_tallies import LiveTallies
from gateway.observability.tally import Tally

KEY = ArtifactRef("m", 1, "sha256:" + "1" * 64)
OTHER = ArtifactRef("m", 2, "sha256:" + "2" * 64)


def served(tallies: LiveTallies, times: int, key: ArtifactRef = KEY) -> None:
    for _ in range(times):
        tallies.count(key, 0.01)


def counts(tally: Tally) -> tuple[int, int, int]:
    return tally.answered, tally.faults, sum(tally.buckets)


def test_answers_and_faults_are_counted_for_each_version() -> None:
    tallies = LiveTallies()
    served(tallies, 3)
    tallies.count(KEY, None)
    tallies.count(OTHER, None)
    assert counts(tallies.total(KEY)) == (3, 1, 3)
    assert counts(tallies.total(OTHER)) == (0, 1, 0)
    assert (tallies.requests(KEY), tallies.requests(ArtifactRef("x", 1, "y"))) == (4, 0)


def test_recent_requests_are_those_of_this_period_and_the_one_before() -> None:
    tallies = LiveTallies()
    served(tallies, 5)
    tallies.begin_period()
    served(tallies, 2)
    assert tallies.recent(KEY).answered == 7
    tallies.begin_period()
    served(tallies, 1)
    assert tallies.recent(KEY).answered == 3
    tallies.begin_period()
    assert tallies.recent(KEY).answered == 1
    tallies.begin_period()
    tallies.begin_period()
    assert tallies.recent(KEY).answered == 0
    assert tallies.total(KEY).answered == 8


def of_version(version: int) -> ArtifactRef:
    return ArtifactRef("m", version, "d")


def test_the_version_that_was_used_longest_ago_is_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(live_tallies, "_MOST_VERSIONS", 2)
    tallies = LiveTallies()
    for version in (1, 2):
        served(tallies, 1, of_version(version))
    tallies.requests(of_version(1))  # as the automatic rollback reads it
    served(tallies, 1, of_version(3))
    assert [tallies.requests(of_version(version)) for version in (1, 3, 2)] == [1, 1, 0]


def test_5000_versions_are_remembered() -> None:
    tallies = LiveTallies()
    for version in range(5000):
        served(tallies, 1, of_version(version))
    assert all(tallies.requests(of_version(version)) == 1 for version in range(5000))
