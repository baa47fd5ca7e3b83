"""A body as it arrives: how large it may be, how long it may take, and what counts it."""

import pytest

from gateway.errors import GatewayOverloadedError
from gateway.serving.admission import Admission
from gateway.system.http1.body import MIN_PROGRESS_BYTES, Body
from gateway.system.http1.refusals import BodyTimeoutError, BodyTooLargeError

TIMEOUT_S = 10.0


def admitting(max_bytes=10_000_000):
    return Admission(max_in_flight=1, max_in_flight_bytes=max_bytes)


def arriving(admission, now=0.0):
    return Body(max_bytes=1_000_000, timeout_s=TIMEOUT_S, room=admission.buffer(), now=now)


@pytest.mark.parametrize("piece", [b"x", b"x" * 1000])
def test_trickling_body_times_out(piece):
    body = arriving(admitting())
    for number in range(60):
        body.add(piece, 0.1 * number, last=False)
    assert body.give_up_at == TIMEOUT_S
    assert isinstance(body.too_late(), BodyTimeoutError)


@pytest.mark.parametrize("size", [MIN_PROGRESS_BYTES, MIN_PROGRESS_BYTES // 2 + 1])
def test_steady_body_does_not_time_out(size):
    body = arriving(admitting())
    for number in range(1, 11):
        assert body.give_up_at > number
        body.add(b"x" * size, float(number), last=False)
    assert body.give_up_at == 10 + TIMEOUT_S
    assert body.finish() == b"x" * 10 * size


def test_a_body_counts_until_it_is_whole_or_dropped():
    admission = admitting()
    whole, dropped = arriving(admission), arriving(admission)
    whole.add(b"x" * 100, 0, last=False)
    dropped.add(b"x" * 1000, 0, last=False)
    whole.add(b"y" * 100, 0, last=True)
    assert (admission.buffered_bytes, admission.in_flight_bytes) == (1100, 1100)
    assert whole.finish() == b"x" * 100 + b"y" * 100
    assert admission.buffered_bytes == 1000
    for _ in range(2):
        dropped.drop()
        assert (admission.buffered_bytes, admission.in_flight_bytes, admission.in_flight) == (
            0,
            0,
            0,
        )


def test_a_body_that_is_too_large_is_refused():
    admission = admitting()
    body = arriving(admission)
    body.add(b"x" * 1_000_000, 0, last=False)
    with pytest.raises(BodyTooLargeError):
        body.add(b"x", 0, last=True)
    body.drop()
    assert admission.buffered_bytes == 0


def test_a_body_beside_too_many_others_is_refused():
    admission = admitting(100_000)
    other, body = admission.buffer(50_000), arriving(admission)
    body.add(b"x" * 20_000, 0, last=False)
    with pytest.raises(GatewayOverloadedError):
        body.add(b"x" * 10_000, 0, last=False)
    body.drop()
    other.release()
    assert admission.buffered_bytes == 0
