"""From the URI of a version's bytes to the location that reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.system.logs import remember_location
from registry_sync.sources.bounded_answers import bound_mlflow_answers
from registry_sync.sources.storage.uri_policy import check_place

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
from registry_sync.sources.storage.local import LocalLocation
from registry_sync.sources.storage.location import Location, Scratch, as_source_error
from registry_sync.sources.storage.mlflow_artifacts import (
    ProxyLocation,
    RepositoryLocation,
    _of_run,
)
from registry_sync.sources.storage.s3 import S3Location


def open_location(
    uri: str, *, tracking_uri: str, s3: Callable[[], S3Client], scratch: Scratch
) -> Location:
    """Return the location that ``uri`` means. Asks nothing yet, but the server where a run's is.

    The names in ``uri`` are remembered, so that no caller reads them in the reason of a failure.

    Args:
        uri: Of any kind.
        tracking_uri: The MLflow server that ``mlflow-artifacts:`` means.
        s3: Gives the client for ``s3:``.
        scratch: For what only MLflow can read.

    Raises:
        ForbiddenPlaceError: It must not be asked.
        SourceError: It cannot be used.
    """
    remember_location(uri)
    check_place(uri, tracking_uri)
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
        if scheme == "runs":  # which MLflow keeps wherever somebody told it to
            place = _of_run(uri, tracking_uri)
            return open_location(place, tracking_uri=tracking_uri, s3=s3, scratch=scratch)
        return RepositoryLocation.at(uri, tracking_uri, scratch)
