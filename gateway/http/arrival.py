"""A request's body as it arrives: within its limits of size and time; then it has a place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from gateway.admission import Admission, Held, Place
from gateway.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    GatewayError,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_ARRIVES_AT_ONCE_BYTES = 64 * 1024
_MIN_PIECE_BYTES = 64 * 1024
"""What has to come of a body in the time that it has, or its last rest: a byte now and then would
hold those before it for ever."""
_DROP_BYTES = 256 * 1024 * 1024
_DROP_S = 5.0


class ClientLeftError(Exception):
    """The caller hung up before its body was complete."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The largest body, and the longest wait, in seconds, for its next 64 KiB, or its rest."""

    max_bytes: int
    timeout_s: float

    def check(self, length: int) -> None:
        """Refuse a body of so many bytes if they are too many.

        Raises:
            BodyTooLargeError: They are.
        """
        if length > self.max_bytes:
            raise BodyTooLargeError(f"the body is larger than {self.max_bytes} bytes")


class Arrival:
    """One request's body.

    Attributes:
        complete: Whether all of it has been read.
        place: What the request holds of this gateway; None: nothing yet but bytes.
    """

    __slots__ = (
        "_admission",
        "_give_up_at",
        "_held",
        "_limits",
        "_receive",
        "_size",
        "complete",
        "place",
    )

    def __init__(self, limits: BodyLimits, admission: Admission, receive: Receive) -> None:
        """Store."""
        self._give_up_at: float | None = None
        self._limits = limits
        self._admission = admission
        self._receive = receive
        self._held = Held(admission)
        self._size = 0
        self.complete = False
        self.place: Place | None = None

    async def read(
        self, content_length: bytes, deadline: float | None = None
    ) -> tuple[bytes, Place]:
        """Read the whole body; return it, and the place that it takes then.

        ``deadline``: when its caller gives up (``CLOCK_MONOTONIC``, seconds); None: never.

        Raises:
            BodyTooLargeError: It is larger than it may be, or says that it will be.
            GatewayOverloadedError: There is no room for it on this gateway.
            BodyTimeoutError: It stopped coming, or as good as that.
            DeadlineExceededError: Its caller's time was over before it was here.
            ClientLeftError: Its caller hung up.
        """
        if content_length.isdigit():
            self._refuse_early(int(content_length))
        if deadline is not None:
            left_s = deadline - time.monotonic()
            self._give_up_at = asyncio.get_running_loop().time() + left_s
        try:
            async with asyncio.timeout_at(self._next_limit()) as limit:
                return await self._pieces(limit)
        except TimeoutError as error:
            raise self._too_slow() from error

    def _next_limit(self) -> float:
        """Say until when to wait for what has to come next, in the event loop's time."""
        limit = asyncio.get_running_loop().time() + self._limits.timeout_s
        return limit if self._give_up_at is None else min(limit, self._give_up_at)

    def _too_slow(self) -> GatewayError:
        now = asyncio.get_running_loop().time()
        if self._give_up_at is not None and now >= self._give_up_at:
            return DeadlineExceededError("the body did not come within X-Request-Timeout")
        return BodyTimeoutError(
            f"neither the rest of the body nor {_MIN_PIECE_BYTES} bytes of it came within "
            f"{self._limits.timeout_s:g} s"
        )

    def _refuse_early(self, length: int) -> None:
        """Refuse by what the body says of itself, unless it is as good as here already."""
        self._limits.check(length)
        if length > _ARRIVES_AT_ONCE_BYTES:
            self._admission.expect(length)

    async def _pieces(self, limit: asyncio.Timeout) -> tuple[bytes, Place]:
        piece, more = await self._piece()
        self._size = len(piece)
        if not more:
            return piece, self._enter()
        self._held.add(len(piece))
        pieces, rewarded = [piece], 0
        while more:
            if self._size - rewarded >= _MIN_PIECE_BYTES:
                rewarded = self._size
                limit.reschedule(self._next_limit())
            piece, more = await self._piece()
            self._size += len(piece)
            self._limits.check(self._size)
            pieces.append(piece)
            if more:  # what is whole now needs a place only
                self._add(pieces)
        return b"".join(pieces), self._enter()

    def _add(self, pieces: list[bytes]) -> None:
        """Count the last of what has come; drop all of it if that is too much.

        Or it would have those refused beside whom it was too much, for as long as it takes to drop
        what still comes.
        """
        try:
            self._held.add(len(pieces[-1]))
        except GatewayError:
            pieces.clear()
            self._held.let_go()
            raise

    def _enter(self) -> Place:
        """Take a place, now that all is here: who is slow to send takes none of others."""
        self._held.let_go()  # the place counts them
        try:
            self.place = self._admission.enter(self._size)
        except GatewayError:
            self._held.count(self._size)  # until its caller has been told
            raise
        return self.place

    async def _piece(self) -> tuple[bytes, bool]:
        """Return what has come, and whether more is to come."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        more: bool = message.get("more_body", False)
        self.complete = not more
        piece: bytes = message.get("body", b"")
        self._limits.check(len(piece))
        return piece, more

    async def drop_rest(self) -> None:
        """Read on without keeping anything: to the end of the body, or to a limit."""
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DROP_S):
                more = not self.complete
                while more and dropped < _DROP_BYTES:
                    message = await self._receive()
                    more = message["type"] == "http.request" and message.get("more_body", False)
                    dropped += len(message.get("body", b""))

    def answered(self) -> None:
        """The answer is here: let the place go; what is held counts until `end`. Twice is once."""
        if self.place is not None:
            self._held.count(self._size)
            self.place.let_go()
            self.place = None

    def end(self) -> None:
        """The caller has its answer, or is gone: let everything go as far as it is theirs."""
        self.answered()
        self._held.let_go()
