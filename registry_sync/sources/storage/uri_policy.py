"""The policy for URIs of artifacts. Pure.

Publishers choose the URI of a version, and MLflow's client sends the credentials of its server to
every host in an HTTP URI. So HTTP URIs must name that server; of other schemes only the object
stores and file systems that MLflow supports are read.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from registry_sync.errors import ForbiddenUriError

_OF_THE_SERVER = frozenset({"mlflow-artifacts", "http", "https"})
_OTHERS = frozenset(
    {"", "file", "s3", "gs", "wasbs", "abfss", "hdfs", "viewfs", "dbfs", "r2", "b2", "runs"}
)
_DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
"""Excludes users and backslashes, which two parsers may read as different hosts."""


def check_uri(uri: str, tracking_uri: str) -> None:
    """Refuse a forbidden URI of a version's bytes.

    Raises:
        ForbiddenUriError: The scheme is unknown, or the URI names another HTTP server.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise ForbiddenUriError("the location of the version's bytes is not a URI") from error
    if parts.scheme in _OTHERS:
        return
    if parts.scheme not in _OF_THE_SERVER:
        raise ForbiddenUriError(
            f"the URI of the version's bytes has the scheme {parts.scheme!r}, which is not "
            "supported"
        )
    if parts.scheme == "mlflow-artifacts" and not parts.netloc:
        return
    if not _HOST.fullmatch(parts.netloc) or not _is_same(parts, urlsplit(tracking_uri)):
        raise ForbiddenUriError(
            "the version's bytes are on another HTTP server than the registry's, which would see "
            "its credentials: they are not fetched"
        )


def _is_same(parts: SplitResult, server: SplitResult) -> bool:
    """Whether a URI names the registry's server."""
    scheme = server.scheme if parts.scheme == "mlflow-artifacts" else parts.scheme
    named = (scheme, parts.hostname, _port(parts, scheme))
    return named == (server.scheme, server.hostname, _port(server, server.scheme))


def _port(parts: SplitResult, scheme: str) -> int | None:
    """Return the port of a URI, or None if it is invalid or unknown."""
    try:
        return parts.port or _DEFAULT_PORTS.get(scheme)
    except ValueError:
        return None
