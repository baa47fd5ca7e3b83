"""A registry that is connected at the first call."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import cached_property

from registry_sync.domain import Aspired, AspiredModel, AspiredVersion
from registry_sync.sources.mlflow_registry import connect_mlflow
from registry_sync.sources.s3_registry import SCHEME, connect_s3_registry
from registry_sync.sources.source import Source


class LazyRegistry:
    """A `Source`, connected at the first call: importing mlflow or boto3 takes seconds."""

    def __init__(
        self,
        tracking_uri: str,
        environ: MutableMapping[str, str],
        *,
        on_call: Callable[[str], None],
    ) -> None:
        self._tracking_uri = tracking_uri
        self._environ = environ
        self._on_call = on_call

    @cached_property
    def _registry(self) -> Source:
        if self._tracking_uri.startswith(SCHEME):
            return connect_s3_registry(self._tracking_uri, self._environ)
        return connect_mlflow(self._tracking_uri, self._environ, on_call=self._on_call)

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return f"the registry at {self._tracking_uri}"  # its own name would need a connection

    def aspired(self, before: Aspired | None = None) -> Aspired:
        """See `Source.aspired`."""
        return self._registry.aspired(before)

    def model(self, name: str) -> AspiredModel | None:
        """See `Source.model`."""
        return self._registry.model(name)

    def version(self, model: str, version: int) -> AspiredVersion:
        """See `Source.version`."""
        return self._registry.version(model, version)

    def locate(self, model: str, version: int) -> str:
        """See `Source.locate`."""
        return self._registry.locate(model, version)

    def is_whole(self, version: AspiredVersion) -> bool:
        """See `Source.is_whole`."""
        return self._registry.is_whole(version)

    def stamp(self, model: str, version: int, digest: str) -> None:
        """See `Source.stamp`."""
        self._registry.stamp(model, version, digest)
