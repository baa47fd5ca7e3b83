"""Bounds the requests, and their bytes, that this gateway holds over all models.

A request holds a *slot* from the last byte of its body until it is answered and its worker has
finished with it. Bytes outside a slot are *buffered*: a body that still arrives, and a large reply
until its caller has read it. So a slow caller occupies no slot, and buffered bytes may fill only a
share of the memory. Event loop only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.errors import GatewayOverloadedError
from gateway.serving.replica import ServiceRate

_BUFFER_SHARE, _SMALL_BUFFER_SHARE = 0.5, 0.75
_SMALL_BYTES = 64 * 1024
"""Only small bodies may use the last quarter. A few large bodies could fill half of the bytes
without ever completing; it takes thousands of small ones to fill the quarter beyond."""


class Slot:
    """One in-flight request. It is released once by each of its holders."""

    __slots__ = ("_admission", "_bytes", "_holders")

    def __init__(self, admission: Admission, body_bytes: int) -> None:
        self._admission = admission
        self._bytes = body_bytes
        self._holders = 1

    def share(self) -> None:
        """Add a holder."""
        self._holders += 1

    def release(self) -> None:
        """Remove a holder; the last one frees the slot."""
        self._holders -= 1
        if self._holders == 0:
            self._admission.free(self._bytes)


class BufferedBytes:
    """Bytes of one request that are in memory outside a slot."""

    __slots__ = ("_admission", "_bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = 0

    def add(self, count: int) -> None:
        """Count bytes of an arriving body.

        Raises:
            GatewayOverloadedError: Other requests hold too many bytes.
        """
        self._admission.check_bytes(count, own=self._bytes)
        self._admission.check_buffered(count, own=self._bytes)
        self.count(count)

    def count(self, count: int) -> None:
        """Count bytes that are already in memory; never refuses."""
        self._bytes += count
        self._admission.buffered_bytes += count
        self._admission.in_flight_bytes += count

    def release(self) -> None:
        """Stop counting all of them. Idempotent."""
        self._admission.buffered_bytes -= self._bytes
        self._admission.in_flight_bytes -= self._bytes
        self._bytes = 0


class Admission:
    """The two bounds over all models, and what is in flight.

    Attributes:
        in_flight: Taken slots.
        in_flight_bytes: Bytes of slots, and buffered bytes.
        buffered_bytes: Buffered bytes alone.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_in_flight_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.buffered_bytes = 0
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._clock = clock
        self._rate = ServiceRate()

    def expect(self, length: int) -> None:
        """Refuse a body by its announced length, before it is read.

        Raises:
            GatewayOverloadedError: No slot is free, or too many bytes are held.
        """
        self.check(length)
        self.check_buffered(length)

    def check(self, length: int) -> None:
        """Refuse a complete body of so many bytes; raises as `expect`."""
        if self.in_flight >= self._max_in_flight:
            raise self._overloaded(f"{self.in_flight} requests")
        self.check_bytes(length)

    def enter(self, body_bytes: int) -> Slot:
        """Take a slot for a request whose body is complete; raises as `expect`."""
        self.check(body_bytes)
        if self.in_flight == 0:
            self._rate.began(self._clock())
        self.in_flight += 1
        self.in_flight_bytes += body_bytes
        return Slot(self, body_bytes)

    def free(self, body_bytes: int) -> None:
        """Take back a slot. Only `Slot` calls this."""
        self.in_flight -= 1
        self.in_flight_bytes -= body_bytes
        self._rate.answered(self._clock())

    def buffer(self, count: int = 0) -> BufferedBytes:
        """Count bytes that are already in memory, outside a slot."""
        buffered = BufferedBytes(self)
        buffered.count(count)
        return buffered

    def check_bytes(self, more: int, *, own: int = 0) -> None:
        """Refuse ``more`` bytes beyond the bound. A request alone is never refused.

        ``own``: bytes of the same request that are counted already.
        """
        held = self.in_flight_bytes
        if held > own and held + more > self._max_in_flight_bytes:
            raise self._overloaded(f"{held} bytes of requests and answers")

    def check_buffered(self, more: int, *, own: int = 0) -> None:
        """Refuse arriving bytes beyond their share; arguments as of `check_bytes`.

        Replies that are being read count too, but are never refused: they are in memory.
        """
        buffered = self.buffered_bytes
        share = _SMALL_BUFFER_SHARE if own + more <= _SMALL_BYTES else _BUFFER_SHARE
        if buffered > own and buffered + more > share * self._max_in_flight_bytes:
            raise self._overloaded(f"{buffered} bytes of arriving bodies, and answers being read,")

    def _overloaded(self, what: str) -> GatewayOverloadedError:
        return GatewayOverloadedError(
            f"{what} are in flight on this gateway",
            retry_after_s=self._rate.retry_after_s(self.in_flight),
        )
