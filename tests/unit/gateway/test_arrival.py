"""A body as it arrives: how long it may take."""

import asyncio

import pytest

from gateway.admission import Admission
from gateway.errors import BodyTimeoutError, GatewayOverloadedError
from gateway.http.arrival import Arrival, BodyLimits

PATIENCE_S = 20.0
KIB_64 = 64 * 1024


def arriving(admission, *, timeout_s, piece, every_s, pieces):
    """A body of which one more piece comes after so many seconds, again and again."""
    left = pieces

    async def receive():
        nonlocal left
        await asyncio.sleep(every_s)
        left -= 1
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    return Arrival(BodyLimits(10_000_000, timeout_s), admission, receive)


@pytest.mark.parametrize("piece", [b"x", b"x" * 1000, b""])
async def test_a_body_that_dribbles_is_not_waited_for(piece):
    admission = Admission(max_in_flight=1, max_in_flight_bytes=10_000_000)
    arrival = arriving(admission, timeout_s=0.2, piece=piece, every_s=0.02, pieces=10_000)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(BodyTimeoutError):
            await arrival.read(b"")
    arrival.end()
    assert admission.in_flight == 0


@pytest.mark.parametrize("piece", [b"x" * KIB_64, b"x" * (KIB_64 // 2 + 1)])
async def test_a_body_that_comes_steadily_is_waited_for(piece):
    admission = Admission(max_in_flight=1, max_in_flight_bytes=10_000_000)
    arrival = arriving(admission, timeout_s=1.0, piece=piece, every_s=0.25, pieces=8)
    body, _ = await arrival.read(b"")
    assert body == 8 * piece


async def test_bytes_move_from_what_arrives_to_the_place_and_back_and_count_once():
    admission = Admission(max_in_flight=1, max_in_flight_bytes=10_000_000)
    counted = []
    pieces = [b"x" * 100, b"y" * 200]

    async def receive():
        counted.append((admission.in_flight, admission.held_bytes, admission.in_flight_bytes))
        return {"type": "http.request", "body": pieces.pop(0), "more_body": len(pieces) > 0}

    arrival = Arrival(BodyLimits(10_000_000, PATIENCE_S), admission, receive)
    await arrival.read(b"")
    counted.append((admission.in_flight, admission.held_bytes, admission.in_flight_bytes))
    for let_go in (arrival.answered, arrival.answered, arrival.end, arrival.end):
        let_go()
        counted.append((admission.in_flight, admission.held_bytes, admission.in_flight_bytes))
    assert counted == [
        (0, 0, 0),
        (0, 100, 100),
        (1, 0, 300),
        (0, 300, 300),
        (0, 300, 300),
        (0, 0, 0),
        (0, 0, 0),
    ]


async def test_a_body_that_finds_no_place_counts_until_its_caller_has_been_told():
    admission = Admission(max_in_flight=1, max_in_flight_bytes=10_000_000)
    other = admission.enter(10)
    arrival = arriving(admission, timeout_s=PATIENCE_S, piece=b"x" * 100, every_s=0, pieces=2)
    with pytest.raises(GatewayOverloadedError):
        await arrival.read(b"")
    assert (admission.held_bytes, admission.in_flight_bytes) == (200, 210)
    arrival.end()
    assert (admission.held_bytes, admission.in_flight_bytes) == (0, 10)
    other.let_go()


async def test_a_body_that_is_refused_as_it_arrives_counts_no_more():
    """Or of many that arrive side by side each would be refused because of the one before."""
    admission = Admission(max_in_flight=1, max_in_flight_bytes=1_000_000)
    other = admission.hold(300_000)
    arrival = arriving(admission, timeout_s=PATIENCE_S, piece=b"x" * KIB_64, every_s=0, pieces=99)
    with pytest.raises(GatewayOverloadedError):
        await arrival.read(b"")
    assert admission.held_bytes == admission.in_flight_bytes == 300_000
    arrival.end()
    other.let_go()
    assert admission.held_bytes == admission.in_flight_bytes == 0
