"""Every open connection of a listener: how many there may be, and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.system.http1.head import Header
from gateway.system.http1.refusals import TooManyConnectionsError

MOST_TURNED_AWAY = 512
"""Connections beyond the most that are open for up to a second, to be told to come later."""


def most_open(most: int) -> int:
    """Return how many connections are open at most where ``most`` are served."""
    return most + min(MOST_TURNED_AWAY, most)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The most connections; and seconds: to idle, to send a head, to read of an answer."""

    most: int
    idle_s: float
    head_s: float
    read_s: float


class OpenConnection(Protocol):
    """A connection, as all of them together are handled."""

    @property
    def busy(self) -> bool:
        """Whether a request is arriving or being answered, or an answer is still to be read."""
        ...

    @property
    def idled_s(self) -> float:
        """Seconds since it was made, or since its last answer ended."""
        ...

    def close(self) -> None:
        """Close it once what was written has been read."""
        ...

    def abort(self) -> None:
        """Close it at once."""
        ...

    def end_with_answer(self) -> None:
        """Close it with its next answer."""
        ...

    def refuse_head(self) -> None:
        """Refuse a request whose head has not come whole."""
        ...

    def end_exchange(self) -> None:
        """Wait no more for its body, or for its answer."""
        ...


class Connections:
    """The connections of a listener. Event loop only.

    Attributes:
        draining: Whether each connection ends with its next answer.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        """Store."""
        self.limits = limits
        self.open: set[OpenConnection] = set()
        self.draining = False
        self._owed: set[OpenConnection] = set()
        self._common: tuple[list[Header], bytes] = ([], b"")

    def enter(self, connection: OpenConnection) -> TooManyConnectionsError | None:
        """Count one more; return its refusal if there are too many.

        Each is told so, unless that alone would be too many: then it is aborted.
        """
        self.open.add(connection)
        if len(self.open) <= self.limits.most:
            return None
        if len(self.open) > most_open(self.limits.most):
            connection.abort()
        return TooManyConnectionsError("too many connections", retry_after_s=1)

    def leave(self, connection: OpenConnection) -> None:
        """Count one less."""
        self.open.discard(connection)

    def drain(self) -> None:
        """Let every connection end with its next answer. Idempotent."""
        if self.draining:
            return
        self.draining = True
        self._owed = {connection for connection in self.open if connection.busy}
        for connection in self._owed:
            connection.end_with_answer()

    @property
    def owing(self) -> bool:
        """Whether a connection is open on which something was under way as the drain began.

        Later requests are refused at once; if those counted, callers who try again and again could
        hold up the end.
        """
        return not self._owed.isdisjoint(self.open)

    def close_idle(self, for_s: float = 0.0) -> None:
        """Close the connections on which nothing has been under way for this many seconds."""
        for connection in list(self.open):
            if not connection.busy and connection.idled_s >= for_s:
                connection.close()

    @property
    def busy(self) -> bool:
        """Whether anything is under way on any of them."""
        return any(connection.busy for connection in self.open)

    def give_up(self) -> None:
        """Close all but those that are being answered; refuse requests that have not come whole."""
        self.close_idle()
        for connection in list(self.open):
            connection.refuse_head()

    def end_exchanges(self) -> None:
        """Wait for no body and no answer any more: each caller is told so."""
        for connection in list(self.open):
            connection.end_exchange()

    def common_headers(self, headers: list[Header]) -> bytes:
        """Return as lines what the server gives every answer: another list for every second."""
        if self._common[0] is not headers:
            self._common = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._common[1]

    def abort(self) -> None:
        """End all of them at once, whatever is under way."""
        for connection in list(self.open):
            connection.abort()
