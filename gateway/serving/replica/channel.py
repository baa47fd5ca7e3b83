"""The parent's end of a worker's socket: frames out, one write per turn of the loop; frames in.

Written on the bare socket rather than a transport because of one question that a transport cannot
answer: which requests never reached a worker that has just died, and may go to another?
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from functools import partial

from gateway.serving.replica.worker_messages import MAX_HEADER_BYTES
from gateway.system import release_all
from gateway.worker.protocol.frames import MAX_BODY_BYTES, Frame, FrameError, FrameReader, pack

_READ_BYTES = 256 * 1024
_MAX_FRAMES = _READ_BYTES // 64
"""In one read: an answer has more bytes than that, so what comes in smaller frames is a flood."""
_DRAIN_BYTES = 4 * 1024 * 1024
"""More than the kernel holds for a peer that has died; a child of it may go on writing for ever."""
_PASSING = frozenset({errno.ENOMEM, errno.ENOBUFS})
"""The kernel has no memory for it now: no fault of the worker."""
_PAUSE_S = 0.01
_GATHER = 64


class Channel:
    """Frames over a non-blocking stream socket. All methods on the event loop."""

    def __init__(
        self,
        connection: socket.socket,
        on_frame: Callable[[Frame], None],
        on_closed: Callable[[], None],
        on_garbled: Callable[[str], None],
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Store the socket and whom to tell. ``on_closed`` is called once, after the last frame.

        What is no frame, has a body of more than ``max_body_bytes`` or comes in a flood closes the
        channel; ``on_garbled`` is called before, with the reason.
        """
        self._socket = connection
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._on_garbled = on_garbled
        self._reader = FrameReader(max_body_bytes, MAX_HEADER_BYTES, _MAX_FRAMES)
        self._unsent: deque[tuple[int, list[bytes | memoryview]]] = deque()
        self._flush_scheduled = False
        self._writer_armed = False
        self._open = False

    def open(self) -> None:
        """Start to listen."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._open

    def send(self, kind: int, frame_id: int, header: bytes, body: bytes = b"") -> None:
        """Queue a frame; everything queued in one turn of the loop leaves in one write."""
        self._unsent.append((frame_id, [*pack(kind, frame_id, header, body)]))
        if not self._flush_scheduled and not self._writer_armed:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def unsent_ids(self) -> set[int]:
        """Return the ids of frames whose last byte has not been handed to the kernel."""
        return {frame_id for frame_id, _ in self._unsent}

    def close(self) -> None:
        """Stop listening. The socket itself belongs to the worker process's owner."""
        if not self._open:
            return
        self._open = False
        writer_armed, self._writer_armed = self._writer_armed, False
        release_all(
            partial(self._loop.remove_reader, self._socket),
            *([partial(self._loop.remove_writer, self._socket)] if writer_armed else []),
            self._on_closed,
        )

    def drain(self) -> None:
        """Read what a dead peer still said, then close."""
        self.read_waiting()
        self.close()

    def read_waiting(self) -> None:
        """Read what has come already."""
        left = _DRAIN_BYTES
        while self._open and left > 0 and (count := self._readable()):
            left -= count

    def _readable(self) -> int:
        """Read once, and close at the end; return how many bytes came."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in _PASSING:
                return 0  # the loop calls again
            data = b""
        try:
            frames = self._reader.feed(data)
        except FrameError as error:
            self._on_garbled(str(error))
            data, frames = b"", []
        for frame in frames:
            if not self._open:  # one before it was not believed
                break
            self._on_frame(frame)
        if not data:
            self.close()
        return len(data)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if not self._open:
            return
        try:
            while self._unsent:
                self._sent(self._socket.sendmsg(self._gather()))
        except (BlockingIOError, InterruptedError):
            self._arm()
        except OSError as error:
            # The worker is gone. What it sent before may still be waiting to be read, so the
            # reader closes the channel, not we.
            if error.errno in _PASSING:
                self._flush_scheduled = True
                self._loop.call_later(_PAUSE_S, self._flush)
            return
        else:
            self._disarm()

    def _gather(self) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = []
        for _, frame in self._unsent:
            pieces += frame
            if len(pieces) >= _GATHER:
                break
        return pieces

    def _sent(self, count: int) -> None:
        while count:
            _, pieces = self._unsent[0]
            if count < len(pieces[0]):
                pieces[0] = memoryview(pieces[0])[count:]
                return
            count -= len(pieces.pop(0))
            if not pieces:
                self._unsent.popleft()

    def _arm(self) -> None:
        if not self._writer_armed:
            self._writer_armed = True
            self._loop.add_writer(self._socket, self._flush)

    def _disarm(self) -> None:
        if self._writer_armed:
            self._writer_armed = False
            self._loop.remove_writer(self._socket)
