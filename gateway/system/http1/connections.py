"""The open connections of a listener: their limits, and how they end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from gateway.system.http1.refusals import TooManyConnectionsError

MOST_REFUSED = 512
"""Surplus connections that are open for up to a second, to be refused with an answer."""


def most_open(most: int) -> int:
    """Return the most open connections if ``most`` are served."""
    return most + min(MOST_REFUSED, most)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The most connections, and the seconds of each step.

    Attributes:
        most: The most connections.
        idle_s: Time without a request.
        head_s: Time from the first byte of a request to its last header.
        read_s: Time in which a caller must read 64 KiB of its answer, or the rest of it.
    """

    most: int
    idle_s: float
    head_s: float = 10.0
    read_s: float = 30.0


class OpenConnection(Protocol):
    """A connection, as `Connections` sees it."""

    @property
    def busy(self) -> bool:
        """Whether a request arrives or is answered, or an answer is still unread."""
        ...

    @property
    def idled_s(self) -> float:
        """Seconds since it was made, or since its last answer ended."""
        ...

    def close(self) -> None:
        """Close it once its answer was read."""
        ...

    def abort(self) -> None:
        """Close it at once."""
        ...

    def end_with_answer(self) -> None:
        """Close it with its next answer."""
        ...

    def end_exchange(self) -> None:
        """Stop waiting for its head, its body or its answer."""
        ...


class Connections:
    """The connections of a listener. Event loop only.

    Attributes:
        draining: Whether each connection ends with its next answer.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.open: set[OpenConnection] = set()
        self.draining = False
        self._busy_at_drain: set[OpenConnection] = set()
        self._date = (0, b"")

    def enter(self, connection: OpenConnection) -> TooManyConnectionsError | None:
        """Add a connection; return its refusal if there are too many.

        Beyond `most_open` it is aborted without an answer.
        """
        self.open.add(connection)
        if len(self.open) <= self.limits.most:
            return None
        if len(self.open) > most_open(self.limits.most):
            connection.abort()
        return TooManyConnectionsError("too many connections", retry_after_s=1)

    def leave(self, connection: OpenConnection) -> None:
        """Remove a connection."""
        self.open.discard(connection)

    def drain(self) -> None:
        """Let every connection end with its next answer. Idempotent."""
        if self.draining:
            return
        self.draining = True
        self._busy_at_drain = {connection for connection in self.open if connection.busy}
        for connection in self._busy_at_drain:
            connection.end_with_answer()

    @property
    def owing(self) -> bool:
        """Whether a connection is open that was busy when the drain began.

        Later requests do not count: callers that retry could delay the end for ever.
        """
        return not self._busy_at_drain.isdisjoint(self.open)

    def close_idle(self, for_s: float = 0.0) -> None:
        """Close the connections that were idle for so many seconds."""
        for connection in list(self.open):
            if not connection.busy and connection.idled_s >= for_s:
                connection.close()

    @property
    def busy(self) -> bool:
        """Whether any connection is busy."""
        return any(connection.busy for connection in self.open)

    def end_exchanges(self) -> None:
        """Close idle connections, and refuse every request that is not answered yet."""
        self.close_idle()
        for connection in list(self.open):
            connection.end_exchange()

    def date_header(self) -> bytes:
        """Return the line with the date, the only header that every answer has."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, f"date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._date[1]

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in list(self.open):
            connection.abort()
