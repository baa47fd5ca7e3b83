"""A request's head: read however it is cut, and refused where it is ambiguous or too much."""

import pytest

from gateway.system.http1.head import MAX_HEAD_BYTES, MAX_QUERY_FIELDS, MAX_TARGET_BYTES, Head
from gateway.system.http1.refusals import RefusedError

LINE = b"POST /models/m/predict HTTP/1.1\r\n"
HOST = b"Host: g\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"


def read(data: bytes, pieces: int = 1) -> tuple[Head, bytes]:
    """Read a head in so many pieces; return it, and what came after it."""
    head, size = Head(), -(-len(data) // pieces)
    for start in range(0, len(data), size):
        rest = head.take(data[start : start + size])
        if rest is not None:
            return head, rest + data[start + size :]
    raise EOFError


def refused(data: bytes, pieces: int = 1) -> tuple[int, str]:
    with pytest.raises(RefusedError) as error:
        read(data, pieces)
    return error.value.status, error.value.code


def head_of(*lines: bytes, line: bytes = LINE, host: bytes = HOST) -> bytes:
    return line + host + b"".join(one + b"\r\n" for one in lines) + b"\r\n"


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("offer", [b"", OFFER])
def test_a_head_is_read_however_it_is_cut(pieces: int, offer: bytes) -> None:
    data = LINE + HOST + offer + b"Content-Length: 5\r\n\r\nhello\r\n\r\nmore"
    head, rest = read(data, pieces)
    assert (head.method, head.url, head.length) == (b"POST", b"/models/m/predict", 5)
    assert head.fields[b"host"] == b"g"
    assert head.keep_alive
    assert rest == b"hello\r\n\r\nmore"


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        ((), True),
        ((b"Connection: close",), False),
        ((b"Connection: close, Upgrade", b"Upgrade: h2c"), False),
        ((b"Content-Length: 3", b"Connection: close"), False),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
def test_the_caller_says_whether_the_connection_stays(
    method: bytes, lines: tuple[bytes, ...], keeps: bool
) -> None:
    current = method + b" / HTTP/1.1\r\n"
    assert read(head_of(*lines, line=current))[0].keep_alive is keeps
    assert not read(head_of(*lines, line=method + b" / HTTP/1.0\r\n"))[0].keep_alive


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nhost: b\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: user@a\r\n",
        b"Host: " + b"a" * 400 + b"\r\n",
    ],
)
def test_a_request_has_one_host(host: bytes) -> None:
    assert refused(head_of(host=host)) == (400, "invalid_http")


@pytest.mark.parametrize("host", [b"", b"g", b"g:8080", b"[::1]:80", b"a-b_c.d"])
def test_hosts_that_are_legal_pass(host: bytes) -> None:
    assert read(head_of(host=b"Host: " + host + b"\r\n"))[0].fields[b"host"] == host


def test_an_old_request_needs_no_host() -> None:
    assert read(head_of(line=b"GET / HTTP/1.0\r\n", host=b""))[0].url == b"/"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((b"Transfer-Encoding: gzip, chunked",), (501, "unknown_transfer_coding")),
        ((b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"), (501, None)),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), (None, None)),
        ((b"Transfer-Encoding: identity",), (None, None)),
        ((b"Transfer-Encoding: gzip",), (None, None)),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 3"), (400, "invalid_http")),
        ((b"Content-Length: 3", b"Content-Length: 3"), (400, "invalid_http")),
        ((b"Content-Length: 3", b"Content-Length: 4"), (400, "invalid_http")),
        ((b"Content-Length: +3",), (400, "invalid_http")),
        ((b"Content-Length: 3, 3",), (400, "invalid_http")),
        ((b"Content-Length: 0x3",), (400, "invalid_http")),
        ((b"Content-Length: " + b"9" * 40,), (400, "invalid_http")),
        ((b"Content-Length : 3",), (400, "invalid_http")),
        ((b" Content-Length: 3",), (400, "invalid_http")),
        ((b"a: b\x00c",), (400, "invalid_http")),
        ((b"a: b\r",), (400, "invalid_http")),
    ],
)
@pytest.mark.parametrize("offer", [(), (OFFER.removesuffix(b"\r\n"),)])
def test_framing_that_is_ambiguous_is_refused(
    lines: tuple[bytes, ...], expected: tuple[int | None, str | None], offer: tuple[bytes, ...]
) -> None:
    status, code = refused(head_of(*offer, *lines))
    assert status == (expected[0] or status)
    assert code == (expected[1] or code)


@pytest.mark.parametrize(
    "line",
    [
        b"CONNECT g:80 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET models HTTP/1.1\r\n",
        b"GET /a#b HTTP/1.1\r\n",
        b"GET ftp://g/ HTTP/1.1\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET /\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\n",
    ],
)
def test_request_without_a_path_is_refused(line: bytes) -> None:
    assert refused(head_of(line=line)) == (400, "invalid_http")


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (b"http://g/models", b"/models"),
        (b"HTTPS://elsewhere:1/a?b", b"/a?b"),
        (b"http://g", b"/"),
        (b"http://g?a=b", b"/?a=b"),
    ],
)
def test_a_whole_url_means_its_path(target: bytes, url: bytes) -> None:
    assert read(head_of(line=b"GET " + target + b" HTTP/1.1\r\n"))[0].url == url


@pytest.mark.parametrize(
    "target",
    [
        b"/" + b"%41" * 20_000,
        b"/" + b"x" * MAX_TARGET_BYTES,
        b"/?" + b"&".join(b"a=%d" % number for number in range(10_000)),
        b"/?" + b"&" * MAX_QUERY_FIELDS,
    ],
    ids=["escapes", "path", "fields", "empty fields"],
)
def test_a_target_beyond_what_is_legal_is_refused_before_it_is_parsed(target: bytes) -> None:
    line = b"GET " + target + b" HTTP/1.1\r\n"
    status, code = refused(head_of(line=line))
    assert (status, code) in {(414, "uri_too_long"), (431, "head_too_large")}


def test_the_longest_legal_target_passes() -> None:
    model, alias = b"%F0%90%8D%88" * 512, b"%F0%90%8D%88" * 255
    line = b"POST /models/" + model + b"/versions/@" + alias + b"/predict HTTP/1.1\r\n"
    assert read(head_of(line=line))[0].url.endswith(b"/predict")


@pytest.mark.parametrize("pieces", [1, 9])
def test_a_head_beyond_its_bounds_is_refused(pieces: int) -> None:
    many = head_of(*[b"a: b"] * 100)
    large = head_of(b"a: " + b"x" * MAX_HEAD_BYTES)
    for one in (many, large, large[: MAX_HEAD_BYTES + 10]):
        assert refused(one, pieces) == (431, "head_too_large")


def test_a_url_that_is_not_ascii_is_told_to_be_percent_encoded() -> None:
    with pytest.raises(RefusedError, match="percent-encoded in UTF-8, such as %C3%BC for ü"):
        read(head_of(line="GET /models/ünï HTTP/1.1\r\n".encode()))
