"""A request's line and headers while they arrive: parsed by `httptools`, within limits.

The parser never sees a body, so an offered upgrade cannot lose one. Each head has its own parser,
so no state is carried over to the next request.
"""

from __future__ import annotations

import re

from httptools import (
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from gateway.system.http1.refusals import (
    HeadTooLargeError,
    InvalidHttpError,
    RefusedError,
    UnknownCodingError,
    UriTooLongError,
)

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_TARGET_BYTES = 12 * 1024
"""The longest legal target: a model's name of 512 and an alias of 255 characters of four bytes,
each of them percent-encoded."""
MAX_QUERY_FIELDS = 16
_END = b"\r\n\r\n"
_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]{0,300}\Z")
_INVALID_URL = (
    "the URL is invalid: what is not printable ASCII must be percent-encoded in UTF-8, such as "
    "%C3%BC for \u00fc"
)
_TOO_LARGE = (
    f"the request's line and headers must have at most {MAX_HEAD_BYTES} bytes, and at most "
    f"{MAX_HEADERS} headers"
)

Header = tuple[bytes, bytes]


class Head:
    """One request's line and headers.

    Attributes:
        method: In upper case, as sent.
        url: The request target in origin form: path and query.
        headers: Pairs in order; names in lower case.
        fields: The headers by name; of duplicates, the last.
        length: Bytes of the body, or None if it is chunked.
        keep_alive: Whether the caller wants the connection to stay open.
        expects: Whether the caller waits for ``100 Continue``.
    """

    __slots__ = (
        "_last",
        "_over",
        "_parser",
        "_size",
        "expects",
        "fields",
        "headers",
        "keep_alive",
        "length",
        "method",
        "url",
    )

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[Header] = []
        self._parser = HttpRequestParser(self)
        self._size = 0
        self._last = b""
        self._over = False
        self.keep_alive = False

    def take(self, data: bytes) -> bytes | None:
        """Take bytes; return those after the head, or None if it is not complete.

        Raises:
            RefusedError: The head is invalid or beyond a limit.
        """
        end = self._find_end(data)
        piece = data if end < 0 else data[:end]
        self._size += len(piece)
        if self._size > MAX_HEAD_BYTES:
            raise HeadTooLargeError(_TOO_LARGE)
        self._parse(piece)
        if self._over is not (end >= 0):
            raise InvalidHttpError("the request's head must end with an empty line")
        if end < 0:
            self._last = (self._last + piece)[1 - len(_END) :]
            return None
        self._finish()
        return data[end:]

    def _find_end(self, data: bytes) -> int:
        """Return where in ``data`` the head ends, or -1."""
        before = len(self._last)
        found = (self._last + data if before else data).find(_END)
        return found if found < 0 else found + len(_END) - before

    def _parse(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            pass  # ignore the offer
        except HttpParserInvalidURLError as error:
            raise InvalidHttpError(_INVALID_URL) from error
        except HttpParserError as error:
            if isinstance(error.__context__, RefusedError):
                raise error.__context__ from None
            raise InvalidHttpError(f"the request is not valid HTTP/1.1: {error}") from error

    # --- called by the parser ---------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if len(self.headers) == MAX_HEADERS:
            raise HeadTooLargeError(_TOO_LARGE)
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Record the end, and what the parser knows only now."""
        self._over = True
        self.keep_alive = self._parser.should_keep_alive()

    # --- checks and results -----------------------------------------------------------------------

    def _finish(self) -> None:
        parser = self._parser
        del self._parser  # they refer to each other
        self.method: bytes = parser.get_method()
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise InvalidHttpError("the request must be HTTP/1.1")
        current = version == "1.1"
        self.keep_alive = self.keep_alive and current
        self.fields = fields = dict(self.headers)
        self._check_host(required=current)
        self._check_target()
        self.length = self._length(current=current)
        self.expects = fields.get(b"expect", b"").lower() == b"100-continue"

    def _check_host(self, *, required: bool) -> None:
        host = self.fields.get(b"host")
        if host is None:
            if required:
                raise InvalidHttpError("the request must have a Host header")
        elif self._repeats(b"host"):
            raise InvalidHttpError("the request must have one Host header, not several")
        elif not _HOST.match(host):
            raise InvalidHttpError("the Host header must be a host's name, and perhaps a port")

    def _repeats(self, name: bytes) -> bool:
        if len(self.fields) == len(self.headers):
            return False
        return sum(one == name for one, _ in self.headers) > 1

    def _check_target(self) -> None:
        url = self.url
        if not url.startswith(b"/"):
            absolute = _ABSOLUTE.match(url)
            if absolute is None:
                raise InvalidHttpError("the request target must be a path, such as /models")
            url = url[absolute.end() :]
            self.url = url if url.startswith(b"/") else b"/" + url
        if len(url) > MAX_TARGET_BYTES:
            raise UriTooLongError(f"path and query must have at most {MAX_TARGET_BYTES} bytes")
        if b"#" in url:
            raise InvalidHttpError("the request target must not have a fragment (#)")
        if url.count(b"&") >= MAX_QUERY_FIELDS:
            raise UriTooLongError(f"the query must have at most {MAX_QUERY_FIELDS} fields")

    def _length(self, *, current: bool) -> int | None:
        """Return the body's length. The parser has refused ambiguous framing."""
        coding = self.fields.get(b"transfer-encoding")
        if coding is None:
            return int(self.fields.get(b"content-length", b"0"))
        if coding.strip().lower() != b"chunked" or self._repeats(b"transfer-encoding"):
            raise UnknownCodingError("the only transfer coding must be chunked")
        if not current:
            raise InvalidHttpError("an HTTP/1.0 request must not have a transfer coding")
        return None
