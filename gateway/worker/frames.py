"""How bytes travel between gateway and worker: length-prefixed frames on a socket pair.

A frame is a fixed prefix, a small JSON header and a raw body::

    kind: u8 | header length: u32 | body length: u32 | id: u64 | header | body

all big-endian. ``id`` is the request's number on this connection, 0 where there is none.
Nothing is ever unpickled from a frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

PREFIX = struct.Struct("!BIIQ")
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024 * 1024


class FrameError(Exception):
    """The peer sent something that is no frame; the connection cannot be used any more."""


class Frame(NamedTuple):
    """One frame, taken apart. ``header`` is JSON, still encoded."""

    kind: int
    id: int
    header: bytes
    body: bytes


def pack(kind: int, frame_id: int, header: bytes, body: bytes = b"") -> list[bytes]:
    """Return the pieces of a frame, for one gathering write."""
    prefix = PREFIX.pack(kind, len(header), len(body), frame_id)
    return [prefix + header, body] if body else [prefix + header]


@dataclass
class FrameReader:
    """Cuts a stream of bytes into frames, whatever the sizes of the reads. Not thread-safe."""

    def __post_init__(self) -> None:
        """Start with nothing received."""
        self._buffer = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes; return the frames that are now whole, oldest first.

        Raises:
            FrameError: A length is beyond the limits.
        """
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        return frames

    def _next(self) -> Frame | None:
        body_at = self._start + PREFIX.size
        if len(self._buffer) < body_at:
            return None
        kind, header_bytes, body_bytes, frame_id = PREFIX.unpack_from(self._buffer, self._start)
        if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
            raise FrameError(f"a frame of {header_bytes} + {body_bytes} bytes is beyond the limits")
        header_end = body_at + header_bytes
        end = header_end + body_bytes
        if len(self._buffer) < end:
            return None
        view = memoryview(self._buffer)
        header, body = bytes(view[body_at:header_end]), bytes(view[header_end:end])
        view.release()
        self._start = end
        return Frame(kind, frame_id, header, body)
