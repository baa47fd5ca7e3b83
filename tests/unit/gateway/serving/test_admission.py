"""Slots, and buffered bytes outside them."""

import pytest

from gateway.errors import GatewayOverloadedError
from gateway.serving.admission import Admission

KIB_64 = 64 * 1024
MIB = 1024 * 1024


@pytest.fixture
def admission():
    return Admission(max_in_flight=3, max_in_flight_bytes=100, clock=lambda: 0.0)


def test_request_alone_is_never_too_big(admission):
    held = admission.buffer(60)
    held.add(1000)
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 1060)
    with pytest.raises(GatewayOverloadedError):
        admission.enter(0)
    held.release()
    admission.enter(500).release()
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_arriving_bytes_are_bounded_beside_those_of_others(admission):
    first, second = admission.enter(40), admission.buffer()
    second.add(40)
    second.add(20)
    for refused in (lambda: second.add(1), lambda: admission.enter(1), lambda: admission.check(1)):
        with pytest.raises(GatewayOverloadedError):
            refused()
    assert (admission.in_flight, admission.in_flight_bytes) == (1, 100), "a refusal costs nothing"
    first.release()
    second.add(900)
    second.release()
    second.release()
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


@pytest.mark.parametrize(("size", "share"), [(MIB, 5), (KIB_64, 120)])
def test_buffered_bytes_leave_room_for_slots(size, share):
    """Small bodies may buffer more, since it takes many of them."""
    admission = Admission(max_in_flight=1000, max_in_flight_bytes=10 * MIB)
    slow = [admission.buffer() for _ in range(share)]
    for one in slow:
        one.add(size)
    with pytest.raises(GatewayOverloadedError):
        admission.buffer().add(size)
    held = share * size
    assert admission.buffered_bytes == admission.in_flight_bytes == held
    places = [admission.enter(KIB_64) for _ in range((10 * MIB - held) // KIB_64)]
    with pytest.raises(GatewayOverloadedError):
        admission.enter(KIB_64)
    for slot in places:
        slot.release()
    small = admission.buffer()
    if size > KIB_64:
        small.add(1000)
        with pytest.raises(GatewayOverloadedError):
            small.add(KIB_64)
        with pytest.raises(GatewayOverloadedError):
            admission.expect(KIB_64 + 1)
    for one in (*slow, small):
        one.release()
        one.release()
    assert (admission.buffered_bytes, admission.in_flight_bytes) == (0, 0)


def test_unread_answers_count_as_buffered_bytes():
    admission = Admission(max_in_flight=10, max_in_flight_bytes=10 * MIB)
    answer = admission.buffer(5 * MIB)
    body = admission.buffer()
    with pytest.raises(GatewayOverloadedError):
        body.add(MIB)
    admission.buffer(MIB).release()  # it is here, and never refused
    answer.release()
    body.add(9 * MIB)  # alone it is never too big
    body.release()
    assert (admission.buffered_bytes, admission.in_flight_bytes) == (0, 0)


def test_number_of_slots_is_bounded(admission):
    places = [admission.enter(0) for _ in range(3)]
    with pytest.raises(GatewayOverloadedError):
        admission.enter(0)
    with pytest.raises(GatewayOverloadedError):
        admission.check(0)
    places[0].release()
    admission.enter(0)


def test_slot_is_free_after_its_last_release(admission):
    slot = admission.enter(10)
    slot.share()
    slot.release()
    assert (admission.in_flight, admission.in_flight_bytes) == (1, 10)
    slot.release()
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_refusal_says_when_the_requests_in_flight_will_be_done():
    now = [0.0]
    admission = Admission(max_in_flight=4, max_in_flight_bytes=1, clock=lambda: now[0])
    for _ in range(20):
        slot = admission.enter(0)
        now[0] += 2.5
        slot.release()
    for _ in range(4):
        admission.enter(0)
    with pytest.raises(GatewayOverloadedError) as refused:
        admission.enter(0)
    assert refused.value.retry_after_s == 10
