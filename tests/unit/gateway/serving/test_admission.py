"""Places of this gateway, let go by everybody who keeps one; and bytes held without one."""

import pytest

from gateway.errors import GatewayOverloadedError
from gateway.serving.admission import Admission

KIB_64 = 64 * 1024
MIB = 1024 * 1024


@pytest.fixture
def admission():
    return Admission(max_in_flight=3, max_in_flight_bytes=100, clock=lambda: 0.0)


def test_one_request_alone_is_never_too_big(admission):
    held = admission.hold(60)
    held.add(1000)
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 1060)
    with pytest.raises(GatewayOverloadedError):
        admission.enter(0)
    held.let_go()
    admission.enter(500).let_go()
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_bytes_beside_those_of_others_are_bounded_as_they_arrive(admission):
    first, second = admission.enter(40), admission.hold()
    second.add(40)
    second.add(20)
    for refused in (lambda: second.add(1), lambda: admission.enter(1), lambda: admission.check(1)):
        with pytest.raises(GatewayOverloadedError):
            refused()
    assert (admission.in_flight, admission.in_flight_bytes) == (1, 100), "a refusal costs nothing"
    first.let_go()
    second.add(900)
    second.let_go()
    second.let_go()
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


@pytest.mark.parametrize(("size", "share"), [(MIB, 5), (KIB_64, 120)])
def test_what_arrives_leaves_bytes_for_places(size, share):
    """Small bodies may hold more, since it takes many of them."""
    admission = Admission(max_in_flight=1000, max_in_flight_bytes=10 * MIB)
    slow = [admission.hold() for _ in range(share)]
    for one in slow:
        one.add(size)
    with pytest.raises(GatewayOverloadedError):
        admission.hold().add(size)
    held = share * size
    assert admission.held_bytes == admission.in_flight_bytes == held
    places = [admission.enter(KIB_64) for _ in range((10 * MIB - held) // KIB_64)]
    with pytest.raises(GatewayOverloadedError):
        admission.enter(KIB_64)
    for place in places:
        place.let_go()
    small = admission.hold()
    if size > KIB_64:
        small.add(1000)
        with pytest.raises(GatewayOverloadedError):
            small.add(KIB_64)
        with pytest.raises(GatewayOverloadedError):
            admission.expect(KIB_64 + 1)
    for one in (*slow, small):
        one.let_go()
        one.let_go()
    assert (admission.held_bytes, admission.in_flight_bytes) == (0, 0)


def test_answers_that_are_read_slowly_are_counted_with_what_arrives():
    admission = Admission(max_in_flight=10, max_in_flight_bytes=10 * MIB)
    answer = admission.hold(5 * MIB)
    body = admission.hold()
    with pytest.raises(GatewayOverloadedError):
        body.add(MIB)
    admission.hold(MIB).let_go()  # it is here, and never refused
    answer.let_go()
    body.add(9 * MIB)  # alone it is never too big
    body.let_go()
    assert (admission.held_bytes, admission.in_flight_bytes) == (0, 0)


def test_the_number_is_bounded(admission):
    places = [admission.enter(0) for _ in range(3)]
    with pytest.raises(GatewayOverloadedError):
        admission.enter(0)
    with pytest.raises(GatewayOverloadedError):
        admission.check(0)
    places[0].let_go()
    admission.enter(0)


def test_a_place_is_free_when_its_last_keeper_lets_go(admission):
    place = admission.enter(10)
    place.keep()
    place.let_go()
    assert (admission.in_flight, admission.in_flight_bytes) == (1, 10)
    place.let_go()
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_a_refusal_says_how_long_what_is_in_flight_will_take():
    now = [0.0]
    admission = Admission(max_in_flight=4, max_in_flight_bytes=1, clock=lambda: now[0])
    for _ in range(20):
        place = admission.enter(0)
        now[0] += 2.5
        place.let_go()
    for _ in range(4):
        admission.enter(0)
    with pytest.raises(GatewayOverloadedError) as refused:
        admission.enter(0)
    assert refused.value.retry_after_s == 10
