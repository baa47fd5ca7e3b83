"""A registry or storage that answers with a bomb, or without end, costs its call and no memory."""

import itertools
import os
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry_sync.errors import SourceError, SyncError
from registry_sync.sources import bounded_answers, mlflow_registry, s3_registry
from registry_sync.sources.s3_layout import ModelLocation, read_small
from registry_sync.sources.storage.fetcher import Fetcher, FetchLimits
from registry_sync.sources.storage.s3 import connect_s3

pytestmark = pytest.mark.integration

UNPACKED_BYTES = 64 * 2**20
LIMIT_BYTES = 2**20
MOST_MEMORY_BYTES = 24 * 2**20
Answer = Callable[[BaseHTTPRequestHandler], None]


class LyingServer(ThreadingHTTPServer):
    """Answers every request as ``answer`` does; ``asked``: the encodings that were asked for."""

    daemon_threads = True
    answer: Answer

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Leave it: a client that has enough hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, LyingServer)
        self.server.asked.add(self.headers.get("Accept-Encoding"))
        self.server.answer(self)
        self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the handler's own names

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@cache
def zeros(how: str) -> bytes:
    """Return zeros, packed as often as an encoding says."""
    body = [bytes(2**20)] * (UNPACKED_BYTES // 2**20)
    for name in how.split(", "):
        packer = zlib.compressobj(6, wbits=31 if name == "gzip" else 15)
        body = [*map(packer.compress, body), packer.flush()]
    return b"".join(body)


def packed(how: str) -> Answer:
    body = zeros(how)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", how)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def endless(status: int) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        with suppress(OSError):
            for _ in itertools.repeat(None, UNPACKED_BYTES // 2**16):
                handler.wfile.write(b" " * 2**16)

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingServer]:
    for name in ("MOST_LISTING_BYTES", "MOST_PAGE_BYTES", "MOST_ERROR_BYTES"):
        monkeypatch.setattr(bounded_answers, name, LIMIT_BYTES)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with LyingServer() as lying:
        thread = threading.Thread(target=lying.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", lying.url)
        yield lying
        lying.shutdown()
        thread.join()


def asks_mlflow(server: LyingServer, _into: Path) -> None:
    mlflow_registry.connect_mlflow(server.url, os.environ).aspired()


def asks_a_proxy(server: LyingServer, into: Path) -> None:
    limits = FetchLimits(max_bytes=LIMIT_BYTES, disk_floor_bytes=0, stable_after_s=0)
    fetcher = Fetcher(tracking_uri=server.url, limits=limits, environ=os.environ)
    fetcher.fetch("mlflow-artifacts:/model", into / "artifact")


def asks_s3(_server: LyingServer, _into: Path) -> None:
    s3_registry.connect_s3_registry("s3://bucket/prefix", os.environ).aspired()


def reads_an_object(_server: LyingServer, _into: Path) -> None:
    place = ModelLocation.at("s3://bucket/prefix/churn")
    try:
        read_small(connect_s3(os.environ), place, place.aliases, None, LIMIT_BYTES)
    except ValueError as error:
        raise SourceError(str(error)) from error


def refused(call: Callable[[LyingServer, Path], None], server: LyingServer, into: Path) -> str:
    """Make a call, which must be refused within a little memory; return the refusal."""
    tracemalloc.start()
    try:
        with pytest.raises(SyncError) as raised:
            call(server, into)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY_BYTES
    finally:
        tracemalloc.stop()
    return str(raised.value)


@pytest.fixture(autouse=True)
def _imported() -> None:
    """Import what the calls import: it is none of their memory."""
    bounded_answers.bound_mlflow_answers()
    import mlflow.store.artifact.mlflow_artifacts_repo
    import mlflow.tracking.client  # noqa: F401

    connect_s3({"AWS_DEFAULT_REGION": "us-east-1"})


@pytest.mark.parametrize(
    ("call", "how"),
    [
        (asks_mlflow, "gzip"),
        (asks_mlflow, "deflate"),
        (asks_mlflow, "gzip, gzip"),
        (asks_a_proxy, "gzip"),
        (asks_s3, "gzip"),
    ],
)
def test_nothing_is_unpacked(
    call: Callable[[LyingServer, Path], None], how: str, server: LyingServer, tmp_path: Path
) -> None:
    server.answer = packed(how)
    reason = refused(call, server, tmp_path)
    if call is not asks_s3:  # boto3 reads it as it is: no XML
        assert f"content encoding {how!r}, which was not asked for" in reason
    assert server.asked <= {"identity", None}


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (asks_mlflow, 200),
        (asks_mlflow, 404),
        (asks_mlflow, 503),
        (asks_a_proxy, 200),
        (asks_s3, 200),
        (asks_s3, 404),
        (reads_an_object, 200),
        (reads_an_object, 403),
    ],
)
def test_an_answer_without_end_is_left(
    call: Callable[[LyingServer, Path], None], status: int, server: LyingServer, tmp_path: Path
) -> None:
    server.answer = endless(status)
    reason = refused(call, server, tmp_path)
    assert "more than 1048576 bytes" in reason or status == 503  # the retries' own words


def test_a_file_of_a_proxy_is_not_unpacked(server: LyingServer, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if "list" in handler.path or "path=" in handler.path:
            body = b'{"files": [{"path": "MLmodel", "is_dir": false, "file_size": 100}]}'
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        else:
            packed("gzip")(handler)

    zeros("gzip")
    server.answer = answer
    assert "was not asked for" in refused(asks_a_proxy, server, tmp_path)
