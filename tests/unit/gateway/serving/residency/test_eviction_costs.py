"""Costs of evictions are counted for ten minutes, and logged when they are many."""

from structlog.testing import capture_logs

from gateway.serving.residency.eviction_costs import (
    BYTES,
    COUNT,
    WINDOW_S,
    EvictionCost,
    EvictionCosts,
)


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def test_waits_of_the_last_ten_minutes_count_by_setting() -> None:
    clock = Clock()
    costs = EvictionCosts(clock)
    costs.add(COUNT, 2, 0.2)
    clock.now += WINDOW_S / 2
    costs.add(COUNT, 1, 0.1)
    costs.add(BYTES, 1, 3.0)
    both = [EvictionCost(COUNT, 3, 0.2), EvictionCost(BYTES, 1, 3.0)]
    assert costs.lately() == both
    clock.now += WINDOW_S / 2 + 10
    assert costs.lately() == [EvictionCost(COUNT, 1, 0.1), EvictionCost(BYTES, 1, 3.0)]
    clock.now += WINDOW_S
    assert costs.lately() == []


def test_many_waits_are_logged_once_in_a_window_with_the_setting() -> None:
    clock = Clock()
    costs = EvictionCosts(clock)
    with capture_logs() as lines:
        for _ in range(100):
            costs.add(COUNT, 1, 0.25)
            clock.now += 1
    (line,) = lines
    assert line["event"] == "eviction.cost_callers"
    assert (line["setting"], line["requests"]) == (COUNT, 10)
    assert "raise GATEWAY_MAX_RESIDENT" in line["reason"]
    with capture_logs() as lines:
        costs.add(COUNT, 20, 0.25)
        clock.now += WINDOW_S
        costs.add(COUNT, 20, 0.25)
    assert len(lines) == 1


def test_a_few_waits_are_the_price_of_a_bounded_set() -> None:
    costs = EvictionCosts(Clock())
    with capture_logs() as lines:
        costs.add(COUNT, 9, 0.25)
    assert lines == []


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    costs = EvictionCosts(clock)
    for _ in range(10_000):
        clock.now += 7
        costs.add(COUNT, 1, 0.1)
    assert len(costs._steps) <= WINDOW_S / 10 + 1
