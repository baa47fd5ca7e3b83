"""The port to a registry."""

from __future__ import annotations

from typing import Protocol

from registry_sync.domain import Aspired, AspiredModel, AspiredVersion


class Source(Protocol):
    """One registry. Stateless: every call reads the registry anew.

    All methods block for the time of network calls (bounded, seconds), and are safe to call from
    several threads.
    """

    @property
    def name(self) -> str:
        """The registry's kind and address, for messages."""
        ...

    def aspired(self, before: Aspired | None = None) -> Aspired:
        """Return a complete listing; unreadable parts are problems inside it.

        Unchanged models may be taken from ``before``, an earlier listing, so that the tags of their
        versions may be as old.

        Raises:
            SourceError: The registry could not be listed completely.
        """
        ...

    def model(self, name: str) -> AspiredModel | None:
        """Return one model with all its versions, or None if there is no such model.

        Raises:
            SourceError: The registry did not answer.
        """
        ...

    def version(self, model: str, version: int) -> AspiredVersion:
        """Return one version, in any state.

        Raises:
            SourceError: The version does not exist, or the registry did not answer.
        """
        ...

    def locate(self, model: str, version: int) -> str:
        """Return the URI of the version's bytes.

        Raises:
            SourceError: The registry did not answer, or knows no URI.
        """
        ...

    def is_whole(self, version: AspiredVersion) -> bool:
        """Whether the registry confirms that the last file of a version has been uploaded."""
        ...

    def stamp(self, model: str, version: int, digest: str) -> None:
        """Stamp a version with ``digest``.

        Raises:
            SourceError: The registry refused the stamp.
        """
        ...
