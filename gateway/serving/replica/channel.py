"""The parent's end of a worker's socket: sends frames, one write per step of the loop, and reads.

It uses the bare socket, since a transport does not report which requests never reached a worker
that has died. Other workers may take them.
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
"""The most frames in one read: replies are larger, so more frames are a flood."""
_DRAIN_BYTES = 4 * 1024 * 1024
"""More than the kernel buffers. A bound, since a child of the dead peer may go on writing."""
_TRANSIENT = frozenset({errno.ENOMEM, errno.ENOBUFS})
"""The kernel has no memory now: no fault of the worker."""
_PAUSE_S = 0.01
_GATHER = 64


class Channel:
    """Frames over a non-blocking stream socket, which the worker process owns. Event loop only.

    ``on_closed`` is called once, after the last frame. ``on_garbled`` gets the reason before an
    invalid frame closes the channel: it is malformed, too large or part of a flood.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_frame: Callable[[Frame], None],
        on_closed: Callable[[], None],
        on_garbled: Callable[[str], None],
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
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
        """Start to read."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._open

    def send(self, kind: int, frame_id: int, header: bytes, body: bytes = b"") -> None:
        """Queue a frame; frames of one step of the loop leave in one write."""
        self._unsent.append((frame_id, [*pack(kind, frame_id, header, body)]))
        if not self._flush_scheduled and not self._writer_armed:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def unsent_ids(self) -> set[int]:
        """Return the ids of frames that the kernel has not taken as a whole."""
        return {frame_id for frame_id, _ in self._unsent}

    def close(self) -> None:
        """Stop reading and writing; the socket stays open."""
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
        """Read the last frames of a dead peer, then close."""
        self.read_waiting()
        self.close()

    def read_waiting(self) -> None:
        """Read the bytes that are in the socket now."""
        left_bytes = _DRAIN_BYTES
        while self._open and left_bytes > 0 and (count := self._readable()):
            left_bytes -= count

    def _readable(self) -> int:
        """Read once, and close at the end of the stream; return the number of bytes."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in _TRANSIENT:
                return 0  # the loop calls again
            data = b""
        try:
            frames = self._reader.feed(data)
        except FrameError as error:
            self._on_garbled(str(error))
            data, frames = b"", []
        for frame in frames:
            if not self._open:  # the one before it was invalid
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
            self._writer_armed = True
            self._loop.add_writer(self._socket, self._flush)
        except OSError as error:
            # The worker is gone. Its last frames may wait to be read, so the reader closes the
            # channel.
            if error.errno in _TRANSIENT:
                self._flush_scheduled = True
                self._loop.call_later(_PAUSE_S, self._flush)
        else:
            if self._writer_armed:
                self._writer_armed = False
                self._loop.remove_writer(self._socket)

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
