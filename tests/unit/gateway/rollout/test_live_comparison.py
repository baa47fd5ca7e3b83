"""When a version counts as worse than the one before it: the table of the decision."""

import pytest

from gateway.observability.tally import BUCKETS, Tally, bucket_of
from gateway.rollout.live_comparison import more_faults, slower

NOTHING = Tally()


def tally(
    answered: int = 0, faults: int = 0, *, s: float = 0.001, slow: int = 0, slow_s: float = 1
):
    """So many requests; of those answered, ``slow`` took ``slow_s``, and the others ``s``."""
    buckets = [0] * BUCKETS
    buckets[bucket_of(s)] += answered - slow
    buckets[bucket_of(slow_s)] += slow
    return Tally(answered, faults, tuple(buckets))


@pytest.mark.parametrize(
    ("why", "old", "new", "says"),
    [
        ("no traffic", tally(100), NOTHING, None),
        ("too few to judge, whatever they say", tally(100), tally(0, 19), None),
        ("as good as before", tally(100), tally(100), None),
        ("one in five fails", tally(100), tally(80, 20), "20 of 100"),
        ("all fail", tally(100), tally(0, 20), "20 of 20"),
        ("within the margin", tally(100), tally(95, 5), None),
        ("just beyond the margin", tally(100), tally(94, 6), "6 of 100"),
        ("the old one failed as much", tally(80, 20), tally(80, 20), None),
        ("the old one failed more", tally(50, 50), tally(80, 20), None),
        ("no more than chance may do", tally(90, 10), tally(80, 20), None),
        ("more than chance does to few", tally(80, 20), tally(60, 40), "40 of 100"),
        ("more than chance does", tally(900, 100), tally(800, 200), "200 of 1000"),
        ("too little is known of the old one", tally(0, 19), tally(80, 20), "too few to compare"),
        ("nothing is known of the old one", NOTHING, tally(80, 20), "20 of 100"),
        ("slow, and nothing is known of the old one", NOTHING, tally(100, s=9), None),
        ("slower, by ratio and floor", tally(100, s=0.01), tally(100, s=0.4), "before it: 0.0"),
        ("many times slower, and quick all the same", tally(100), tally(100, s=0.03), None),
        ("slower by more than the floor, by no great part", tally(100, s=1), tally(100, s=2), None),
        ("a few slow ones", tally(100), tally(100, slow=4), None),
        ("one in ten is slow", tally(100), tally(100, slow=10), "before it"),
        ("slow as before", tally(100, slow=10), tally(100, slow=10), None),
        ("too few were answered to compare", tally(100), tally(19, 1, s=9), None),
        ("just enough were answered to compare", tally(100), tally(20, s=9), "before it"),
        ("slower by less than the floor", tally(100, s=0.01), tally(100, s=0.045), None),
        ("faults go first", tally(100), tally(50, 50, s=9), "failed"),
    ],
)  # fmt: skip
def test_why_worse(why: str, old: Tally, new: Tally, says: str | None) -> None:
    found = more_faults(old, new, 20) or slower(old, new, 20)
    assert found is None if says is None else found is not None and says in found, (why, found)
