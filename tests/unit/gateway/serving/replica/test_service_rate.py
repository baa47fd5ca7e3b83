"""Seconds per answer, and the Retry-After made of them."""

import pytest

from gateway.serving.replica.service_rate import ServiceRate


def paced(answers_per_interval, interval_s, intervals=40, start=100.0):
    pace = ServiceRate()
    pace.began(start)
    for number in range(1, intervals + 1):
        for _ in range(answers_per_interval):
            pace.answered(start + number * interval_s)
    return pace


@pytest.mark.parametrize("together", [1, 7, 64])
def test_answers_together_share_the_interval_before_them(together):
    assert paced(together, 0.5).seconds_per_answer == pytest.approx(0.5 / together)


def test_idle_time_does_not_count():
    pace = paced(1, 0.5)
    pace.began(10_000.0)
    pace.answered(10_000.5)
    assert pace.seconds_per_answer == pytest.approx(0.5)


def test_measurements_before_an_idle_time_weigh_less():
    pace = paced(1, 5.0)
    pace.began(1_000.0)
    assert pace.seconds_per_answer == pytest.approx(5.0), "until something else is known"
    pace.answered(1_000.005)
    assert pace.seconds_per_answer == pytest.approx(0.005, rel=0.01)


def test_short_idle_time_keeps_the_measurements():
    pace = ServiceRate()
    pace.began(0.0)
    for number in range(1, 50):
        pace.answered(number - 0.99)
        pace.began(number - 0.98)
    assert pace.seconds_per_answer == pytest.approx(0.975, rel=0.1)


def test_rate_of_an_idle_owner_decays():
    pace = paced(1, 5.0, intervals=1)
    assert pace.decayed_s(105.0) == pytest.approx(5.0)
    assert pace.decayed_s(115.0) == pytest.approx(5.0 / 1024)
    assert pace.decayed_s(1e6) == 0


def test_coarse_clock_does_not_hide_a_fast_worker():
    pace = ServiceRate()
    pace.began(0.0)
    for number in range(1, 2001):
        pace.answered(int(number * 0.3) / 1000)  # 0.3 ms each, seen in whole milliseconds
    assert pace.seconds_per_answer == pytest.approx(0.0003, rel=0.1)


def test_rate_follows_a_change_within_some_intervals():
    pace = paced(1, 0.01)
    pace.began(500.0)
    for number in range(1, 31):
        pace.answered(500.0 + number * 2.0)
    assert 1.8 < pace.seconds_per_answer <= 2.0


@pytest.mark.parametrize(
    ("in_flight", "interval_s", "expected"),
    [(4, 0.01, 1), (10, 0.5, 5), (10, 0.51, 6), (256, 10, 60)],
)
def test_retry_after_covers_the_requests_in_flight(in_flight, interval_s, expected):
    assert paced(1, interval_s).retry_after_s(in_flight) == expected


def test_retry_after_is_a_second_before_the_first_answer():
    assert ServiceRate().retry_after_s(256) == 1
