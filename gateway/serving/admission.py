"""How many requests, and how many bytes of theirs, this gateway holds in all.

A request has a *place* from the last byte of its body until it has been answered and the worker
that was given it has let go, too. Bytes count for longer: those of a body from the first one that
arrives, those of a large answer until it has been read. So a caller who is slow to send or to read
takes no place of others, and memory is bounded all the same: what arrives may be a share of the
bytes only, the rest is there for places. Event loop only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.errors import GatewayOverloadedError
from gateway.serving.replica import Pace

_ARRIVING_SHARE, _SMALL_ARRIVING_SHARE = 0.5, 0.75
_SMALL_BYTES = 64 * 1024
"""Few bodies fill half of the bytes with what they do not finish: it takes thousands of small ones
to fill the quarter beyond, which lets small requests that come in two pieces pass beside them."""


class Place:
    """One request's share of what is in flight. Who keeps it lets it go, each once."""

    __slots__ = ("_admission", "_bytes", "_holders")

    def __init__(self, admission: Admission, held_bytes: int) -> None:
        """Store; it is kept by one, and counted by the admission that made it."""
        self._admission = admission
        self._bytes = held_bytes
        self._holders = 1

    def keep(self) -> None:
        """Keep it for one more, who lets it go as well."""
        self._holders += 1

    def let_go(self) -> None:
        """Let it go; the last one frees it."""
        self._holders -= 1
        if self._holders == 0:
            self._admission.free(self._bytes)


class Held:
    """Bytes of one request that has no place: those that have arrived, or are still to be read."""

    __slots__ = ("_admission", "_bytes")

    def __init__(self, admission: Admission) -> None:
        """Store; nothing is counted yet."""
        self._admission = admission
        self._bytes = 0

    def add(self, count: int) -> None:
        """Count bytes that have arrived.

        Raises:
            GatewayOverloadedError: They are too many beside those of other requests.
        """
        self._admission.check_bytes(count, own=self._bytes)
        self._admission.check_held(count, own=self._bytes)
        self.count(count)

    def count(self, count: int) -> None:
        """Count bytes that are here anyway."""
        self._bytes += count
        self._admission.held_bytes += count
        self._admission.in_flight_bytes += count

    def let_go(self) -> None:
        """Count none of them any more."""
        self._admission.held_bytes -= self._bytes
        self._admission.in_flight_bytes -= self._bytes
        self._bytes = 0


class Admission:
    """The two bounds over all models, and what is in flight.

    Attributes:
        in_flight: Places that are taken.
        in_flight_bytes: Bytes of requests with a place, and of those that are held without one.
        held_bytes: Those that are held without one.
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
        self.held_bytes = 0
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._clock = clock
        self._pace = Pace()

    def expect(self, length: int) -> None:
        """Refuse a body before it is read. ``length``: what it says to have, in bytes.

        Raises:
            GatewayOverloadedError: There is no place for it now, or it could not arrive.
        """
        self.check(length)
        self.check_held(length)

    def check(self, length: int) -> None:
        """Refuse a body of so many bytes.

        Raises:
            GatewayOverloadedError: There is no place for it now.
        """
        if self.in_flight >= self._max_in_flight:
            raise self._overloaded(f"{self.in_flight} requests")
        self.check_bytes(length)

    def enter(self, arrived: int) -> Place:
        """Take a place for a request whose body is here, and has so many bytes.

        Raises:
            GatewayOverloadedError: None is free.
        """
        self.check(arrived)
        if self.in_flight == 0:
            self._pace.began(self._clock())
        self.in_flight += 1
        self.in_flight_bytes += arrived
        return Place(self, arrived)

    def free(self, held_bytes: int) -> None:
        """Take back a place: called by the place itself, once."""
        self.in_flight -= 1
        self.in_flight_bytes -= held_bytes
        self._pace.answered(self._clock())

    def hold(self, count: int = 0) -> Held:
        """Count so many bytes, which are here anyway, without a place."""
        held = Held(self)
        held.count(count)
        return held

    def check_bytes(self, more: int, *, own: int = 0) -> None:
        """Refuse bytes that are too many; those of one request alone never are.

        ``own``: those of the same request that are counted already.

        Raises:
            GatewayOverloadedError: They are.
        """
        held = self.in_flight_bytes
        if held > own and held + more > self._max_in_flight_bytes:
            raise self._overloaded(f"{held} bytes of requests and answers")

    def check_held(self, more: int, *, own: int = 0) -> None:
        """Refuse bytes that arrive, too many beside others that no place has; ``own`` as above.

        Answers that are being read count with them, and are refused to nobody: they are here.

        Raises:
            GatewayOverloadedError: They are.
        """
        held = self.held_bytes
        share = _SMALL_ARRIVING_SHARE if own + more <= _SMALL_BYTES else _ARRIVING_SHARE
        if held > own and held + more > share * self._max_in_flight_bytes:
            raise self._overloaded(f"{held} bytes of arriving bodies, and answers being read,")

    def _overloaded(self, what: str) -> GatewayOverloadedError:
        return GatewayOverloadedError(
            f"{what} are in flight on this gateway",
            retry_after_s=self._pace.retry_after_s(self.in_flight),
        )
