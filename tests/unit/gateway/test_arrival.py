"""A body as it arrives: how long it may take."""

import asyncio

import pytest

from gateway.admission import Admission
from gateway.errors import BodyTimeoutError
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
