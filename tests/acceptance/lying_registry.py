"""A real registry behind a door that can be shut, or lie: every way in which registries fail."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal
from urllib.parse import urlsplit

Mode = Literal["honest", "gone", "error", "empty", "slow"]
_SEARCHES = ("registered-models/search", "model-versions/search")
_SLOW_S = 60.0
_NOT_PASSED_ON = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


class LyingRegistry:
    """Passes HTTP requests on to the registry at ``url``, as ``mode`` says.

    ``gone``: connections are closed unanswered. ``error``: every answer is a 500. ``empty``:
    searches find nothing. ``slow``: answers come after a minute, or when the mode changes.

    Attributes:
        searches: The searches that were answered, and bytes of their answers.
    """

    def __init__(self, url: str, port: int = 0, mode: Mode = "honest") -> None:
        parts = urlsplit(url)
        self._changed = threading.Condition()
        self._mode: Mode = mode
        self.searches: list[tuple[str, int]] = []
        outer = self

        class Handler(_Handler):
            lying = outer
            target = (str(parts.hostname), int(parts.port or 80))

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def wait_out_slowness(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._mode != "slow", _SLOW_S)

    def close(self) -> None:
        self.mode = "honest"
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lying: ClassVar[LyingRegistry]
    target: ClassVar[tuple[str, int]]

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        mode = self.lying.mode
        if mode == "gone":
            self.close_connection = True
            return
        if mode == "slow":
            self.lying.wait_out_slowness()
        if mode == "error":
            self._answer(500, b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}')
        elif mode == "empty" and any(search in self.path for search in _SEARCHES):
            self._answer(200, b"{}")
        else:
            self._pass_on(body)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815  # the base's names

    def _pass_on(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(*self.target, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.lying.searches += [(s, len(content)) for s in _SEARCHES if s in self.path]
            self._answer(answer.status, content, answer.getheader("content-type"))
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, kind: str | None = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind or "application/octet-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Say nothing."""
