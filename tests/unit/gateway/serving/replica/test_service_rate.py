"""Seconds per answer, and what a refused caller is told of them."""

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
def test_answers_that_come_together_share_the_time_before_them(together):
    assert paced(together, 0.5).seconds_per_answer == pytest.approx(0.5 / together)


def test_idle_time_is_nobodys():
    pace = paced(1, 0.5)
    pace.began(10_000.0)
    pace.answered(10_000.5)
    assert pace.seconds_per_answer == pytest.approx(0.5)


def test_what_was_measured_before_an_idle_time_weighs_less_than_what_comes_after_it():
    pace = paced(1, 5.0)
    pace.began(1_000.0)
    assert pace.seconds_per_answer == pytest.approx(5.0), "until something else is known"
    pace.answered(1_000.005)
    assert pace.seconds_per_answer == pytest.approx(0.005, rel=0.01)


def test_an_idle_time_that_is_short_forgets_nothing():
    pace = ServiceRate()
    pace.began(0.0)
    for number in range(1, 50):
        pace.answered(number - 0.99)
        pace.began(number - 0.98)
    assert pace.seconds_per_answer == pytest.approx(0.975, rel=0.1)


def test_what_has_no_work_is_worth_trying_after_a_while():
    pace = paced(1, 5.0, intervals=1)
    assert pace.decayed_s(105.0) == pytest.approx(5.0)
    assert pace.decayed_s(115.0) == pytest.approx(5.0 / 1024)
    assert pace.decayed_s(1e6) == 0


def test_a_coarse_clock_does_not_hide_a_quick_worker():
    pace = ServiceRate()
    pace.began(0.0)
    for number in range(1, 2001):
        pace.answered(int(number * 0.3) / 1000)  # 0.3 ms each, seen in whole milliseconds
    assert pace.seconds_per_answer == pytest.approx(0.0003, rel=0.1)


def test_it_follows_a_change_within_some_intervals():
    pace = paced(1, 0.01)
    pace.began(500.0)
    for number in range(1, 31):
        pace.answered(500.0 + number * 2.0)
    assert 1.8 < pace.seconds_per_answer <= 2.0


@pytest.mark.parametrize(
    ("in_flight", "interval_s", "expected"),
    [(4, 0.01, 1), (10, 0.5, 5), (10, 0.51, 6), (256, 10, 60)],
)
def test_a_refused_caller_is_told_when_what_is_in_flight_is_done(in_flight, interval_s, expected):
    assert paced(1, interval_s).retry_after_s(in_flight) == expected


def test_before_the_first_answer_it_is_one_second():
    assert ServiceRate().retry_after_s(256) == 1
