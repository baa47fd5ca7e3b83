"""How many requests, and how many bytes of theirs, this gateway holds in all.

A request has a *place* from the first piece of its body until nobody holds anything of it any
more: neither its caller, who is to be answered, nor the worker that was given it. Event loop only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.errors import GatewayOverloadedError
from gateway.pace import Pace


class Place:
    """One request's share of what is in flight. Who keeps it lets it go, each once."""

    __slots__ = ("_admission", "_bytes", "_holders")

    def __init__(self, admission: Admission) -> None:
        """Store; it is kept by one, and counted by the admission that made it."""
        self._admission = admission
        self._bytes = 0
        self._holders = 1

    def add(self, count: int) -> None:
        """Count bytes that have arrived.

        Raises:
            GatewayOverloadedError: They are too many beside those of other requests.
        """
        self._admission.check_bytes(count, others=self._admission.in_flight - 1)
        self.count(count)

    def count(self, count: int) -> None:
        """Count bytes that are here anyway."""
        self._bytes += count
        self._admission.in_flight_bytes += count

    def keep(self) -> None:
        """Keep it for one more, who lets it go as well."""
        self._holders += 1

    def let_go(self) -> None:
        """Let it go; the last one frees it."""
        self._holders -= 1
        if self._holders == 0:
            self._admission.free(self._bytes)


class Admission:
    """The two bounds over all models, and what is in flight.

    Attributes:
        in_flight: Places that are taken.
        in_flight_bytes: Bytes that they have counted.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_in_flight_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the bounds. ``clock`` gives monotonic seconds."""
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._clock = clock
        self._pace = Pace()

    def check(self, length: int) -> None:
        """Refuse a body before it is read. ``length``: what it says to have, in bytes.

        Raises:
            GatewayOverloadedError: There is no place for it now.
        """
        self._check_number()
        self.check_bytes(length, others=self.in_flight)

    def enter(self, arrived: int) -> Place:
        """Take a place for a request of whose body so many bytes are here.

        Raises:
            GatewayOverloadedError: None is free.
        """
        self.check(arrived)
        if self.in_flight == 0:
            self._pace.began(self._clock())
        self.in_flight += 1
        place = Place(self)
        place.count(arrived)
        return place

    def free(self, held_bytes: int) -> None:
        """Take back a place: called by the place itself, once."""
        self.in_flight -= 1
        self.in_flight_bytes -= held_bytes
        self._pace.answered(self._clock())

    def check_bytes(self, more: int, *, others: int) -> None:
        """Refuse bytes that are too many; those of one request alone never are.

        Raises:
            GatewayOverloadedError: They are.
        """
        if others and self.in_flight_bytes + more > self._max_in_flight_bytes:
            raise self._overloaded(f"{self.in_flight_bytes} bytes of {self.in_flight} requests")

    def _check_number(self) -> None:
        if self.in_flight >= self._max_in_flight:
            raise self._overloaded(f"{self.in_flight} requests")

    def _overloaded(self, what: str) -> GatewayOverloadedError:
        return GatewayOverloadedError(
            f"{what} are in flight on this gateway",
            retry_after_s=self._pace.retry_after_s(self.in_flight),
        )
