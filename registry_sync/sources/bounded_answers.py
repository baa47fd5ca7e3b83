"""Size limits on the answers of registries and storages, which are never decompressed.

A megabyte of gzip can hold a gigabyte, and neither MLflow's client nor boto3 limits its reads.
Files are streamed to disk, within the limits of a fetch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from registry_sync.errors import SourceError

MOST_LISTING_BYTES = 128 * 2**20
"""A page of 10,000 versions has 10 to 20 MB."""
MOST_PAGE_BYTES = 16 * 2**20
"""A page of 1,000 keys, each as long as S3 lets it be, has 4 MB."""
MOST_ERROR_BYTES = 2**20
_PIECE_BYTES = 64 * 1024
_FIRST_ERROR = 300


@cache
def bound_mlflow_answers() -> None:
    """Limit the answers of MLflow's client, which accepts no adapter. Imports mlflow."""
    from mlflow.utils import request_utils

    class BoundedAdapter(request_utils.TCPKeepAliveHTTPAdapter):  # type: ignore[misc]  # untyped
        def send(self, request: Any, stream: bool = False, **options: Any) -> Any:
            request.headers["Accept-Encoding"] = "identity"
            answer = super().send(request, stream=stream, **options)
            try:
                _check_encoding(answer.headers.get("Content-Encoding"))
                failed = answer.status_code >= _FIRST_ERROR
                if failed or not stream:
                    most_bytes = MOST_ERROR_BYTES if failed else MOST_LISTING_BYTES
                    answer._content = read_bounded(answer.iter_content(_PIECE_BYTES), most_bytes)  # noqa: SLF001 - requests fills it itself
            except BaseException:
                answer.close()
                raise
            return answer

    request_utils.TCPKeepAliveHTTPAdapter = BoundedAdapter


class BoundedSession:
    """botocore's HTTP session with limited answers; streamed bodies are not limited."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """Return the answer to a request, read unless its body is streamed.

        Raises:
            SourceError: The answer is too large. botocore's own errors pass.
        """
        from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
        from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError as SilentError

        streamed, request.stream_output = request.stream_output, True
        answer = self._session.send(request)
        failed = answer.status_code >= _FIRST_ERROR
        if streamed and not failed:
            return answer
        most_bytes = MOST_ERROR_BYTES if failed else MOST_PAGE_BYTES
        try:
            answer._content = read_bounded(answer.raw.stream(_PIECE_BYTES), most_bytes)  # noqa: SLF001 - botocore fills it itself
        except SilentError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except ProtocolError as error:
            raise ConnectionClosedError(
                error=error, request=request, endpoint_url=request.url
            ) from error
        except HTTPError as error:
            raise HTTPClientError(error=error) from error
        except SourceError:
            answer.raw.close()
            raise
        return answer

    def close(self) -> None:
        """Close its connections."""
        self._session.close()


def read_bounded(pieces: Iterable[bytes], most_bytes: int) -> bytes:
    """Return the bytes of an answer.

    Raises:
        SourceError: The answer is too large.
    """
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > most_bytes:
            raise SourceError(f"the server's answer has more than {most_bytes} bytes")
    return bytes(content)


def _check_encoding(encoding: str | None) -> None:
    if encoding and encoding.strip().lower() != "identity":
        raise SourceError(
            f"the server's answer has the content encoding {encoding[:32]!r}, which was not asked "
            "for and is not unpacked: have the server, or the proxy before it, send it as it is"
        )
