"""Which places a registry may send us to. Pure.

Whoever can register a version chooses its URI, and MLflow's client shows the credentials of its
server to whatever host an HTTP URI names. So HTTP goes to that server only, and of other kinds only
the object stores and file systems that MLflow itself knows are read.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from registry_sync.errors import ForbiddenPlaceError

_OF_THE_SERVER = frozenset({"mlflow-artifacts", "http", "https"})
_OTHERS = frozenset(
    {"", "file", "s3", "gs", "wasbs", "abfss", "hdfs", "viewfs", "dbfs", "r2", "b2", "runs"}
)
_DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
"""Neither user nor backslash, of which two readers of one URI may make two hosts."""


def check_place(uri: str, tracking_uri: str) -> None:
    """Refuse what must not be asked.

    Args:
        uri: Where a version's bytes are said to be.
        tracking_uri: The registry's own.

    Raises:
        ForbiddenPlaceError: It is of another kind, or on another server.
    """
    try:
        place = urlsplit(uri)
    except ValueError as error:
        raise ForbiddenPlaceError("the place of the version's bytes is no URI") from error
    if place.scheme in _OTHERS:
        return
    if place.scheme not in _OF_THE_SERVER:
        raise ForbiddenPlaceError(
            f"the version's bytes are said to be at a place of the kind {place.scheme!r}, which is "
            "not read"
        )
    if place.scheme == "mlflow-artifacts" and not place.netloc:
        return
    if not _HOST.fullmatch(place.netloc) or not _is_same(place, urlsplit(tracking_uri)):
        raise ForbiddenPlaceError(
            "the version's bytes are said to be on another HTTP server than the registry's, which "
            "would be shown its credentials: it is not asked"
        )


def _is_same(place: SplitResult, server: SplitResult) -> bool:
    """Whether a URI names the server itself."""
    scheme = server.scheme if place.scheme == "mlflow-artifacts" else place.scheme
    named = (scheme, place.hostname, _port(place, scheme))
    return named == (server.scheme, server.hostname, _port(server, server.scheme))


def _port(parts: SplitResult, scheme: str) -> int | None:
    """Return the port of a URI; None: it has none that could be meant."""
    try:
        return parts.port or _DEFAULT_PORTS.get(scheme)
    except ValueError:
        return None
