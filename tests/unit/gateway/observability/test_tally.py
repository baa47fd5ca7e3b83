"""The histogram of a tally, and the difference of two tallies."""

import pytest

from gateway.observability.tally import BUCKETS, Tally, bounds_of, bucket_of


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.00013, 0.001, 0.0123, 0.25, 1.0, 7.7, 3600.0])
def test_a_bucket_has_the_seconds_that_are_counted_in_it(seconds: float) -> None:
    low, high = bounds_of(bucket_of(seconds))
    assert low <= seconds < high
    assert high <= max(1.2501 * low, 0.0001)


def test_buckets_follow_one_another_without_a_gap() -> None:
    for bucket in range(1, BUCKETS):
        assert bounds_of(bucket)[0] == bounds_of(bucket - 1)[1]


def tally(answered: int, faults: int, *, slow: int) -> Tally:
    """Return a tally of which so many answers took 1 s, and the others 1 ms."""
    buckets = [0] * BUCKETS
    buckets[bucket_of(0.001)] += answered - slow
    buckets[bucket_of(1.0)] += slow
    return Tally(answered, faults, tuple(buckets))


def test_since_returns_the_difference() -> None:
    whole, before = tally(30, 4, slow=3), tally(10, 1, slow=1)
    assert whole.since(before) == tally(20, 3, slow=2)


def test_a_quantile_is_between_the_bounds_of_its_bucket() -> None:
    assert tally(100, 0, slow=5).quantile_s(0.95) == bounds_of(bucket_of(0.001))
    assert tally(100, 0, slow=6).quantile_s(0.95) == bounds_of(bucket_of(1.0))
