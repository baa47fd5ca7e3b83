"""A chunked body, decoded as it arrives (RFC 9112, section 7.1), at a bounded cost per byte."""

from __future__ import annotations

import re

from gateway.system.http1.head import MAX_HEAD_BYTES
from gateway.system.http1.refusals import HeadTooLargeError, InvalidHttpError, TinyChunksError

CHUNK_COST_BYTES = 64
FREE_COST_BYTES = 64 * 1024
"""A chunk costs so many bytes, or the length of its line. A body may cost this much more than its
length: 1,024 chunks of one byte pass."""
CHUNKS_AT_ONCE = 256
"""Chunks per step of the loop, so that other connections are served."""
MAX_LINE_BYTES = 256
_END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}"
_LINE = rb"([0-9A-Fa-f]{1,8})(?:;TOKEN(?:=(?:TOKEN|\"[^\"\\\x00-\x1f\x7f]*\"))?)*\r\n".replace(
    b"TOKEN", _TOKEN
)
_TRAILERS = re.compile(rb"\r\n(?:TOKEN:[\t\x20-\x7e\x80-\xff]*\r\n)*\Z".replace(b"TOKEN", _TOKEN))
_FIRST_LINE = re.compile(_LINE)
_NEXT_LINE = re.compile(rb"\r\n" + _LINE)


class Chunks:
    """Decodes one body.

    Attributes:
        complete: Whether its end has come.
    """

    __slots__ = ("_content", "_cost", "_kept", "_left", "_line", "_trailers", "complete")

    def __init__(self) -> None:
        self.complete = False
        self._line = _FIRST_LINE
        self._kept = b""  # the start of a line
        self._left = 0  # bytes left of the chunk
        self._content = 0
        self._cost = 0
        self._trailers: bytearray | None = None

    def take(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Take bytes; return pieces of content, and the bytes that were not taken.

        If the body is complete, these bytes follow it. If not, offer them in the next loop step.

        Raises:
            RefusedError: The chunks are malformed.
        """
        pieces: list[bytes] = []
        if self._kept:
            data, self._kept = self._kept + data, b""
        at = 0
        while self._trailers is None:
            if len(pieces) == CHUNKS_AT_ONCE:
                return pieces, data[at:]
            if self._left == 0:
                end = self._read_line(data, at)
                if end < 0:
                    self._kept = data[at:]
                    return pieces, b""
                at = end
            elif at < len(data):
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._content += len(piece)
                pieces.append(piece)
            else:
                return pieces, b""
        return pieces, self._drop_trailers(self._trailers, data, at)

    def _read_line(self, data: bytes, at: int) -> int:
        """Read the line before a chunk; return where it ends, or -1 if it is not complete."""
        found = self._line.match(data, at)
        if found is None:
            if len(data) - at > MAX_LINE_BYTES or data.find(b"\n", at + 2) >= 0:
                raise InvalidHttpError("each chunk of the body must begin with its size")
            return -1
        size = found.end() - at
        if size > MAX_LINE_BYTES:
            raise InvalidHttpError(f"the line of a chunk must have at most {MAX_LINE_BYTES} bytes")
        self._cost += max(size, CHUNK_COST_BYTES)
        if self._cost > self._content + FREE_COST_BYTES:
            raise TinyChunksError(
                f"the body's chunks are too small: they must have {CHUNK_COST_BYTES} bytes on "
                "average; send larger ones, or Content-Length"
            )
        self._line = _NEXT_LINE
        self._left = int(found[1], 16)
        if self._left == 0:
            self._trailers = bytearray(b"\r\n")
        return found.end()

    def _drop_trailers(self, trailers: bytearray, data: bytes, at: int) -> bytes:
        """Drop trailers up to the empty line; return the bytes after it."""
        before = len(trailers)
        trailers += data[at : at + MAX_HEAD_BYTES + len(_END)]
        end = trailers.find(_END, max(0, before - len(_END) + 1))
        if (end if end >= 0 else len(trailers)) > MAX_HEAD_BYTES:
            raise HeadTooLargeError(f"trailers must have at most {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return b""
        if not _TRAILERS.match(trailers, 0, end + 2):
            raise InvalidHttpError("each trailer must be a name, a colon and a value")
        self.complete = True
        return data[at + end + len(_END) - before :]
