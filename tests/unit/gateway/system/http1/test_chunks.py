"""Chunked bodies: decoded as `httptools` decodes them, and refused where that is not worth it."""

from typing import Any

import pytest
from httptools import HttpParserError, HttpRequestParser
from hypothesis import given, strategies as st

from gateway.system.http1.chunks import CHUNK_COST_BYTES, CHUNKS_AT_ONCE, FREE_COST_BYTES, Chunks
from gateway.system.http1.head import MAX_HEAD_BYTES
from gateway.system.http1.refusals import RefusedError, TinyChunksError

BEHIND = b"GET /next HTTP/1.1\r\n\r\n"


def decode(data: bytes, size: int = 1 << 30) -> tuple[bytes, bytes, bool]:
    """Decode data that comes in pieces; return content, what is behind it, and if it has ended."""
    chunks, content, rest = Chunks(), b"", b""
    for start in range(0, len(data), size):
        rest += data[start : start + size]
        while rest and not chunks.complete:
            pieces, rest = chunks.take(rest)
            assert len(pieces) <= CHUNKS_AT_ONCE
            content += b"".join(pieces)
    return content, rest, chunks.complete


def encode(pieces: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    lines = [b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in pieces if one]
    return b"".join(lines) + b"0" + extension + b"\r\n" + trailers + b"\r\n"


class Reference:
    """What the parser of the head would make of it."""

    def __init__(self, data: bytes) -> None:
        self.content, self.complete, self.refused = b"", False, False
        head = b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
        parser: Any = HttpRequestParser(self)
        try:
            parser.feed_data(head + data)
        except HttpParserError:
            self.refused = not self.complete

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.complete = True


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=20),
    st.sampled_from([b"", b";a", b";a=b;c", b';a="b c"']),
    st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nlast: \r\n"]),
    st.integers(1, 400),
)
def test_a_body_is_whole_however_it_is_cut(
    pieces: list[bytes], extension: bytes, trailers: bytes, size: int
) -> None:
    data = encode(pieces, extension, trailers)
    content, rest, complete = decode(data + BEHIND, size)
    assert (content, complete) == (b"".join(pieces), True)
    assert BEHIND.endswith(rest)
    assert decode(data + BEHIND)[1] == BEHIND
    assert decode(data[:-1])[2] is False


@given(st.lists(st.sampled_from(b"\r\n;: 0123aFgx".decode()), max_size=30))
def test_no_body_ends_elsewhere_than_the_parser_ends_it(characters: list[str]) -> None:
    """Another reader must not find other requests in the same bytes: what is taken, both take."""
    data = "".join(characters).encode() + b"\r\n0\r\n\r\n"
    reference = Reference(data)
    try:
        content, _, complete = decode(data)
    except RefusedError:
        return  # this one may be stricter
    if complete:
        assert not reference.refused, data
        assert reference.complete, data
        assert content == reference.content


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n0\r\n\r\n",
        b"zz\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\nhello5\r\n",
        b"5\r\nhello\n5\r\n",
        b"5;\x00\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5;\r\nhello\r\n",
        b"5; a\r\nhello\r\n",
        b"123456789\r\n",
        b"5;" + b"x" * 300 + b"\r\n",
        b"5" * 300,
        b"0\r\na: b\n\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 20_000,
        b"0\r\n" + b"x" * (MAX_HEAD_BYTES + 1),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 3])
def test_a_body_that_is_chunked_wrongly_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(RefusedError):
        assert decode(data + b"0\r\n\r\n" * 100, size)[2] is False


FREE = FREE_COST_BYTES // CHUNK_COST_BYTES


def test_chunks_that_cost_more_than_they_bring_are_refused() -> None:
    with pytest.raises(TinyChunksError):
        decode(b"1\r\nx\r\n" * (FREE + 100))
    assert decode(encode([b"x"] * (FREE - 10)))[2]
    assert decode(encode([b"x" * CHUNK_COST_BYTES] * 3 * FREE))[2]


def test_long_lines_of_chunks_count_as_much_as_they_are() -> None:
    extension = b";" + b"x" * 200
    with pytest.raises(RefusedError):
        decode(encode([b"x" * CHUNK_COST_BYTES] * FREE, extension))
