"""The location for the URI of a version's bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.system.logs import remember_location
from registry_sync.sources.bounded_answers import bound_mlflow_answers
from registry_sync.sources.storage.local import LocalLocation
from registry_sync.sources.storage.location import Location, ScratchFolder, as_source_error
from registry_sync.sources.storage.mlflow_artifacts import (
    ProxyLocation,
    RepositoryLocation,
    uri_of_run,
)
from registry_sync.sources.storage.s3 import S3Location
from registry_sync.sources.storage.uri_policy import check_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def open_location(
    uri: str, *, tracking_uri: str, s3: Callable[[], S3Client], scratch: ScratchFolder
) -> Location:
    """Return the location of ``uri``. Calls no storage; for a run it calls the MLflow server.

    The names in ``uri`` are redacted from reasons that callers read. ``s3`` returns the client for
    ``s3:``.

    Raises:
        ForbiddenUriError: The policy forbids the URI.
        SourceError: The location cannot be used.
    """
    remember_location(uri)
    check_uri(uri, tracking_uri)
    scheme = urlsplit(uri).scheme
    with as_source_error(f"the artifact location {scheme or 'path'!r} cannot be used"):
        if scheme not in ("", "file", "s3"):
            bound_mlflow_answers()
        if scheme == "s3":
            return S3Location.at(uri, s3())
        if scheme == "mlflow-artifacts":
            return ProxyLocation.at(uri, tracking_uri)
        if scheme in ("", "file"):
            return LocalLocation.at(uri)
        if scheme == "runs":
            of_run = uri_of_run(uri, tracking_uri)
            return open_location(of_run, tracking_uri=tracking_uri, s3=s3, scratch=scratch)
        return RepositoryLocation.at(uri, tracking_uri, scratch)
