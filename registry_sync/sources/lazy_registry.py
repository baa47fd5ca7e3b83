"""A registry that is connected with the first question."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import cached_property

from registry_sync.domain import Aspired, AspiredModel, AspiredVersion
from registry_sync.sources.mlflow_registry import connect_mlflow
from registry_sync.sources.s3_registry import SCHEME, connect_s3_registry
from registry_sync.sources.source import Source


class LazyRegistry:
    """The registry, connected with the first question: importing mlflow or boto3 takes seconds.

    See `registry_sync.sources.source.Source`.
    """

    def __init__(
        self,
        tracking_uri: str,
        environ: MutableMapping[str, str],
        *,
        on_call: Callable[[str], None],
    ) -> None:
        """Store what to connect to, and what to call before each question."""
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
        """What messages call the registry."""
        return f"the registry at {self._tracking_uri}"  # asking it would connect, in this thread

    def aspired(self, before: Aspired | None = None) -> Aspired:
        """List everything."""
        return self._registry.aspired(before)

    def model(self, name: str) -> AspiredModel | None:
        """Ask for one model."""
        return self._registry.model(name)

    def version(self, model: str, version: int) -> AspiredVersion:
        """Ask for one version."""
        return self._registry.version(model, version)

    def locate(self, model: str, version: int) -> str:
        """Return the URI of a version's bytes."""
        return self._registry.locate(model, version)

    def is_whole(self, version: AspiredVersion) -> bool:
        """Whether the registry knows that the last file has been uploaded."""
        return self._registry.is_whole(version)

    def stamp(self, model: str, version: int, digest: str) -> None:
        """Write a digest on a version."""
        self._registry.stamp(model, version, digest)
