"""Artifacts in an S3 bucket."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.system.logs import names_user
from registry_sync.errors import ArtifactTooLargeError, SourceError
from registry_sync.sources.bounded_answers import BoundedSession
from registry_sync.sources.storage.location import (
    NEVER,
    RemoteFile,
    RemoteListing,
    as_source_error,
    collect_listing,
)
from registry_sync.sources.storage.s3_parts import load_part, parts_of
from registry_sync.sources.storage.watched_reads import parts_in_order

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PARTS_AT_ONCE = 4
_MOST_FOLDER_MARKS = 1000  # in addition to the most files
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 30
_ATTEMPTS = 3
_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CONNECTIONS = 64  # kept open; every fetch reads several parts at a time


def refuse_passwords(environ: Mapping[str, str]) -> None:
    """Refuse an endpoint URL with a user or a password: boto3 repeats it in its errors.

    Raises:
        SourceError: A variable has one; the message names it and the remedy.
    """
    for name in _ENDPOINTS:
        if names_user(environ.get(name, "")):
            raise SourceError(
                f"{name} must be a URL without user and password, which logs and errors would "
                "show: take them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def connect_s3(environ: Mapping[str, str], *, read_timeout_s: float = _READ_TIMEOUT_S) -> S3Client:
    """Return a client for the endpoint that MLflow's or AWS's variables name. Any thread.

    Raises:
        SourceError: An endpoint's URL has a user or a password.
    """
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    refuse_passwords(environ)
    session = get_session()
    session.get_component("response_parser_factory").set_parser_defaults(
        timestamp_parser=_parse_timestamp
    )
    style = environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "auto")
    unverified = environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
    client: S3Client = boto3.session.Session(botocore_session=session).client(
        "s3",
        endpoint_url=next((environ[one] for one in _ENDPOINTS if environ.get(one)), None),
        verify=False if unverified else None,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": _ATTEMPTS},
            s3={"addressing_style": style},  # type: ignore[arg-type]  # the user's text
        ),
    )
    endpoint = client._endpoint  # type: ignore[attr-defined]  # noqa: SLF001 - accepts no session
    endpoint.http_session = BoundedSession(endpoint.http_session)
    return client


def _parse_timestamp(value: Any) -> datetime:
    """Return the time in an answer; ISO's form first, since botocore is slow to try all forms."""
    from botocore.utils import parse_timestamp

    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = parse_timestamp(value)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class S3Location:
    """The objects under a prefix of a bucket."""

    client: S3Client
    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str, client: S3Client) -> S3Location:
        """Return the location of an ``s3://bucket/prefix`` URI."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        prefix = prefix.rstrip("/")
        return cls(client, bucket, f"{prefix}/" if prefix else "")

    def files(self, max_files: int, cancelled: threading.Event = NEVER) -> RemoteListing:
        """List the prefix; see `Location`."""
        with as_source_error("the objects could not be listed"):
            newest: list[float] = []
            now: list[float] = []
            files = self._objects(newest, now, max_files + _MOST_FOLDER_MARKS, cancelled)
            return collect_listing(
                files, max_files, cancelled, lambda: now[0] - max(newest) if newest else None
            )

    def _objects(
        self, newest: list[float], now: list[float], max_marks: int, cancelled: threading.Event
    ) -> Iterator[RemoteFile]:
        """Yield the objects; add their times to ``newest`` and the server's to ``now``.

        Folder marks of consoles and file systems are skipped.
        """
        marks = 0
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
            if cancelled.is_set():
                return
            date = page["ResponseMetadata"]["HTTPHeaders"]["date"]
            now.append(parsedate_to_datetime(date).timestamp())
            for each in page.get("Contents", []):
                path = each["Key"].removeprefix(self.prefix)
                if each["Size"] == 0 and (not path or path.endswith("/")):
                    marks += 1
                    if marks > max_marks:
                        raise ArtifactTooLargeError("the artifact has too many folders")
                    continue
                newest.append(each["LastModified"].timestamp())
                yield RemoteFile(path, each["Size"], each["ETag"])

    def read(self, files: Sequence[RemoteFile]) -> Iterator[tuple[RemoteFile, bytes]]:
        """Read objects, if they are unchanged, in parallel parts.

        Raises:
            SourceError, IncompleteArtifactError: See `Location`.
        """
        by_key = {self.prefix + file.path: file for file in files}
        parts = (
            part
            for key, file in by_key.items()
            for part in parts_of(self.bucket, key, file.mark or "", file.size_bytes or 0)
        )
        loaded = parts_in_order(parts, partial(load_part, self.client), at_once=_PARTS_AT_ONCE)
        with as_source_error("the objects could not be read"), closing(loaded):
            for part, content in loaded:
                yield by_key[part.key], content or b""
