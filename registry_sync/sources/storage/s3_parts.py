"""Fetching one part of an S3 object, across broken connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from registry_sync.errors import IncompleteArtifactError
from registry_sync.sources.storage.s3_errors import is_changed, is_gone

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

PART_BYTES = 8 * 2**20
_PIECE_BYTES = 256 * 1024
_RESUMES = 5
_RESUME_AFTER_S = 0.25
_log = structlog.get_logger("registry_sync.sources.storage.s3_parts")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from ``start`` up to ``end`` of one object, which must have this ETag and size."""

    bucket: str
    key: str
    etag: str
    object_bytes: int
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""
        return self.end - self.start


def parts_of(bucket: str, key: str, etag: str, size_bytes: int) -> Iterator[Part]:
    """Yield the parts of an object, in order; an empty object has one empty part."""
    for start in range(0, max(size_bytes, 1), PART_BYTES):
        yield Part(bucket, key, etag, size_bytes, start, min(start + PART_BYTES, size_bytes))


def load_part(client: S3Client, part: Part, cancelled: threading.Event) -> bytes:
    """Return the bytes of a part; after a broken connection, continue where it ended.

    Has no time limit: the reader sets ``cancelled``, and the result is then unspecified.

    Raises:
        IncompleteArtifactError: The object has changed since it was listed.
        Exception: An error of boto3 or urllib3, if the storage does not answer, or breaks several
            connections in a row without sending anything.
    """
    arrived = bytearray()
    silent = 0
    while len(arrived) < part.size_bytes and not cancelled.is_set():
        before = len(arrived)
        try:
            _read_on(client, part, arrived, cancelled)
        except _broken_connection() as error:
            silent = silent + 1 if len(arrived) == before else 1
            if not arrived or silent > _RESUMES:
                raise
            at_bytes = part.start + len(arrived)
            _log.info("fetch.resumed", key=part.key, at_bytes=at_bytes, error=type(error).__name__)
            cancelled.wait(_RESUME_AFTER_S * 2 ** (silent - 1))
    return bytes(arrived)


def _read_on(client: S3Client, part: Part, arrived: bytearray, cancelled: threading.Event) -> None:
    """Append the bytes that follow ``arrived``.

    Raises:
        IncompleteArtifactError: The object has changed since it was listed.
        ConnectionError: The answer ended early. boto3's and urllib3's own errors pass.
    """
    answer = _get(client, part, part.start + len(arrived))
    # urllib3's response returns bytes as they arrive; botocore's waits for a full piece, which a
    # slow storage may take hours to fill.
    raw: Any
    with answer["Body"] as raw:
        while len(arrived) < part.size_bytes and not cancelled.is_set():
            piece = raw.read1(min(_PIECE_BYTES, part.size_bytes - len(arrived)))
            if not piece:
                raise ConnectionError("the storage ended its answer early")
            arrived += piece


def _get(client: S3Client, part: Part, start: int) -> GetObjectOutputTypeDef:
    """Request the bytes of a part from ``start`` on."""
    from botocore.exceptions import ClientError

    whole = (start, part.end) == (0, part.object_bytes)
    options: dict[str, Any] = {} if whole else {"Range": f"bytes={start}-{part.end - 1}"}
    try:
        answer = client.get_object(Bucket=part.bucket, Key=part.key, IfMatch=part.etag, **options)
    except ClientError as error:
        if is_changed(error) or is_gone(error):
            raise IncompleteArtifactError(f"{part.key!r} changed while it was fetched") from error
        raise
    expected = None if whole else f"bytes {start}-{part.end - 1}/{part.object_bytes}"
    sent = (answer["ContentLength"], answer.get("ContentRange"), answer["ETag"].strip('"'))
    if sent != (part.end - start, expected, part.etag.strip('"')):
        answer["Body"].close()
        raise IncompleteArtifactError(
            f"{part.key!r} was listed with {part.object_bytes} bytes, and the answer has others"
        )
    return answer


def _broken_connection() -> tuple[type[BaseException], ...]:
    """Return the errors of a connection that breaks or cannot be made."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError
    from urllib3.exceptions import HTTPError

    return (OSError, HTTPError, HTTPClientError, IncompleteReadError)
