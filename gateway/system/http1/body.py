"""A request's body as it arrives: within its limits of size and time, and counted by its room."""

from __future__ import annotations

from typing import Protocol

from gateway.system.http1.refusals import BodyTimeoutError, BodyTooLargeError

MIN_PROGRESS_BYTES = 64 * 1024
"""What has to come of a body in the time that it has, or its rest: a byte now and then would hold
those before it for ever."""


class Room(Protocol):
    """Counts the bytes of bodies that arrive."""

    def add(self, count: int, /) -> None:
        """Count bytes that have arrived; raise an error to refuse the request."""
        ...

    def release(self) -> None:
        """Count them no more. Idempotent."""
        ...


class Unbounded:
    """A room for a listener with so few connections that they are the bound."""

    def add(self, _count: int, /) -> None:
        """Count nothing."""

    def release(self) -> None:
        """Count nothing."""


class Body:
    """One body.

    Attributes:
        give_up_at: When the time is over, in the event loop's time.
    """

    __slots__ = ("_content", "_max_bytes", "_rewarded", "_room", "_timeout_s", "give_up_at")

    def __init__(self, *, max_bytes: int, timeout_s: float, room: Room, now: float) -> None:
        """Store. ``timeout_s``: seconds for the next 64 KiB, or the rest."""
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._room = room
        self._content = bytearray()
        self._rewarded = 0
        self.give_up_at = now + timeout_s

    def add(self, piece: bytes, now: float, *, last: bool) -> None:
        """Keep a piece. The last one is not counted: a whole body no longer arrives.

        Raises:
            BodyTooLargeError: The body is larger than it may be.
            Exception: The room refuses it.
        """
        check_size(len(self._content) + len(piece), self._max_bytes)
        if not last:
            self._room.add(len(piece))
        self._content += piece
        if len(self._content) - self._rewarded >= MIN_PROGRESS_BYTES:
            self._rewarded = len(self._content)
            self.give_up_at = now + self._timeout_s

    def finish(self) -> bytes:
        """Return all of it, and count it no more."""
        self._room.release()
        content, self._content = self._content, bytearray()
        return bytes(content)

    def drop(self) -> None:
        """Keep and count nothing of it. Idempotent."""
        self._room.release()
        self._content = bytearray()

    def too_late(self) -> Exception:
        """Return the refusal of a body whose time is over."""
        return BodyTimeoutError(
            f"neither the rest of the body nor {MIN_PROGRESS_BYTES} bytes of it came within "
            f"{self._timeout_s:g} s"
        )


def check_size(size: int, max_bytes: int) -> None:
    """Refuse a body of so many bytes if they are too many.

    Raises:
        BodyTooLargeError: They are.
    """
    if size > max_bytes:
        raise BodyTooLargeError(f"the body must have at most {max_bytes} bytes")
