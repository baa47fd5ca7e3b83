"""The worker's end of the socket pair: frames in, frames out, in one thread."""

from __future__ import annotations

import math
import select
import socket
import time

from gateway.worker.protocol.frames import Frame, FrameReader, pack
from gateway.worker.protocol.messages import KIND_OF, Message, encode_header

_READ_BYTES = 256 * 1024


class ConnectionEndedError(Exception):
    """The gateway has ended, so no request can be answered."""


class Connection:
    """Frames on a blocking stream socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._reader = FrameReader()

    @property
    def is_receiving(self) -> bool:
        """Whether a frame has arrived in part."""
        return self._reader.is_in_a_frame

    def receive(self, *, wait: bool) -> list[Frame]:
        """Return the frames that have arrived; with ``wait``, at least one.

        Raises:
            ConnectionEndedError: End of the stream, or an error on it.
        """
        frames: list[Frame] = []
        while True:
            block = wait and not frames
            try:
                data = self._channel.recv(_READ_BYTES, 0 if block else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return frames
            except OSError as error:
                raise ConnectionEndedError from error
            if not data:
                raise ConnectionEndedError
            frames += self._reader.feed(data)

    def receive_within(self, seconds: float) -> list[Frame]:
        """Return the complete frames that have arrived, or arrive within ``seconds``.

        Raises:
            ConnectionEndedError: End of the stream, or an error on it.
        """
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while not (frames := self.receive(wait=False)):
            left_s = until - time.monotonic()
            if left_s <= 0 or not poll.poll(math.ceil(left_s * 1000)):
                break
        return frames

    def send(self, answers: list[tuple[int, Message, bytes]]) -> None:
        """Send messages with their ids and bodies, in one write where the kernel allows.

        Raises:
            ConnectionEndedError: The other end is closed.
        """
        pieces: list[bytes] = []
        for frame_id, message, body in answers:
            pieces += pack(KIND_OF[type(message)], frame_id, encode_header(message), body)
        try:
            self._channel.sendall(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except OSError as error:
            raise ConnectionEndedError from error
