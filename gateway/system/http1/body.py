"""A request's body while it arrives: within limits of size and time, and counted by a room."""

from __future__ import annotations

from typing import Protocol

from gateway.system.http1.refusals import BodyTimeoutError, BodyTooLargeError

MIN_PROGRESS_BYTES = 64 * 1024
"""Minimum progress per body timeout, unless the body ends. Stops clients that trickle bytes."""


class Room(Protocol):
    """Counts the bytes of arriving bodies."""

    def add(self, count: int, /) -> None:
        """Count bytes, or raise an error to refuse the request."""
        ...

    def release(self) -> None:
        """Stop counting them. Idempotent."""
        ...


class UnboundedRoom:
    """A room without a bound, for a listener with few connections."""

    def add(self, _count: int, /) -> None:
        """Count nothing."""

    def release(self) -> None:
        """Count nothing."""


class Body:
    """One body. In each ``timeout_s`` seconds, 64 KiB must arrive, or the rest of the body.

    Attributes:
        give_up_at: The event loop's time at which its timeout passes.
    """

    __slots__ = ("_content", "_max_bytes", "_rewarded", "_room", "_timeout_s", "give_up_at")

    def __init__(self, *, max_bytes: int, timeout_s: float, room: Room, now: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._room = room
        self._content = bytearray()
        self._rewarded = 0
        self.give_up_at = now + timeout_s

    def add(self, piece: bytes, now: float, *, last: bool) -> None:
        """Keep a piece. The last one is not counted: a complete body no longer arrives.

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
        """Return the body, and stop counting it."""
        self._room.release()
        content, self._content = self._content, bytearray()
        return bytes(content)

    def drop(self) -> None:
        """Drop the body, and stop counting it. Idempotent."""
        self._room.release()
        self._content = bytearray()

    def too_late(self) -> Exception:
        """Return the refusal of a body whose timeout has passed."""
        return BodyTimeoutError(
            f"neither the rest of the body nor {MIN_PROGRESS_BYTES} bytes of it came within "
            f"{self._timeout_s:g} s"
        )


def check_size(size: int, max_bytes: int) -> None:
    """Refuse a body that is too large.

    Raises:
        BodyTooLargeError: It has more than ``max_bytes``.
    """
    if size > max_bytes:
        raise BodyTooLargeError(f"the body must have at most {max_bytes} bytes")
