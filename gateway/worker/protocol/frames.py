"""Frames between gateway and worker: length-prefixed, on a socket pair.

A frame is a fixed prefix, a small JSON header and a raw body::

    kind: u8 | header length: u32 | body length: u32 | id: u64 | header | body

all big-endian. ``id`` is the number of the request on this connection, or 0 without a request.
Frames are never unpickled.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

PREFIX = struct.Struct("!BIIQ")
_SMALL_BYTES = 16 * 1024
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024 * 1024


class FrameError(Exception):
    """The peer sent an invalid frame; the connection cannot be used any longer."""


class Frame(NamedTuple):
    """One frame. ``header`` is encoded JSON."""

    kind: int
    id: int
    header: bytes
    body: bytes


def pack(kind: int, frame_id: int, header: bytes, body: bytes = b"") -> list[bytes]:
    """Return the pieces of a frame for one gathering write; a small frame is one piece."""
    prefix = PREFIX.pack(kind, len(header), len(body), frame_id)
    return [prefix + header + body] if len(body) <= _SMALL_BYTES else [prefix + header, body]


@dataclass
class FrameReader:
    """Cuts a stream of bytes into frames, whatever the sizes of the reads. Not thread-safe.

    Attributes:
        max_body_bytes: The largest valid body.
        max_header_bytes: The largest valid header.
        max_frames: The most frames that one read may complete; more are a flood.
    """

    max_body_bytes: int = MAX_BODY_BYTES
    max_header_bytes: int = MAX_HEADER_BYTES
    max_frames: int = 1_000_000

    def __post_init__(self) -> None:
        """Start with an empty buffer."""
        self._buffer = bytearray()

    @property
    def is_in_a_frame(self) -> bool:
        """Whether a frame was received in part."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes; return the frames that are complete now, oldest first.

        Raises:
            FrameError: A length is beyond the limits, or there are too many frames.
        """
        if self._buffer:  # part of a frame was received before
            self._buffer += data
            frames, end = self._cut(self._buffer)
            del self._buffer[:end]
            return frames
        frames, end = self._cut(data)
        if end < len(data):
            self._buffer += data[end:]
        return frames

    def _cut(self, data: bytes | bytearray) -> tuple[list[Frame], int]:
        """Return the complete frames at the start of ``data``, and where they end."""
        frames: list[Frame] = []
        start, size = 0, len(data)
        with memoryview(data) as view:
            while size - start >= PREFIX.size:
                kind, header_bytes, body_bytes, frame_id = PREFIX.unpack_from(view, start)
                if header_bytes > self.max_header_bytes or body_bytes > self.max_body_bytes:
                    raise FrameError(
                        f"a frame of {header_bytes} + {body_bytes} bytes is beyond the limits"
                    )
                body_at = start + PREFIX.size + header_bytes
                end = body_at + body_bytes
                if end > size:
                    break
                header, body = view[body_at - header_bytes : body_at], view[body_at:end]
                frames.append(Frame(kind, frame_id, header.tobytes(), body.tobytes()))
                start = end
                if len(frames) > self.max_frames:
                    raise FrameError(f"more than {self.max_frames} frames in one read")
        return frames, start
